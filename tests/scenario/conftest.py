"""A world of small plug-ins, so that the language of scenarios is tested without the real ones."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator

from raykd.scenario import registry, schema


class Plain(schema.Strict):
    name: Literal["plain"] = "plain"
    width: Annotated[int, Field(ge=1)] = 8
    """Channels of the first level."""


class Deep(schema.Strict):
    name: Literal["deep"] = "deep"
    depth: Annotated[int, Field(ge=1)] = 4


class Weights(schema.Strict):
    response: schema.NonNegativeFloat = 1.0
    feature: schema.NonNegativeFloat = 1.0


class Dual(schema.Strict):
    name: Literal["dual"] = "dual"
    temperature: schema.PositiveFloat = 2.0
    """Softens the response."""
    weights: Weights = Weights()
    levels: int | tuple[int, ...] = 3

    @model_validator(mode="after")
    def _useful(self) -> Dual:
        if self.weights.response == self.weights.feature == 0:
            raise ValueError("one of the weights must be above 0")
        return self


class Average(schema.Strict):
    name: Literal["average"] = "average"


class Synthetic(schema.Strict):
    name: Literal["synthetic"] = "synthetic"
    num_cases: schema.PositiveInt
    protocol: Literal["dess", "fse", "spgr"] = "dess"


class Files(schema.Strict):
    name: Literal["files"] = "files"
    images: str
    labels: dict[int, str] = {}
    is_cached: bool = False


class Tilt(schema.Strict):
    name: Literal["tilt"] = "tilt"
    degrees: Annotated[float, Field(ge=0, le=45)] = 5.0


PLUGINS: dict[str, list[type[schema.Strict]]] = {
    "network": [Plain, Deep],
    "method": [Dual, Average],
    "source": [Synthetic, Files],
    "shift": [Tilt],
}


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, models in PLUGINS.items():
        fresh = registry.Registry(kind, "raykd.scenario")
        monkeypatch.setattr(fresh, "_is_discovered", True)
        for model in models:
            thing: type[Any] = type(model.__name__, (), {"Settings": model})
            fresh.register(model.model_fields["name"].default)(thing)
        monkeypatch.setitem(registry.REGISTRIES, kind, fresh)
