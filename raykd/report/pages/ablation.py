"""What each part adds: every other method minus the full one."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from raykd.report.blocks import Block, Drawing, Figures, Text
from raykd.report.charts import Delta, differences
from raykd.report.compared import intervals_are
from raykd.report.contenders import full_method
from raykd.report.material import Material
from raykd.report.tables import Column, table
from raykd.results.questions import ablation
from raykd.results.statistics import Estimate

KEY = "ablation"
TITLE = "What each part adds"
NEEDS = "two or more methods evaluated on the same scans"
COLUMNS = (
    Column("Method", "method"),
    Column("Condition", "condition"),
    Column("DSC, difference", "difference", "signed", 3),
    Column("p after Holm", "p_holm", "p"),
    Column("Rank-biserial of scans", "rank_biserial", "signed"),
    Column("Typical scan (Hodges-Lehmann)", "shift", "signed", 3),
    Column("Test scans", "num_patients", "count"),
    Column("Seeds", "num_seeds", "count"),
    Column("At a margin of 0.01", "verdict"),
)
NUM_DRAWN = 24


def page(material: Material) -> list[Block]:
    """The differences drawn and in numbers."""
    full = full_method(material)
    found = ablation(material.comparison, full) if full else pd.DataFrame()
    if found.empty:
        return []
    found = found.sort_values(["condition", "difference"], kind="stable")
    words = (
        f"Every other method minus {full}, scan by scan: what is lost, or won, without whatever sets it apart. "
        f"{intervals_are(found['num_seeds'])} p-values are of Student's t, adjusted after Holm over the family: "
        f"{found['family'].iloc[0]}."
    )
    title = f"DSC minus that of {full}"
    deltas = tuple(_deltas(material, found))[:NUM_DRAWN]
    drawing = Drawing(title, differences(deltas, title, f"better than {full}"), found)
    return [Text(words), Figures((drawing,)), table(material, f"Differences to {full}, with 95% intervals", found, COLUMNS)]


def _deltas(material: Material, found: pd.DataFrame) -> Iterator[Delta]:
    for row in found.to_dict("records"):
        method, condition = str(row["method"]), str(row["condition"] or "")
        keys = {"method": method, **({"condition": condition} if condition else {})}
        label = ", ".join(part for part in (method, condition) if part)
        estimate = Estimate(row["difference"], row["difference_low"], row["difference_high"])
        yield Delta(label, estimate, material.colour(method), keys)
