"""Comparisons that one statement makes at once, judged as one family, and the words for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from raykd.report.wording import digits_for, interval, plural, probability
from raykd.results.statistics import NO_VERDICT, OPEN, Difference, Estimate, judge, paired_difference

UNKNOWN_LUCK = "another training may differ by more, so there is no p-value and no verdict"
"""What one training cannot tell."""


@dataclass(frozen=True)
class Compared:
    """A difference, and what it amounts to in its family."""

    difference: Difference
    p_holm: float
    verdict: str
    family: str


def compared(found: Sequence[Difference], family: str) -> list[Compared]:
    """Differences of one family, without a margin."""
    table = judge(found, family, 0.0)
    columns = (table[name] for name in ("p_holm", "verdict", "family"))
    return [Compared(*row) for row in zip(found, *columns, strict=True)]


def compare(scores: pd.DataFrame, method: str, other: str) -> Difference:
    """The first method minus the other, by case."""
    return paired_difference(scores[scores["method"] == method], scores[scores["method"] == other])


def compare_pairs(scores: pd.DataFrame, pairs: Iterable[tuple[str, str]], family: str) -> dict[tuple[str, str], Compared]:
    """The first of every pair minus the second, judged as one family."""
    kept = list(dict.fromkeys(pair for pair in pairs if pair[0] != pair[1]))
    return dict(zip(kept, compared([compare(scores, *pair) for pair in kept], family), strict=True))


def intervals_are(num_seeds: Iterable[float]) -> str:
    """What 95% intervals are over, for rows of so many trainings each."""
    seeds = {int(num) for num in num_seeds}
    one = f"One training: 95% intervals are over its test scans alone; {UNKNOWN_LUCK}."
    if seeds <= {1}:
        return one
    several = "95% intervals and p-values are over trainings (seeds) and their test scans."
    return f"{several} Where one seed was run, they are over its test scans alone, without a verdict." if 1 in seeds else several


def evidence_of(found: Compared) -> str:
    """How many scans and trainings, the p-value, and whether the verdict is open."""
    difference = found.difference
    scans = plural(difference.num_patients, "scan")
    if found.verdict == NO_VERDICT:
        return f"{scans} of one training, no verdict"
    chance = "; open, as it may be chance" if found.verdict == OPEN else ""
    tested = "no test" if np.isnan(found.p_holm) else f"{probability(found.p_holm)} after Holm"
    return f"{scans} of {plural(difference.num_seeds, 'training')}, {tested}{chance}"


def gains(macro: Estimate) -> str:
    """Whether a difference is a gain, a loss, or none at all."""
    return "gains" if macro.value > 0 else "loses" if macro.value < 0 else "gains or loses"


def size(macro: Estimate) -> str:
    """How large a gain or loss is."""
    low, high = (-macro.high, -macro.low) if macro.value < 0 else (macro.low, macro.high)
    return interval(Estimate(abs(macro.value), low, high), digits_for(macro, is_signed=True))
