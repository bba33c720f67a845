"""What the blocks of a scenario are made of: strictness, ranges, and blocks that name a plug-in.

A plug-in's block is validated by the settings model of the class registered under its `name`, so that no module here knows a
plug-in and every wrong key is still found before anything starts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from raykd.scenario.errors import RaykdError
from raykd.scenario.registry import REGISTRIES


class Strict(BaseModel):
    """A block of a scenario: frozen, no unknown keys, no conversions (`"3"` is not 3), no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


def plugin_block(kind: str) -> Any:
    """An annotated type whose values are the validated settings of the plug-in that the block names."""

    def validate(block: Any) -> Any:
        if isinstance(block, Strict):
            return block
        if not isinstance(block, dict) or not isinstance(block.get("name"), str):
            raise PydanticCustomError("plugin_name", "must be a block with a 'name' key, as {{name: ...}}")
        try:
            settings = REGISTRIES[kind].get(block["name"]).Settings
        except RaykdError as error:
            raise PydanticCustomError("plugin_unknown", "{message}", {"message": str(error), "at": "name"}) from None
        try:
            return settings.model_validate_json(json.dumps(block))
        except ValidationError as error:
            details = error.errors(include_url=False)
            raise PydanticCustomError(
                "plugin_settings", "{summary}", {"summary": str(error), "errors": details, "model": settings}
            ) from None

    return Annotated[
        Any,
        PlainValidator(validate),
        PlainSerializer(lambda value: value.model_dump(mode="json")),
        WithJsonSchema({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"], "x-raykd-kind": kind}),
    ]


if TYPE_CHECKING:
    SourceBlock: TypeAlias = Any
    NetworkBlock: TypeAlias = Any
    MethodBlock: TypeAlias = Any
    ShiftBlock: TypeAlias = Any
else:
    SourceBlock = plugin_block("source")
    NetworkBlock = plugin_block("network")
    MethodBlock = plugin_block("method")
    ShiftBlock = plugin_block("shift")

SafeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Millimetres = Annotated[float, Field(ge=0.05, le=20.0)]
Spacing = tuple[Millimetres, Millimetres, Millimetres]
"""Voxel edges in mm along I, J, K (right, anterior, superior)."""


def _along_each_axis(spacing_mm: Any) -> Any:
    """One number as that number along each axis, and a list as the tuple that a strict model asks for."""
    if isinstance(spacing_mm, int | float) and not isinstance(spacing_mm, bool):
        return (spacing_mm,) * 3
    if not isinstance(spacing_mm, list | tuple):
        raise PydanticCustomError("spacing", "must be a number, or a list of three numbers or nulls")
    return tuple(spacing_mm)


TargetSpacing = Annotated[
    tuple[Millimetres | None, Millimetres | None, Millimetres | None],
    BeforeValidator(
        _along_each_axis, json_schema_input_type=Millimetres | tuple[Millimetres | None, Millimetres | None, Millimetres | None]
    ),
]
"""Voxel edges in mm along I, J, K to bring images to: one number, or three of which null stands for as the source has it."""
SiteNames = Annotated[
    tuple[SafeName, ...],
    BeforeValidator(
        lambda names: (names,) if isinstance(names, str) else tuple(names) if isinstance(names, list) else names,
        json_schema_input_type=SafeName | list[SafeName],
    ),
]
"""Names of sites or groups: one, or a list."""
Shape = tuple[Annotated[int, Field(ge=4, le=1024)], Annotated[int, Field(ge=4, le=1024)], Annotated[int, Field(ge=4, le=1024)]]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]
