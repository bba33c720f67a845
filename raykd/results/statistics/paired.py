"""Paired comparisons of two methods on the same patients: size, interval, test, effect, and what they amount to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm, rankdata, wilcoxon

from raykd.results.statistics.intervals import NOTHING, Estimate, Sample
from raykd.results.statistics.scores import HIGHER_IS_BETTER, Metric, case_scores, patient_scores

MARGIN = 0.01
"""Of Dice, or NSD: a loss below it is none that matters."""
MOST_EXACT = 200
"""Patients up to whom the signed ranks' distribution is counted out; beyond, its normal limit is used."""
FAMILY = ("metric", "class_name", "method")


@dataclass(frozen=True)
class Difference:
    """Method a minus method b over the cases that both were judged on.

    Attributes:
        macro: mean over clients of the mean difference of their patients, with its BCa interval.
        p_value: two-sided Wilcoxon signed-rank test of the patients' differences, zeros after Pratt; NaN without patients.
        num_patients: patients in common.
        rank_biserial: matched-pairs rank-biserial correlation, -1 to 1: the share of rank sums for a, less that for b.
        shift: the Hodges-Lehmann estimate of the patients' difference, with its interval from the signed ranks.
    """

    macro: Estimate
    p_value: float
    num_patients: int
    rank_biserial: float = np.nan
    shift: Estimate = NOTHING


def paired_difference(scores_a: pd.DataFrame, scores_b: pd.DataFrame, rng: np.random.Generator) -> Difference:
    """Compare two methods on the cases and seeds that both have.

    Args:
        scores_a, scores_b: from `case_scores`, of one method each.
        rng: draws the bootstrap's resamples.
    """
    pairs = scores_a.merge(scores_b, on=["seed", "client_id", "patient_id", "case_id"], suffixes=("_a", "_b"))
    if pairs.empty:
        return Difference(NOTHING, np.nan, 0)
    wide = patient_scores(pairs.assign(score=pairs["score_a"] - pairs["score_b"], method="difference"))
    differences = wide.to_numpy(np.float64).ravel()
    macro = Sample.of(wide).macro(rng)[0]
    return Difference(macro, signed_rank_p(differences), len(differences), rank_biserial(differences), hodges_lehmann(differences))


def signed_rank_p(differences: NDArray[np.float64]) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test, zeros ranked and then left out: Pratt, JASA 1959."""
    return float(wilcoxon(differences, zero_method="pratt").pvalue) if np.any(differences) else 1.0


def rank_biserial(differences: NDArray[np.float64]) -> float:
    """The matched-pairs rank-biserial correlation of Kerby, The simple difference formula, Comprehensive Psychology 2014.

    Ranks are those of the test: zeros have theirs, which count for neither side.
    """
    ranks = rankdata(np.abs(differences))
    return float((ranks * np.sign(differences)).sum() / ranks.sum())


def hodges_lehmann(differences: NDArray[np.float64]) -> Estimate:
    """The median of all pairwise means, with the interval that inverts the signed-rank test: Hollander and Wolfe, Nonparametric
    Statistical Methods, 1999, sections 3.2 and 3.3. Its coverage is at least 95% where there are no ties; NaN below 6 patients,
    who cannot give that."""
    num = len(differences)
    i, j = np.triu_indices(num)
    walsh = np.sort((differences[i] + differences[j]) / 2)
    num_outside = _largest_rank_sum_in_tail(num)
    if num_outside < 0:
        return Estimate(float(np.median(walsh)), np.nan, np.nan)
    return Estimate(float(np.median(walsh)), float(walsh[num_outside]), float(walsh[-1 - num_outside]))


def _largest_rank_sum_in_tail(num: int, tail: float = 0.025) -> int:
    """The largest t with P(T <= t) <= tail for the sum T of the positive signed ranks of `num` values; -1 where there is none."""
    if num > MOST_EXACT:
        mean, variance = num * (num + 1) / 4, num * (num + 1) * (2 * num + 1) / 24
        return int(np.floor(mean + norm.ppf(tail) * np.sqrt(variance) - 0.5))
    probabilities = np.ones(1)
    for rank in range(1, num + 1):
        probabilities = (np.pad(probabilities, (0, rank)) + np.pad(probabilities, (rank, 0))) / 2
    return int(np.searchsorted(np.cumsum(probabilities), tail, side="right")) - 1


def holm(p_values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values adjusted for the family that they are: Holm, Scandinavian Journal of Statistics 1979. NaN stays, uncounted."""
    adjusted = np.asarray(p_values, np.float64).copy()
    known = np.flatnonzero(~np.isnan(adjusted))
    order = known[np.argsort(adjusted[known], kind="stable")]
    steps = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps * adjusted[order]))
    return adjusted


def verdict(difference: Estimate, margin: float = MARGIN, *, higher_is_better: bool = True) -> str:
    """What an interval says beside a margin: better, not worse, worse, or open.

    `not worse` is non-inferiority: the interval leaves out every loss as large as the margin. `worse` leaves out zero.
    """
    low, high = (difference.low, difference.high) if higher_is_better else (-difference.high, -difference.low)
    if np.isnan(low):
        return "open"
    if low > 0:
        return "better"
    if high < 0 and low <= -margin:
        return "worse"
    return "not worse" if low > -margin else "open"


def compare_with(
    deployed: pd.DataFrame,
    baseline: str,
    rng: np.random.Generator,
    *,
    metrics: Sequence[Metric] = ("dsc",),
    by_class: bool = False,
    margin: float = MARGIN,
) -> pd.DataFrame:
    """Every other method minus a baseline: one row a metric, class and method, the family over which p-values are adjusted.

    Args:
        deployed: from `deployed_cases`.
        baseline: a value of its `method`.
        rng: draws the bootstrap's resamples.
        metrics: those of the family.
        by_class: one comparison a class; otherwise of the mean over classes, named `all`.
        margin: of the verdict on dsc and nsd; distances, which have no margin of their own, are judged at 0.
    """
    classes = sorted(deployed["class_name"].astype(str).unique()) if by_class else ["all"]
    rows = []
    for metric in metrics:
        for name in classes:
            cases = deployed if name == "all" else deployed[deployed["class_name"].astype(str) == name]
            scores = case_scores(cases, metric)
            names = scores["method"].astype(str)
            for method in sorted(set(names) - {baseline}):
                difference = paired_difference(scores[names == method], scores[names == baseline], rng)
                said = _said(difference, metric, margin)
                rows.append({"metric": metric, "class_name": name, "method": method, "baseline": baseline, **said})
    table = pd.DataFrame(rows)
    if len(table):
        table.insert(list(table.columns).index("p_value") + 1, "p_holm", holm(table["p_value"].to_numpy()))
    return table


def _said(difference: Difference, metric: Metric, margin: float) -> dict[str, float | int | str]:
    better = HIGHER_IS_BETTER[metric]
    return {
        **columns_of("difference", difference.macro),
        "p_value": difference.p_value,
        "rank_biserial": difference.rank_biserial,
        **columns_of("shift", difference.shift),
        "num_patients": difference.num_patients,
        "verdict": verdict(difference.macro, margin if better else 0.0, higher_is_better=better),
    }


def columns_of(name: str, estimate: Estimate) -> dict[str, float]:
    """An estimate as three columns: NAME, NAME_low, NAME_high."""
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
