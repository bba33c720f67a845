"""When it pays: the map of wins and harms over the conditions of a study."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from raykd.report.blocks import Block, Cell, Drawing, Figures, Row, Table, Text
from raykd.report.charts import Delta, differences
from raykd.report.compared import intervals_are
from raykd.report.contenders import references
from raykd.report.material import Material
from raykd.report.tables import Column, table
from raykd.report.wording import plural, signed
from raykd.results.questions import when_does_it_pay
from raykd.results.statistics import NO_VERDICT, Estimate

KEY = "pays"
TITLE = "When it pays"
NEEDS = "runs under two or more conditions; vary a key in a study"
COLUMNS = (
    Column("Condition", "condition"),
    Column("Method", "method"),
    Column("against", "baseline"),
    Column("DSC, difference", "difference", "signed", 3),
    Column("p after Holm", "p_holm", "p"),
    Column("Test scans", "num_patients", "count"),
    Column("Seeds", "num_seeds", "count"),
    Column("Outcome", "outcome"),
)
MARKS = {"wins": "▲ wins", "harms": "▼ harms", "open": "? open", NO_VERDICT: f"– {NO_VERDICT}"}
NUM_DRAWN = 24


def page(material: Material) -> list[Block]:
    """The best method against each reference, condition by condition."""
    if len(material.conditions) < 2:
        return []
    method, others = references(material)
    found = when_does_it_pay(material.comparison, [(method, other) for other in others])
    if found.empty:
        return []
    found = found.assign(outcome=found["outcome"].map(MARKS))
    blocks: list[Block] = [Text(" ".join(_sentences(found)))]
    varied = [name for name in material.comparison.varied if name in found and found[name].nunique() > 1]
    if len(varied) == 2:
        blocks += [_map(rows, varied, str(baseline)) for baseline, rows in found.groupby("baseline", sort=False)]
    for baseline, rows in found.groupby("baseline", sort=False):
        title = f"DSC of {method} minus {baseline}, by condition"
        svg = differences(tuple(_deltas(material, rows))[:NUM_DRAWN], title, f"{method} is better")
        blocks.append(Figures((Drawing(title, svg, rows),)))
    return [*blocks, table(material, "Wins and harms, with 95% intervals", found, COLUMNS)]


def _sentences(found: pd.DataFrame) -> Iterator[str]:
    for (method, baseline), rows in found.groupby(["method", "baseline"], sort=False):
        counts = rows["outcome"].value_counts()
        won, lost = (int(counts.get(MARKS[name], 0)) for name in ("wins", "harms"))
        if not (rows["num_seeds"] == 1).all():
            yield f"Against {baseline}, {method} wins under {won} of {plural(len(rows), 'condition')} and harms under {lost}."
    yield intervals_are(found["num_seeds"])
    if not (found["num_seeds"] == 1).all():
        yield (
            "It wins or harms where the interval leaves out zero and the p-value, adjusted after Holm over the whole map "
            f"({found['family'].iloc[0]}), is below 5%. Open is no sign that the two are alike."
        )


def _map(rows: pd.DataFrame, varied: list[str], baseline: str) -> Table:
    """Two settings crossed."""
    down, right = varied
    columns = list(dict.fromkeys(rows[right]))
    body = []
    for value, own in rows.groupby(down, sort=False):
        cells = [Cell(f"{down} {value}")]
        for column in columns:
            found = own[own[right] == column]
            cells.append(Cell(" / ".join(found["outcome"]), None, " / ".join(signed(one) for one in found["difference"])))
        body.append(Row(tuple(cells)))
    headings = (f"{down}, {right}", *(f"{right} {column}" for column in columns))
    return Table(f"The map against {baseline}", headings, tuple(body), is_sortable=False)


def _deltas(material: Material, rows: pd.DataFrame) -> Iterator[Delta]:
    for row in rows.to_dict("records"):
        estimate = Estimate(row["difference"], row["difference_low"], row["difference_high"])
        keys = {"method": str(row["method"]), "condition": str(row["condition"])}
        yield Delta(str(row["condition"]), estimate, material.colour(str(row["method"])), keys)
