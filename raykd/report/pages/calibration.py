"""Calibration: whether a model is as sure as it is right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from raykd.report.blocks import Block, Drawing, Figures, Text
from raykd.report.charts import reliability as diagram
from raykd.report.compared import intervals_are
from raykd.report.material import Material
from raykd.report.tables import Column, table
from raykd.report.wording import number, signed
from raykd.results.questions import calibration, reliability
from raykd.results.statistics import NO_VERDICT, OPEN

KEY = "calibration"
TITLE = "Whether a model is as sure as it is right"
NEEDS = "probabilities counted beside classes at the end of a run, as raykd does now; set evaluation.calibration to final"
COLUMNS = (
    Column("Method", "method"),
    Column("Condition", "condition"),
    Column("Model", "model"),
    Column("Sites deploy it", "deployed"),
    Column("How far off (ECE)", "ece", "number", 3),
    Column("Surer than right by", "overconfidence", "signed", 3),
    Column("p after Holm", "p_holm", "p"),
    Column("It is", "verdict"),
    Column("Brier score", "brier", "number", 3),
    Column("Negative log-likelihood", "nll", "number", 3),
    Column("Test scans", "num_patients", "count"),
)
LEAST_SHARE = 0.01
"""Of voxels, for a bin to be drawn."""
SAID = {
    "overconfident": "Overconfident, surer than right by the number in brackets",
    "underconfident": "Underconfident, less sure than right",
    OPEN: "Neither for certain",
    NO_VERDICT: "Surer than right in one training, without a verdict",
}
NUM_NAMED = 8
"""Of a kind, those farthest off first; all are in the table."""
WORDS = (
    "Counted at the voxels at most 5 mm from a structure of the reference; farther away, all is background and any model is sure. "
    "Where a model gives its chosen class a probability of 0.8, it should be right in 80% of the voxels. ECE is how far apart the "
    "two are, averaged over the voxels of a scan, then scans, then sites; 0 is best, as for the Brier score (0 to 2) and the "
    "negative log-likelihood. A method that learns from a teacher's probabilities learns how sure the teacher is, too."
)


def page(material: Material) -> list[Block]:
    """Who is too sure and who not sure enough, the reliability curves of the deployed models, and all numbers."""
    found = calibration(material.comparison)
    if found.empty:
        return []
    deployed = found["is_deployed"].map({True: "yes", False: ""})
    found = found.assign(deployed=deployed)
    blocks: list[Block] = [Text(words) for words in (WORDS, *_sentences(found[found["is_deployed"]]), _tested(found))]
    drawings = tuple(_drawings(material))
    if drawings:
        hint = "Bars: 95% intervals. Bins with less than 1% of the voxels are in the CSV alone."
        blocks += [Text(f"The curves are those of the models that sites deploy. {hint}"), Figures(drawings, legend="methods")]
    return [*blocks, table(material, "How sure and how right every model is, with 95% intervals", found, COLUMNS)]


def _tested(found: pd.DataFrame) -> str:
    """What intervals are over, and the family of the tests."""
    if (found["num_seeds"] == 1).all():
        return intervals_are(found["num_seeds"])
    return f"{intervals_are(found['num_seeds'])} p-values are adjusted after Holm over the family: {found['family'].iloc[0]}."


def _sentences(deployed: pd.DataFrame) -> Iterator[str]:
    """Who is too sure, who not sure enough, of whom that is open, and who is the least off."""
    rows = sorted(deployed.to_dict("records"), key=lambda row: -float(row["ece"]))
    for verdict, words in SAID.items():
        names = [f"{_named(row)} ({signed(row['overconfidence'])})" for row in rows if row["verdict"] == verdict]
        if names:
            more = [f"and {len(names) - NUM_NAMED} more"] * (len(names) > NUM_NAMED)
            yield f"{words}: {'; '.join([*names[:NUM_NAMED], *more])}."
    if len(rows) > 1:
        yield f"The least off is {_named(rows[-1])}, with an ECE of {number(rows[-1]['ece'], 3)}."


def _named(row: Mapping[Any, Any]) -> str:
    return ", ".join(str(part) for part in (row["method"], row["condition"]) if part)


def _drawings(material: Material) -> Iterator[Drawing]:
    every: pd.DataFrame = reliability(material.comparison)
    curves = every[every["is_deployed"]].drop(columns="is_deployed")
    for condition, rows in curves.groupby("condition", sort=False):
        title = str(condition) or "How often it is right, against how sure it is"
        keys = {"condition": str(condition)} if condition else {}
        yield Drawing(title, diagram(rows[rows["share"] >= LEAST_SHARE], material, title), rows, keys)
