"""What a settings model expects at a key path, read from its JSON Schema, plug-ins' blocks by their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from raykd.scenario.document import Node
from raykd.scenario.registry import REGISTRIES


@dataclass(frozen=True)
class Shape:
    """One schema that a value may have.

    Attributes:
        schema: a part of a JSON Schema, references followed.
        root: the whole of it, where references lead.
    """

    schema: dict[str, Any] = field(repr=False)
    root: dict[str, Any] = field(repr=False)


def shapes_of(model: type[BaseModel]) -> list[Shape]:
    """The shapes of a model's own block."""
    schema = _schema(model)
    return _branches(schema, schema)


def shapes_under(shapes: Iterable[Shape], step: str | int) -> list[Shape]:
    """The shapes of what is under a key or an index; none: no such key."""
    return [inner for shape in shapes for child in _children(shape.schema, step) for inner in _branches(child, shape.root)]


def with_plugins(shapes: Iterable[Shape], block: Node) -> list[Shape]:
    """The shapes of a block, and those of the plug-in that it names."""
    shapes = list(shapes)
    name = block.child("name")
    for kind in {shape.schema["x-raykd-kind"] for shape in shapes if "x-raykd-kind" in shape.schema}:
        if name is not None and name.value in REGISTRIES[kind]:
            shapes += shapes_of(REGISTRIES[kind].get(name.value).Settings)
    return shapes


def known_keys(shapes: Iterable[Shape]) -> set[str]:
    """The keys that a block of one of these shapes may have."""
    return {key for shape in shapes for key in shape.schema.get("properties", {})}


def is_whole(shapes: Iterable[Shape]) -> bool:
    """Whether whole numbers are expected and no others."""
    types = {shape.schema.get("type") for shape in shapes}
    return "integer" in types and "number" not in types


@lru_cache(maxsize=128)
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _branches(schema: Any, root: dict[str, Any]) -> list[Shape]:
    """A schema with its reference followed and its unions taken apart."""
    if "$ref" in schema:
        return _branches(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    parts = [part for word in ("anyOf", "oneOf", "allOf") for part in schema.get(word, [])]
    return [Shape(schema, root), *(branch for part in parts for branch in _branches(part, root))]


def _children(schema: dict[str, Any], step: str | int) -> Iterator[Any]:
    if isinstance(step, str):
        found = schema.get("properties", {}).get(step, schema.get("additionalProperties"))
    else:
        prefix = schema.get("prefixItems", [])
        found = prefix[step] if step < len(prefix) else schema.get("items")
    if isinstance(found, dict):
        yield found
