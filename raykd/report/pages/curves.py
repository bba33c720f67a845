"""How they learned: the score after every evaluated round."""

from __future__ import annotations

import pandas as pd

from raykd.report import figures
from raykd.report.blocks import Block, Drawing, Figures, Text
from raykd.report.material import Material
from raykd.report.svg import WIDTH, Scale, spanning
from raykd.results.reader import deployed_models
from raykd.results.statistics import evaluated_cases

KEY = "curves"
TITLE = "How they learned"
NEEDS = "at least two evaluated rounds; set evaluation.every to fewer rounds than the run has"
WORDS = (
    "Mean DSC of the test scans after each evaluated round: of the model that a site uses in the end, or of the shared one before "
    "there are others."
)


def page(material: Material) -> list[Block]:
    """The mean over all sites, then every site; empty where only one round was evaluated."""
    points = _points(material)
    if points["rounds_done"].nunique() < 2:
        return []
    x = Scale(float(points["rounds_done"].min()), float(points["rounds_done"].max()), 44.0, WIDTH - 12)
    y = spanning(points["score"].tolist(), 190.0, 10.0, upper=1.0)
    everywhere = points.groupby(["method", "rounds_done"])["score"].mean().reset_index()
    title = "Mean over all sites"
    drawings = [Drawing(title, figures.curves(everywhere, x, y, material, title), everywhere)]
    for client_id in material.sites:
        name, rows = material.evidence.name(client_id), points[points["client_id"] == client_id]
        svg = figures.curves(rows, x, y, material, name)
        drawings.append(Drawing(name, svg, rows.drop(columns="client_id"), material.keys(client_id=client_id)))
    return [Text(WORDS), Figures(tuple(drawings), legend="methods")]


def _points(material: Material) -> pd.DataFrame:
    evidence = material.evidence
    shown = evaluated_cases(evidence.tables["cases"], deployed_models(evidence.comparison.runs))
    shown = shown.assign(rounds_done=shown["round"].astype("int64") + 1)
    return shown.groupby(["method", "client_id", "rounds_done"], observed=True)["dsc"].mean().rename("score").reset_index()
