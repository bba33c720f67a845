"""The JSON Schema of a scenario, for editors: completion, descriptions and red underlines while one types."""

from __future__ import annotations

import copy
from typing import Any

from raykd.scenario.draws import DISTRIBUTIONS, Draw
from raykd.scenario.expansion import NEVER_DRAWN
from raykd.scenario.registry import REGISTRIES
from raykd.scenario.schema import Scenario
from raykd.scenario.study import StudyFile

_SITE = "site."
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_NAMELESS = {
    "type": "object",
    "not": {"required": ["name"]},
    "description": "Settings for the plug-in that the extended file names.",
}


def json_schema() -> dict[str, Any]:
    """The schema of a scenario file with the settings of every registered plug-in, as JSON values (draft 2020-12)."""
    schema = Scenario.model_json_schema()
    for kind, registry in REGISTRIES.items():
        for name in registry.names():
            _add_plugin(schema["$defs"], kind, name, registry.get(name).Settings)
    _name_plugins(schema)
    _allow_draws(schema)
    required = schema["required"]
    _allow_parts(schema, schema["$defs"])
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "A scenario that this one is laid on: an absolute path, or one relative to this file.",
    }
    return {"$schema": _DIALECT, **schema, "anyOf": [{"required": ["extends"]}, {"required": required}]}


def _add_plugin(definitions: dict[str, Any], kind: str, name: str, settings: Any) -> None:
    prefix = f"{kind}.{name}"
    schema = settings.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}")
    for model, definition in schema.pop("$defs", {}).items():
        definitions[f"{prefix}.{model}"] = definition
    description = schema["properties"].get("name", {}).get("description")
    schema["properties"]["name"] = {"const": name, **({"description": description} if description else {})}
    schema["required"] = ["name", *(key for key in schema.get("required", []) if key != "name")]
    definitions[prefix] = schema


def _name_plugins(schema: Any) -> None:
    """Every block that names a plug-in becomes one of the plug-ins of its kind."""
    for child in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _name_plugins(child)
    if isinstance(schema, dict) and "x-raykd-kind" in schema:
        kind = schema.pop("x-raykd-kind")
        described = {key: schema[key] for key in ("description", "title") if key in schema}
        schema.clear()
        schema.update(described, oneOf=[{"$ref": f"#/$defs/{kind}.{name}"} for name in REGISTRIES[kind].names()])


def _allow_draws(schema: dict[str, Any]) -> None:
    """Client groups get definitions of their own, in which a draw may stand for a value; elsewhere none may."""
    definitions = schema["$defs"]
    drawing = Draw.model_json_schema(ref_template="#/$defs/{model}")
    definitions |= {**drawing.pop("$defs"), "Draw": drawing}
    for key in ("min", "max", *DISTRIBUTIONS):
        drawing["properties"][key] = _without_null(drawing["properties"][key])
    drawing["oneOf"] = [{"required": [word]} for word in DISTRIBUTIONS]
    group = copy.deepcopy(definitions["ClientGroup"])
    _own_definitions(group, definitions)
    group["properties"] = {key: child if key in NEVER_DRAWN else _or_draw(child) for key, child in group["properties"].items()}
    definitions["ClientGroup"] = group


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    (given,) = (branch for branch in schema["anyOf"] if branch != {"type": "null"})
    return {**{key: value for key, value in schema.items() if key not in ("anyOf", "default")}, **given}


def _own_definitions(schema: Any, definitions: dict[str, Any]) -> None:
    """Every reference leads to a copy of its definition whose values may be drawn, made where there is none yet."""
    for child in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _own_definitions(child, definitions)
    if isinstance(schema, dict) and "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        schema["$ref"] = f"#/$defs/{_SITE}{name}"
        if f"{_SITE}{name}" not in definitions:
            own = definitions[f"{_SITE}{name}"] = copy.deepcopy(definitions[name])
            _own_definitions(own, definitions)
            for key, child in own.get("properties", {}).items():
                own["properties"][key] = child if key == "name" else _or_draw(child)


def _or_draw(schema: dict[str, Any]) -> dict[str, Any]:
    """A value of this schema or a draw; so are the elements where it is a list."""
    described: dict[str, Any] = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in described}
    branches = [_with_drawn_elements(branch) for branch in rest.pop("anyOf", [rest])]
    return {**described, "anyOf": [*branches, {"$ref": "#/$defs/Draw"}]}


def _with_drawn_elements(schema: dict[str, Any]) -> dict[str, Any]:
    own = dict(schema)
    if "prefixItems" in schema:
        own["prefixItems"] = [_or_draw(item) for item in schema["prefixItems"]]
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            own[key] = _or_draw(schema[key])
    return own


def _allow_parts(block: dict[str, Any], definitions: dict[str, Any]) -> None:
    """An extending file may give a part of the blocks that are reached without passing a list."""
    block.pop("required", None)
    for child in block["properties"].values():
        if "oneOf" in child and _NAMELESS not in child["oneOf"]:
            child["oneOf"].append(_NAMELESS)
        inner = definitions.get(child.get("$ref", "").removeprefix("#/$defs/"))
        if inner is not None:
            _allow_parts(inner, definitions)


def study_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a study's file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **StudyFile.model_json_schema(by_alias=True)}
