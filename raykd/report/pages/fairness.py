"""Fairness: the worst site, and how far sites, scans and seeds spread."""

from __future__ import annotations

from raykd.report.blocks import Block, Text
from raykd.report.compared import intervals_are
from raykd.report.material import Material
from raykd.report.tables import Column, table
from raykd.report.wording import interval, number
from raykd.results.questions import fairness
from raykd.results.statistics import Estimate

KEY = "fairness"
TITLE = "How evenly sites are served"
NEEDS = "test scans evaluated at two or more sites"
SPREADS = (
    Column("Method", "method"),
    Column("Condition", "condition"),
    Column("Worst site", "worst_site"),
    Column("DSC there", "worst", "number"),
    Column("Between best and worst site", "gap", "number"),
    Column("SD between sites", "sd_clients", "number", 3),
    Column("SD between scans of a site and seed", "sd_patients", "number", 3),
    Column("SD between seeds", "sd_seeds", "number", 3),
    Column("Seeds", "num_seeds", "count"),
)


def page(material: Material) -> list[Block]:
    """Who serves the worst site best, who is the most even, and all spreads."""
    if material.scores["dsc"]["client_id"].nunique() < 2:
        return []
    spread = fairness(material.comparison)
    worst, even = spread.iloc[int(spread["worst"].argmax())], spread.iloc[int(spread["gap"].argmin())]
    words = (
        f"The worst site fares best under {_named(worst)}: {worst['worst_site']} with "
        f"{interval(Estimate(worst['worst'], worst['worst_low'], worst['worst_high']))}. Sites are closest together under "
        f"{_named(even)}: {number(even['gap'])} of Dice between the best and the worst. The worst site is picked by its mean, so "
        f"its interval is that of the site, not of the picking; so is the gap's. {intervals_are(spread['num_seeds'])}"
    )
    return [Text(words), table(material, "The worst site, and what differs between sites, scans and seeds", spread, SPREADS)]


def _named(row: object) -> str:
    return ", ".join(str(part) for part in (row["method"], row["condition"]) if part)  # type: ignore[index]
