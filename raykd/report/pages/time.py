"""How long it took: on the machine of the simulation, and at the sites."""

from __future__ import annotations

import numpy as np
import pandas as pd

from raykd.report import figures, wording
from raykd.report.blocks import Block, Drawing, Figures, Text
from raykd.report.material import Material
from raykd.report.tables import Column, table
from raykd.results.questions import cost_to_target

TARGET = (
    Column("Method", "method"),
    Column("Condition", "condition"),
    Column("DSC to reach", "target", "number"),
    Column("Rounds until then", "rounds", "count"),
    Column("Time until then", "simulated_s", "seconds"),
    Column("Share of resamples that reach it", "share_reached", "share"),
)
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
    return [Text(words), Figures(tuple(drawings)), *_to_target(material)] if drawings else []


def _to_target(material: Material) -> list[Block]:
    """Seconds at the sites until a score is reached, where more than one round was evaluated."""
    reached = cost_to_target(material.comparison, "simulated_s")
    if reached.empty:
        return []
    words = (
        "Time at the sites' own lines and machines until a score is reached: the highest that all methods of a condition reach in "
        "the end."
    )
    return [Text(words), table(material, "Time until a score is reached, with 95% intervals", reached, TARGET)]
