"""Label efficiency: the score against labelled scans, and how many a method saves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from raykd.report.blocks import Block, Drawing, Figures, Table, Text
from raykd.report.charts import score_against
from raykd.report.compared import intervals_are
from raykd.report.contenders import references
from raykd.report.material import Material
from raykd.report.tables import Column, table
from raykd.report.wording import count_interval
from raykd.results.questions import label_area, label_curve, labels_saved, labels_to_target
from raykd.results.statistics import Estimate

KEY = "labels"
TITLE = "How many labels it saves"
NEEDS = "runs with two or more label budgets; vary clients.*.labels.num_shots in a study"
SAVED = (
    Column("To do as well as", "reference"),
    Column("with labelled scans", "reference_labels", "count"),
    Column("whose DSC is", "reference_dsc", "number"),
    Column("Method", "method"),
    Column("needs", "labels_needed", "number", 1),
    Column("and saves", "labels_saved", "number", 1),
    Column("Bound", "bound"),
    Column("Condition", "level"),
)
TARGET = (
    Column("Method", "method"),
    Column("Condition", "level"),
    Column("DSC to reach", "target", "number"),
    Column("Labelled scans until then", "labels_needed", "number", 1),
    Column("Share of draws that reach it", "share_reached", "share"),
)
AREA = (
    Column("Method", "method"),
    Column("Condition", "level"),
    Column("Mean DSC over the budgets", "area", "number"),
    Column("Budgets", "num_budgets", "count"),
    Column("Test scans", "num_patients", "count"),
)


def page(material: Material) -> list[Block]:
    """A curve for each condition beside the labels, labels saved, and the area under the curves."""
    curve = label_curve(material.comparison)
    if curve.empty or curve.groupby(["method", "level"])["num_labels"].nunique().max() < 2 or not (curve["num_labels"] > 0).all():
        return []
    blocks: list[Block] = [Text(f"Labelled scans are counted over all sites. {intervals_are(curve['num_seeds'])}")]
    blocks.append(Figures(tuple(_drawings(material, curve)), legend="methods"))
    saved = _saved(material)
    blocks += [Text(words) for words in _sentences(saved)]
    if len(saved):
        blocks.append(_table_of(material, saved))
    reached = _to_target(material, curve)
    if len(reached):
        blocks.append(Text("The same score for all: the highest that every method reaches with the most labels tried."))
        blocks.append(table(material, "Labels until a score is reached, with 95% intervals", reached, TARGET))
    area = label_area(material.comparison)
    return [*blocks, table(material, "Mean over the span of budgets, in logarithms", area, AREA)] if len(area) else blocks


def _drawings(material: Material, curve: pd.DataFrame) -> Iterator[Drawing]:
    for level, rows in curve.groupby("level", sort=False):
        title = str(level) or "DSC against labelled scans"
        svg = score_against(
            rows,
            "num_labels",
            "dsc",
            material,
            title=title,
            x_title="labelled scans, all sites",
            say=lambda n: f"{n:.3g}",
            joined=True,
        )
        yield Drawing(title, svg, rows)


def _saved(material: Material) -> pd.DataFrame:
    method, others = references(material)
    frames = [labels_saved(material.comparison, method, other) for other in others]
    return pd.concat(frames) if frames else pd.DataFrame()


def _to_target(material: Material, curve: pd.DataFrame) -> pd.DataFrame:
    """Labels to the highest score that all methods of a level reach with their largest budget."""
    frames = []
    for level, rows in curve.groupby("level", sort=False):
        most = rows.loc[rows.groupby("method")["num_labels"].idxmax()]
        needed = labels_to_target(material.comparison, float(most["dsc"].min()))
        frames.append(needed[needed["level"] == level] if len(needed) else needed)
    return pd.concat(frames)


def _sentences(saved: pd.DataFrame) -> Iterator[str]:
    """One for the largest budget of each reference that the method can match."""
    for _, rows in saved.groupby(["reference", "level"], sort=False) if len(saved) else ():
        row = rows.iloc[-1]
        start = f"To do as well as {row['reference']} with {row['reference_labels']:.0f} labelled scans, {row['method']}"
        where = f" ({row['level']})" if row["level"] else ""
        if np.isinf(row["labels_needed"]):
            yield f"{start} would need more than were tried{where}."
        else:
            needed, spared = (
                count_interval(Estimate(*(row[name + end] for end in ("", "_low", "_high"))))
                for name in ("labels_needed", "labels_saved")
            )
            bound = "at most " if row["bound"] == "at most" else ""
            yield f"{start} needs {bound}{needed}: it saves {'at least ' if bound else ''}{spared}{where}."


def _table_of(material: Material, saved: pd.DataFrame) -> Table:
    return table(material, "Labels needed to do as well as another method, with 95% intervals", saved, SAVED)
