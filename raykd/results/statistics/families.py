"""Several comparisons at once: p-values adjusted over a declared family, and what each comparison amounts to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raykd.results.statistics.intervals import Estimate
from raykd.results.statistics.paired import Difference

ALPHA = 0.05
MARGIN = 0.01
"""Of Dice, or NSD: a loss below it is none that matters."""
BETTER, NOT_WORSE, WORSE, OPEN, NO_VERDICT = "better", "not worse", "worse", "open", "no verdict"
"""The last: one training, so that nothing is known of others."""


def holm(p_values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values adjusted for the family that they are: Holm, Scandinavian Journal of Statistics 1979. NaN stays, uncounted."""
    adjusted = np.asarray(p_values, np.float64).copy()
    known = np.flatnonzero(~np.isnan(adjusted))
    order = known[np.argsort(adjusted[known], kind="stable")]
    steps = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps * adjusted[order]))
    return adjusted


def judge(found: Sequence[Difference], family: str, margin: float = MARGIN, *, higher_is_better: bool = True) -> pd.DataFrame:
    """What the comparisons of one family amount to.

    Args:
        found: all that is compared at once.
        family: its name, as in "DSC, methods against local".
        margin: of non-inferiority; 0 where there is none.
        higher_is_better: whether a difference above zero is a gain.

    Returns:
        One row a comparison: `p_value`, `p_holm` (adjusted over the family), `verdict`, and `family`: its name and size.
    """
    worst = -margin if higher_is_better else margin
    p_values, p_margins = ([one.p_against(value) for one in found] for value in (0.0, worst))
    table = pd.DataFrame({"p_value": p_values, "p_holm": holm(p_values)}, dtype=float)
    table["verdict"] = [
        verdict(one.macro, p_value, p_margin, margin, higher_is_better=higher_is_better) if one.num_seeds != 1 else NO_VERDICT
        for one, p_value, p_margin in zip(found, table["p_holm"], holm(p_margins), strict=True)
    ]
    return table.assign(family=f"{family}: {len(found)} comparison{'s' if len(found) != 1 else ''}")


def verdict(
    difference: Estimate, p_value: float, p_margin: float = np.nan, margin: float = 0.0, *, higher_is_better: bool = True
) -> str:
    """What an interval and a test say together: better, not worse, worse, or open, where the two disagree or either is missing.

    Args:
        difference: with its interval.
        p_value: of no difference, adjusted for the family.
        p_margin: of a loss as large as the margin, adjusted for the family.
        margin: of non-inferiority: `not worse` where every loss as large is left out.
        higher_is_better: whether a difference above zero is a gain.
    """
    low, high = (difference.low, difference.high) if higher_is_better else (-difference.high, -difference.low)
    is_told = p_value < ALPHA
    if low > 0 and is_told:
        return BETTER
    if margin > 0 and low > -margin and p_margin < ALPHA:
        return NOT_WORSE
    return WORSE if high < 0 and is_told else OPEN
