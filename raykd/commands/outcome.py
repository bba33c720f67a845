"""What a run or a study came to, in a few lines, for the terminal where it has just ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from raykd.commands.tables import aligned
from raykd.report.evidence import collect
from raykd.report.material import Material
from raykd.report.wording import data_size, duration, interval, number
from raykd.scenario.errors import RaykdError

MOST_METHODS = 6
"""Rows of the table; the best come first."""


def outcome(folder: Path, place: str) -> str:
    """The methods that were run below a directory, best first: DSC, worst site, traffic and time, and what to do next.

    The DSC is that of the deployed models on test cases, the mean of sites, with its interval.

    Args:
        folder: of a run or of a study, on this machine.
        place: what the user calls it.

    Returns:
        At most eight lines; "" where no run can be read.
    """
    try:
        material = Material(collect([folder]))
    except RaykdError:
        return ""
    ranking = material.rankings["dsc"]
    if not ranking:
        is_judged = len(material.evidence.deployed) > 0
        reason = "no reference of its test cases holds a class" if is_judged else "no test case was evaluated"
        return f"{reason}; next: raykd report {place}"
    rows = list(_rows(material))
    more = len(ranking) - (len(rows) - 1)
    note = f"and {more} more; " if more else ""
    return f"{aligned(rows, left=(0, 2))}\n{note}next: raykd report {place}"


def _rows(material: Material) -> Iterator[Sequence[str]]:
    yield "method", "DSC, mean of sites", "worst site", "moved", "rounds took"
    for score in material.rankings["dsc"][:MOST_METHODS]:
        cost = material.costs[score.method]
        worst = f"{material.evidence.name(score.worst_client)} {number(score.worst.value, 3)}"
        yield score.method, interval(score.macro, 3), worst, data_size(cost.total), duration(cost.wall_s)
