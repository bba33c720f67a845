"""The teacher: where it helps and where it harms, by site and structure."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from raykd.report.blocks import Block, Drawing, Figures, Text
from raykd.report.charts import Delta, differences
from raykd.report.compared import intervals_are
from raykd.report.contenders import taught_and_untaught
from raykd.report.material import Material
from raykd.report.tables import Column, table
from raykd.report.wording import readable
from raykd.results.questions import teacher_effect
from raykd.results.statistics import Estimate

KEY = "teacher"
TITLE = "Where the teacher helps, and where it harms"
NEEDS = "a method that learns from a teacher, beside one that does not"
COLUMNS = (
    Column("Site", "client_name"),
    Column("Structure", "class_name", "class"),
    Column("Condition", "condition"),
    Column("DSC of the teacher", "teacher_dsc", "number"),
    Column("of the reference", "reference_dsc", "number"),
    Column("of the method", "dsc", "number"),
    Column("Gain", "gain", "signed"),
    Column("p after Holm", "p_holm", "p"),
    Column("The teacher", "effect"),
    Column("Its volumes are off by", "teacher_volume_bias", "share"),
    Column("Test scans", "num_patients", "count"),
)
NUM_DRAWN = 24


def page(material: Material) -> list[Block]:
    """The gain of the taught method over one that is not, by site and structure."""
    method, reference = taught_and_untaught(material)
    effect = teacher_effect(material.comparison, method, reference) if method and reference else pd.DataFrame()
    if effect.empty:
        return []
    counts = effect["effect"].value_counts()
    words = (
        f"{method} learns from the teacher, {reference} does not. {_counted(counts, effect)} What else sets the two methods apart "
        "is in the gain too. The teacher is judged as it was handed out, before any round."
    )
    title = f"DSC of {method} minus {reference}, the largest gain first"
    drawn = effect.sort_values("gain", ascending=False).head(NUM_DRAWN)
    drawing = Drawing(
        title, differences(tuple(_deltas(material, method, drawn)), title, "the teacher helps"), effect.drop(columns="client_id")
    )
    return [Text(words), Figures((drawing,)), table(material, "The teacher's effect by site and structure", effect, COLUMNS)]


def _counted(counts: pd.Series[int], effect: pd.DataFrame) -> str:
    """In how many places it helps and harms, and by what test."""
    if (effect["num_seeds"] == 1).all():
        return intervals_are(effect["num_seeds"])
    return (
        f"Of {len(effect)} pairs of site and structure it helps in {counts.get('helps', 0)} and harms in {counts.get('harms', 0)}; "
        f"{counts.get('open', 0)} are open. {intervals_are(effect['num_seeds'])} p-values are adjusted after Holm over the family: "
        f"{effect['family'].iloc[0]}."
    )


def _deltas(material: Material, method: str, effect: pd.DataFrame) -> Iterator[Delta]:
    for row in effect.to_dict("records"):
        condition, structure = str(row["condition"] or ""), str(row["class_name"])
        keys = {
            **material.keys(client_id=int(row["client_id"]), structure=structure),
            **({"condition": condition} if condition else {}),
        }
        label = ", ".join(part for part in (str(row["client_name"]), readable(structure), condition) if part)
        yield Delta(label, Estimate(row["gain"], row["gain_low"], row["gain_high"]), material.colour(method), keys)
