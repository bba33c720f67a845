"""What people, lines and machines cost: the file behind every figure of money, each price a number, a range or a range with a
likeliest value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from raykd.scenario.fields import Strict
from raykd.scenario.load import validated
from raykd.scenario.yaml_reader import read_yaml

Values = tuple[float, ...]
"""One number: sure. Two: alike between them. Three: low, likeliest, high of a triangle."""


def _as_values(price: Any) -> Values:
    values = price if isinstance(price, list | tuple) else [price]
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if not is_number or not 1 <= len(values) <= 3:
        raise PydanticCustomError("price", "must be a number, a range [low, high], or [low, likeliest, high]")
    if min(values) < 0 or list(values) != sorted(values):
        raise PydanticCustomError("price", "must be at least 0, and a range must not go down")
    return tuple(float(value) for value in values)


def _is_positive(values: Values) -> Values:
    if values[0] <= 0:
        raise PydanticCustomError("price", "must be more than 0")
    return values


def _as_written(values: Values) -> Any:
    return values[0] if len(values) == 1 else list(values)


_NUMBER = {"type": "number", "minimum": 0}
_SCHEMA = {"anyOf": [_NUMBER, {"type": "array", "items": _NUMBER, "minItems": 1, "maxItems": 3}]}
Price = Annotated[Values, PlainValidator(_as_values), PlainSerializer(_as_written), WithJsonSchema(_SCHEMA)]
PositivePrice = Annotated[
    Values, PlainValidator(lambda price: _is_positive(_as_values(price))), PlainSerializer(_as_written), WithJsonSchema(_SCHEMA)
]
ZERO, ONE = (0.0,), (1.0,)


class Annotation(Strict):
    """What an outlined case costs."""

    minutes_per_case: PositivePrice = Field(json_schema_extra={"unit": "min"})
    """An expert's time for all classes of one case, corrections included."""
    hourly_wage: PositivePrice = Field(json_schema_extra={"unit": "{currency}/h"})
    """An hour of that expert, with what an employer pays on top."""


class Transfer(Strict):
    """What crossing a link costs."""

    per_gb: Price = Field(json_schema_extra={"unit": "{currency}/GB"})
    """A gigabyte (1e9 bytes) between a site and the server, either way."""


class Compute(Strict):
    """What machines cost."""

    per_hour: Price = Field(json_schema_extra={"unit": "{currency}/h"})
    """An hour of a machine that trains, at a site or at the server, without its energy."""
    power_kw: Price = Field(json_schema_extra={"unit": "kW"})
    """What such a machine draws while it trains, cooling included."""
    hours_factor: PositivePrice = Field(default=ONE, json_schema_extra={"unit": ""})
    """Hours of such a machine for one hour of training measured in the runs: below 1 where sites have faster machines."""


class Energy(Strict):
    """What energy costs."""

    per_kwh: Price = Field(json_schema_extra={"unit": "{currency}/kWh"})
    """A kilowatt-hour."""


class Repository(Strict):
    """What the richly annotated source costs, whose teacher several federations may share."""

    price: Price = Field(default=ZERO, json_schema_extra={"unit": "{currency}"})
    """Of assembling and outlining it, or of a licence, once."""
    num_federations: PositivePrice = Field(default=ONE, json_schema_extra={"unit": ""})
    """How many federations share that price and its teacher's training."""


class Joining(Strict):
    """What it costs a site to take part."""

    joining: Price = Field(default=ZERO, json_schema_extra={"unit": "{currency}/site"})
    """Contract, ethics, installation and support, once a site."""


class PriceList(Strict):
    """A file of prices."""

    currency: Annotated[str, Field(pattern=r"^[A-Za-z€$£¥]{1,8}$")]
    """As printed behind every amount: EUR, USD, ..."""
    annotation: Annotation
    transfer: Transfer
    compute: Compute
    energy: Energy
    repository: Repository = Repository()
    site: Joining = Joining()

    def assumptions(self) -> Iterator[tuple[str, Values, str, str]]:
        """Key, values, unit and meaning of every price, those left at their default included."""
        for block_name in type(self).model_fields:
            block = getattr(self, block_name)
            if isinstance(block, Strict):
                for name, field in type(block).model_fields.items():
                    yield (
                        f"{block_name}.{name}",
                        getattr(block, name),
                        self._unit(field),
                        " ".join((field.description or "").split()),
                    )

    def _unit(self, field: FieldInfo) -> str:
        extra = field.json_schema_extra
        return str(extra["unit"]).format(currency=self.currency) if isinstance(extra, dict) else ""


def load_prices(path: Path) -> PriceList:
    """The prices of a YAML file.

    Raises:
        ScenarioError: with every problem found, each with its file, line and key.
    """
    return validated(read_yaml(Path(path)), PriceList)
