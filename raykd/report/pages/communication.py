"""Communication: the score against bytes, and the bytes until a score is reached."""

from __future__ import annotations

import pandas as pd

from raykd.report.blocks import Block, Drawing, Figures, Text
from raykd.report.charts import score_against
from raykd.report.compared import intervals_are
from raykd.report.material import Material
from raykd.report.tables import Column, table
from raykd.report.wording import data_size
from raykd.results.questions import communication, cost_to_target

KEY = "communication"
TITLE = "What a score costs in bytes"
NEEDS = "an evaluated method that sends something"
COST = (
    Column("Method", "method"),
    Column("Condition", "condition"),
    Column("DSC", "dsc", "number"),
    Column("All sites, both ways", "num_bytes", "size"),
    Column("Received by a site", "bytes_down_per_site", "size"),
    Column("Sent by a site", "bytes_up_per_site", "size"),
    Column("None with such a mean sends less", "efficient"),
)
TARGET = (
    Column("Method", "method"),
    Column("Condition", "condition"),
    Column("DSC to reach", "target", "number"),
    Column("Rounds until then", "rounds", "count"),
    Column("Bytes until then", "num_bytes", "size"),
    Column("Share of draws that reach it", "share_reached", "share"),
)


def page(material: Material) -> list[Block]:
    """Quality beside bytes, and bytes to the highest score that all methods of a condition reach."""
    spent = communication(material.comparison)
    if spent.empty or not (spent["num_bytes"] > 0).any():
        return []
    spent = spent.assign(efficient=spent["is_efficient"].map({True: "yes", False: ""}))
    sending = spent[spent["num_bytes"] > 0]
    silent = sorted(set(spent["method"]) - set(sending["method"]))
    title = "DSC against bytes of all sites, both ways"
    svg = score_against(
        sending, "num_bytes", "dsc", material, title=title, x_title="bytes, logarithmic", say=data_size, joined=False
    )
    words = intervals_are(spent["num_seeds"]) + (f" Without a byte, and so not drawn: {', '.join(silent)}." if silent else "")
    blocks: list[Block] = [Text(words), Figures((Drawing(title, svg, sending.drop(columns="efficient")),), legend="methods")]
    blocks.append(table(material, "Score and bytes of a run", spent, COST))
    return [*blocks, *_to_target(material)]


def _to_target(material: Material) -> list[Block]:
    reached: pd.DataFrame = cost_to_target(material.comparison)
    if reached.empty:
        return [Text("Bytes until a score is reached need at least two evaluated rounds.")]
    words = (
        "Bytes until a score is reached, at the rounds that were evaluated: the highest that all methods of a condition reach in "
        "the end."
    )
    return [Text(words), table(material, "Bytes until a score is reached, with 95% intervals", reached, TARGET)]
