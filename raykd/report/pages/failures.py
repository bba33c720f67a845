"""Where it failed: structures missed or made up, and the worst scans with their slices."""

from __future__ import annotations

import pandas as pd

from raykd.report.blocks import Block, Text
from raykd.report.material import Material
from raykd.report.tables import Column, table
from raykd.report.wording import plural
from raykd.results.questions import failures, false_positives, worst_cases

KEY = "failures"
TITLE = "Where it failed"
NEEDS = "an evaluated test case"
NUM_WORST = 5
COUNTS = (
    Column("Method", "method"),
    Column("Condition", "condition"),
    Column("Structure", "class_name", "class"),
    Column("Missed", "num_missed", "count"),
    Column("of present", "num_present", "count"),
    Column("Made up", "num_made_up", "count"),
    Column("of absent", "num_absent", "count"),
    Column("Not recorded", "num_unknown", "count"),
)
WORST = (
    Column("Scan", "case_id", leads_to="viewer"),
    Column("Site", "client_name"),
    Column("Structure", "class_name", "class"),
    Column("Method", "method"),
    Column("Condition", "condition"),
    Column("Seed", "seed", "count"),
    Column("DSC", "dsc", "number"),
    Column("True volume, mm³", "volume_ref_mm3", "count"),
    Column("Predicted, mm³", "volume_pred_mm3", "count"),
    Column("What", "what"),
)
FALSE_POSITIVES = (
    Column("Method", "method"),
    Column("Condition", "condition"),
    Column("Site", "client_name"),
    Column("Structure", "class_name", "class"),
    Column("Cases with an empty reference", "num_cases", "count"),
    Column("of which known to be absent", "num_absent", "count"),
    Column("Cases with a predicted voxel", "share", "share"),
    Column("Mean false-positive volume, mL", "volume_ml", "number"),
)


def page(material: Material) -> list[Block]:
    """What was missed and made up, and the worst scans of every method."""
    if material.evidence.deployed.empty:
        return []
    counts, worst = failures(material.comparison), worst_cases(material.comparison, NUM_WORST)
    missed, made_up = int(counts["num_missed"].sum()), int(counts["num_made_up"].sum())
    places = {(viewer.keys["site"], viewer.case_id): viewer.key for viewer in material.viewers}
    worst = worst.assign(
        viewer=[
            places.get((str(site), str(case_id)), "") for site, case_id in worst[["client_name", "case_id"]].itertuples(index=False)
        ]
    )
    has_slices = bool(worst["viewer"].astype(bool).any())
    words = (
        f"Over all methods, scans and seeds, {plural(missed, 'structure')} {'was' if missed == 1 else 'were'} missed altogether "
        f"and {made_up} made up. Below are the {NUM_WORST} worst predictions of every method"
        f"{'; a scan that leads somewhere leads to its slices' if has_slices else ''}."
    )
    unknown: pd.DataFrame = counts if counts["num_unknown"].any() else counts.drop(columns="num_unknown")
    return [
        Text(words),
        table(material, "The worst predictions", worst, WORST),
        table(material, "Structures missed and made up", unknown, COUNTS, summary="Structures missed and made up"),
        *_false_positives(material),
    ]


def _false_positives(material: Material) -> list[Block]:
    """What was predicted where the reference has nothing; no block where every reference holds its class."""
    found = false_positives(material.comparison)
    if found.empty:
        return []
    words = (
        "An empty reference has no overlap and no surface, so such cases are in no mean of DSC, NSD or distance. "
        "What was predicted in them is a false positive. "
        "A structure that nobody outlined in a case is not counted here, because nothing is known of it."
    )
    title = "False positives in cases with an empty reference"
    return [Text(words), table(material, title, found, FALSE_POSITIVES, summary=title)]
