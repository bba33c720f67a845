"""Whether it is worth its money, at the prices of a file; every assumption is printed beside the figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from raykd.report.blocks import Block, Table, Text
from raykd.report.compared import intervals_are
from raykd.report.contenders import references
from raykd.report.material import Material
from raykd.report.tables import Column, table
from raykd.report.wording import NONE, bounds, digits_for, number
from raykd.results.questions import assumptions, running_costs, worth
from raykd.results.statistics import NO_VERDICT, OPEN, Estimate

KEY = "economics"
TITLE = "Is it worth its money?"
NEEDS = "a file of prices; give one with --economics, say what `raykd new --from prices` writes"
SAID = {OPEN: "may or may not pay", NO_VERDICT: "has one training and so no verdict"}


def page(material: Material) -> list[Block]:
    """Sentences, what is saved against each reference, what a federation costs, and what is taken for granted."""
    prices = material.options.prices
    if prices is None:
        return []
    method, others = references(material)
    frames = [worth(material.comparison, prices, method, other) for other in others]
    saved = pd.concat(frames) if frames else pd.DataFrame()
    blocks: list[Block] = [Text(words) for words in _sentences(saved, prices.currency)]
    if len(saved):
        caption = "Saved less spent, method less the other, over all sites"
        blocks.append(table(material, caption, saved, _saved_columns(prices.currency)))
    costs = running_costs(material.comparison, prices)
    blocks.append(table(material, "What a federation costs, without its labels", costs, _cost_columns(prices.currency)))
    words = (
        "Brackets hold 95% intervals: scores are drawn as trainings and test scans make likely, and prices from their ranges, and "
        "every figure is computed in each of 10,000 draws. The figures themselves are at the likeliest prices. "
        f"{_tested(saved)}"
    )
    return [*blocks, Text(words), _assumptions(material)]


def _tested(saved: pd.DataFrame) -> str:
    """Where it is said that it pays."""
    if saved.empty or (saved["num_seeds"] == 1).all():
        return intervals_are([1])
    return f"{intervals_are(saved['num_seeds'])} It pays where p, adjusted after Holm over the rows of a reference, is below 5%."


def _saved_columns(currency: str) -> tuple[Column, ...]:
    money = [("Annotation", "annotation"), ("Repository", "repository"), ("Joining", "joining"), ("Net", "net")]
    return (
        Column("Method", "method"),
        Column("to do as well as", "reference"),
        Column("with labelled scans", "reference_labels", "count"),
        Column("saves labels", "labels_saved", "number", 1),
        Column("and hours", "annotation_hours", "number", 1),
        *(Column(f"{heading} ({currency})", name, "number", 0) for heading, name in money),
        Column("Draws that pay", "share_pays", "share"),
        Column("p after Holm", "p_holm", "p"),
        Column("Verdict", "verdict"),
        Column("Sites to break even", "break_even_sites", "count"),
        Column("Labels to break even", "break_even_labels", "number", 1),
        Column("Bound", "bound"),
        Column("Condition", "level"),
    )


def _cost_columns(currency: str) -> tuple[Column, ...]:
    money = {"transfer": 2, "compute": 2, "energy": 2, "repository": 0, "joining": 0, "total": 0}
    return (
        Column("Method", "method"),
        Column("Condition", "condition"),
        Column("GB", "gigabytes", "number", 3),
        Column("Machine hours", "hours", "number", 2),
        Column("kWh", "energy_kwh", "number", 2),
        *(Column(f"{name.capitalize()} ({currency})", name, "number", digits) for name, digits in money.items()),
    )


def _assumptions(material: Material) -> Table:
    assert material.options.prices is not None
    told = assumptions(material.options.prices)
    told["price"] = [_range(row) for row in told.to_dict("records")]
    headings = {"Assumption": "assumption", "Price": "price", "Unit": "unit", "What it is": "meaning"}
    columns = [Column(heading, name) for heading, name in headings.items()]
    return table(material, "What is taken for granted", told, columns, is_sortable=False)


def _range(row: dict[Any, Any]) -> str:
    if row["distribution"] == "sure":
        return f"{row['likely']:g}"
    words = f"{row['low']:g} to {row['high']:g}"
    return words if row["distribution"] == "uniform" else f"{words}, likeliest {row['likely']:g}"


def _sentences(saved: pd.DataFrame, currency: str) -> Iterator[str]:
    """One for the largest budget of each reference and level."""
    for _, rows in saved.groupby(["reference", "level"], sort=False) if len(saved) else ():
        row = rows.iloc[-1]
        where = f" ({row['level']})" if row["level"] else ""
        against = f"Against {row['reference']} with {number(row['reference_labels'], 0)} labelled scans{where}"
        labels = _said(row, "break_even_labels", 0)
        if row["bound"] == "unknown":
            yield f"{against}, {row['method']} pays once it saves {labels} labels over all sites; how many it saves was not tried."
        elif row["bound"] == "never":
            yield f"{against}, {row['method']} does not do as well with the most labels that were tried, so it saves none."
        else:
            least = "at least " if row["bound"] == "at most" else ""
            hours = f"{least}{_said(row, 'annotation_hours', 1)} hours of annotation"
            yield (
                f"{against}, {row['method']} {SAID.get(row['verdict'], row['verdict'])}: it saves {hours}, "
                f"which less all costs comes to {currency} {_said(row, 'net', 0)}. It breaks even at {labels} labels saved."
            )


def _said(row: pd.Series, name: str, digits: int) -> str:
    estimate = Estimate(*(float(row[f"{name}{end}"]) for end in ("", "_low", "_high")))
    shown = digits_for(estimate, digits, is_signed=True)

    def words(value: float) -> str:
        return number(value, shown) if np.isfinite(value) else NONE

    ends = bounds(estimate, words)
    return words(estimate.value) + (f" ({ends})" if ends else "")
