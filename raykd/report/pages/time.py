"""How long it took: on the machine of the simulation, and at the sites."""

from __future__ import annotations

import numpy as np
import pandas as pd

from raykd.report import figures, wording
from raykd.report.blocks import Block, Drawing, Figures, Text
from raykd.report.compared import intervals_are
from raykd.report.material import Material
from raykd.report.tables import Column, table
from raykd.results.questions import stages, to_target

TARGET = (
    Column("Method", "method"),
    Column("Condition", "condition"),
    Column("DSC to reach", "target", "number"),
    Column("Rounds until then", "rounds", "count"),
    Column("At the sites", "simulated_s", "seconds"),
    Column("In the simulation", "measured_s", "seconds"),
    Column("Share of draws that reach it", "share_reached", "share"),
)
PARTS = (
    Column("Site", "client_name"),
    Column("Method", "method"),
    Column("Condition", "condition"),
    Column("Hand-out before the rounds", "hand_out_s", "seconds"),
    Column("Download", "download_s", "seconds"),
    Column("Work", "work_s", "seconds"),
    Column("Upload", "upload_s", "seconds"),
    Column("Waiting", "wait_s", "seconds"),
    Column("Updates", "num_updates", "count"),
    Column("of them late", "num_late", "count"),
    Column("Models made meanwhile", "mean_staleness", "number", 1),
)
STAGES = {"hand_out_s": "hand-out", "download_s": "download", "work_s": "work", "upload_s": "upload", "wait_s": "waiting"}
KEY = "time"
TITLE = "How long it takes"
NEEDS = "a recorded time; the runs ended before their first round"
TITLES = {
    "wall_s": "Simulating the rounds",
    "train_s": "Of which training, summed over sites",
    "simulated_s": "On the sites' own lines and machines",
    "teacher_s": "Training on the repository, before the rounds",
}


def page(material: Material) -> list[Block]:
    """A set of bars for each kind of second."""
    drawings = []
    for attribute, title in TITLES.items():
        known = {label: seconds for label, cost in material.costs.items() if not np.isnan(seconds := getattr(cost, attribute))}
        rows = [
            figures.Bar(label, [(material.method(label), s, wording.duration(s))], wording.duration(s), material.keys(label))
            for label, s in known.items()
        ]
        if rows:
            data = pd.DataFrame({"method": list(known), attribute: list(known.values())})
            drawings.append(Drawing(title, figures.bars(rows, material.methods, title), data))
    words = "Measured on the machine that ran the simulation, and what it would have been at the sites. Mean over seeds."
    return [Text(words), Figures(tuple(drawings)), *_parts(material), *_to_target(material)] if drawings else []


def _parts(material: Material) -> list[Block]:
    """Where the time at the sites goes, where the work of all updates was timed."""
    parts = stages(material.comparison).dropna(subset=["work_s"])
    parts = parts[parts["wait_s"].notna()]
    if parts.empty:
        return []
    names, title = tuple(STAGES.values()), "Where the time of a site goes, mean over sites"
    means = parts.groupby(["method", "condition"], sort=False)[list(STAGES)].mean().rename(columns=STAGES)
    rows = []
    for row in means.reset_index().to_dict("records"):
        label = ", ".join(part for part in (row["method"], row["condition"]) if part)
        pieces = [(name, float(row[name]), wording.duration(row[name])) for name in names]
        total = wording.duration(sum(seconds for _, seconds, _ in pieces))
        rows.append(figures.Bar(label, pieces, total, material.keys(label)))
    svg = figures.bars(rows, names, title, palette="k")
    words = "Waiting is for other sites and the server. Who is fast waits longest; a slow line or machine shows in the table."
    table_ = table(material, "Where the time of each site goes", parts, PARTS, summary="The numbers: every site")
    return [Text(words), Figures((Drawing(title, svg, means.reset_index()),), names), table_]


def _to_target(material: Material) -> list[Block]:
    """Seconds until a score is reached, where more than one round was evaluated."""
    reached = to_target(material.comparison)
    if reached.empty:
        return []
    words = (
        "Time until a score is reached: the highest that all methods of a condition reach in the end. "
        "The time at the sites holds what is sent before the first round, which the bars above leave out. "
        f"{intervals_are(reached['num_seeds'])}"
    )
    return [Text(words), table(material, "Time until a score is reached, with 95% intervals", reached, TARGET)]
