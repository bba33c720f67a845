"""Tables of pages: from a frame of numbers, such as a question returns, to cells that a reader understands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from raykd.report.blocks import Cell, Row, Table
from raykd.report.material import Material
from raykd.report.wording import NONE, bounds, data_size, digits_for, duration, number, probability, readable, signed
from raykd.results.statistics import Estimate

METRICS = {"dsc": "DSC", "nsd": "NSD", "hd95_mm": "HD95 (mm)"}
ENDLESS = "never"


def digits_of(metric: str) -> int:
    """Decimals worth printing."""
    return 1 if metric.endswith("_mm") else 2


def estimate_cell(estimate: Estimate, digits: int = 2, is_signed: bool = False) -> Cell:
    """A value above its interval."""
    say, shown = signed if is_signed else number, digits_for(estimate, digits, is_signed=is_signed)
    return with_interval(estimate, lambda value: say(value, shown))


def with_interval(estimate: Estimate, say: Callable[[float], str]) -> Cell:
    """A value above its interval, both in the words that `say` has for them; what is infinite is never reached."""

    def words(value: float) -> str:
        return ENDLESS if np.isinf(value) else say(value)

    if np.isnan(estimate.value):
        return Cell(NONE)
    return Cell(words(estimate.value), float(estimate.value), bounds(estimate, words))


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, where its values are, and how they are said.

    Attributes:
        heading: as printed.
        name: the frame's column; an estimate has NAME, NAME_low, NAME_high.
        say: words, class (a structure's name), number, signed, share, size, seconds, p or count.
        digits: decimals of number and signed, more where an interval is narrow.
        leads_to: the frame's column with the id of the place on the page that a cell leads to.
    """

    heading: str
    name: str
    say: str = "words"
    digits: int = 2
    leads_to: str = ""

    def cell(self, row: Mapping[Any, Any]) -> Cell:
        """The cell of a row."""
        value = row[self.name]
        if pd.isna(value):
            return Cell(NONE)
        if self.say in ("words", "class"):
            words = readable(str(value)) if self.say == "class" else str(value)
            return Cell(words, leads_to=str(row[self.leads_to]) if self.leads_to else "")
        low, high = (float(row.get(f"{self.name}_{end}", np.nan)) for end in ("low", "high"))
        estimate = Estimate(float(value), low, high)
        if self.say in ("number", "signed"):
            return estimate_cell(estimate, self.digits, is_signed=self.say == "signed")
        return with_interval(estimate, self._words)

    def _words(self, value: float) -> str:
        says: dict[str, Callable[[float], str]] = {
            "share": lambda v: f"{100 * v:.0f}%",
            "size": data_size,
            "seconds": duration,
            "p": lambda v: probability(v).replace("p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}", "").removeprefix("p\N{NO-BREAK SPACE}"),
            "count": lambda v: f"{v:.0f}",
        }
        return says[self.say](value)


def table(
    material: Material, caption: str, frame: pd.DataFrame, columns: Sequence[Column], *, summary: str = "", is_sortable: bool = True
) -> Table:
    """A table of a frame.

    A column of which every value is missing or empty is left out. Rows are filtered by the frame's `method`, `condition`,
    `client_id` (or `client_name`) and `class_name`.
    """
    kept = [column for column in columns if column.name in frame and not _is_empty(frame[column.name])]
    rows = [Row(tuple(column.cell(row) for column in kept), _keys(material, row)) for row in frame.to_dict("records")]
    return Table(caption, tuple(column.heading for column in kept), tuple(rows), is_sortable, summary)


def _is_empty(values: pd.Series) -> bool:
    return bool((values.isna() | (values.astype(str) == "")).all())


def _keys(material: Material, row: Mapping[Any, Any]) -> Mapping[str, str]:
    client_id, name = row.get("client_id"), str(row.get("class_name", ""))
    keys = dict(
        material.keys(str(row.get("method", "")), None if client_id is None else int(client_id), "" if name == "all" else name)
    )
    if row.get("condition"):
        keys["condition"] = str(row["condition"])
    if client_id is None and row.get("client_name"):
        keys["site"] = str(row["client_name"])
    return keys
