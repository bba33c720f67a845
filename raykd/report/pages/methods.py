"""All methods side by side: quality with intervals, and what it costs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from raykd.report.blocks import Block, Cell, Row, Table, Text
from raykd.report.compared import compare, intervals_are
from raykd.report.material import Material
from raykd.report.tables import Column, digits_of, estimate_cell, table
from raykd.report.wording import NONE, data_size, duration, number
from raykd.report.work import TERA, unequal_work
from raykd.results.statistics import Score, rank_methods, resampling_rng

KEY = "methods"
TITLE = "The methods compared"
NEEDS = "a run"
COMPARED = (
    "Method",
    "DSC, mean over sites",
    "DSC, worst site",
    "Worst site",
    "DSC, difference to the first",
    "Steps of a site",
    "TFLOP of a site",
    "NSD",
    "HD95, mm",
    "Received by a site",
    "Sent by a site",
    "Time of the rounds",
    "Simulated time",
    "Seeds",
)
RANKED = (
    Column("Method", "method"),
    Column("Rank", "rank", "count"),
    Column("Share of draws in which it is first", "share_first", "share"),
    Column("Test scans", "num_patients", "count"),
    Column("Seeds", "num_seeds", "count"),
)


def page(material: Material) -> list[Block]:
    """Quality and cost, and how firm the order is."""
    are = intervals_are(score.num_seeds for score in material.rankings["dsc"]) if material.rankings["dsc"] else ""
    words = (
        f"The smaller lines are 95% intervals; differences to the first are described, not tested. {are} A heading sorts the table."
    )
    best = material.rankings["dsc"][0].method if material.rankings["dsc"] else ""
    blocks: list[Block] = [Text(" ".join([words, *unequal_work(material, best, _next(material, best))]))]
    if material.evidence.deployed["nsd"].notna().any():
        blocks.append(
            Text(
                f"NSD counts the area of both surfaces that lies within {material.evidence.nsd_tolerance} of the other. NSD and "
                "HD95 weight surfaces by area, as the package surface-distance does."
            )
        )
    blocks.append(_comparison(material))
    ranks = _ranks(material)
    if len(ranks) > 1:
        several = ranks["num_seeds"].iloc[0] > 1
        blocks += [
            Text(
                "How firm that order is: all methods are ranked anew in every draw of the means that "
                + ("trainings and their test scans make likely." if several else "the test scans of one training make likely.")
            ),
            table(material, "Ranks by DSC, with the range that holds 95% of draws", ranks, RANKED),
        ]
    return blocks


def _next(material: Material, best: str) -> list[str]:
    """The next method under the condition of the best, where there is one."""
    labels = (score.method for score in material.rankings["dsc"][1:])
    return [label for label in labels if material.condition(label) == material.condition(best)][:1]


def _comparison(material: Material) -> Table:
    """One row a method, best DSC first, methods without scores last."""
    evidence, labels = material.evidence, material.labels
    by_metric = {metric: {score.method: score for score in ranking} for metric, ranking in material.rankings.items()}
    seeds = evidence.tables["cases"].groupby("method")["seed"].nunique()
    rows = []
    for label in labels:
        scored, cost = by_metric["dsc"].get(label), material.costs[label]
        cells = (
            Cell(label),
            estimate_cell(scored.macro) if scored else Cell(NONE),
            estimate_cell(scored.worst) if scored else Cell(NONE),
            Cell(evidence.name(scored.worst_client) if scored else NONE),
            _behind(material.scores["dsc"], labels[0], label),
            Cell(number(cost.steps, 0), None if np.isnan(cost.steps) else cost.steps),
            Cell(NONE) if np.isnan(cost.flops) else Cell(f"{cost.flops / TERA:.3g}", cost.flops / TERA),
            *(_macro(by_metric[metric].get(label), metric) for metric in ("nsd", "hd95_mm")),
            Cell(data_size(cost.bytes_down), cost.bytes_down),
            Cell(data_size(cost.bytes_up), cost.bytes_up),
            *(Cell(duration(s), None if np.isnan(s) else s) for s in (cost.wall_s, cost.simulated_s)),
            Cell(str(seeds.get(label, 0)), float(seeds.get(label, 0))),
        )
        rows.append(Row(cells, material.keys(label)))
    return Table("Methods, their quality and their cost", COMPARED, tuple(rows))


def _macro(score: Score | None, metric: str) -> Cell:
    return estimate_cell(score.macro, digits_of(metric)) if score else Cell(NONE)


def _behind(scores: pd.DataFrame, best: str, method: str) -> Cell:
    return Cell("first", 0.0) if method == best else estimate_cell(compare(scores, method, best).macro, is_signed=True)


def _ranks(material: Material) -> pd.DataFrame:
    return rank_methods(material.scores["dsc"], resampling_rng()) if len(material.scores["dsc"]) else pd.DataFrame()
