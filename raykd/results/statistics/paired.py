"""Paired comparisons of two methods on the same patients of the same trainings: size, interval, test, and effect."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from raykd.results.statistics.clusters import NO_SPREAD, Clusters
from raykd.results.statistics.intervals import NOTHING, Estimate
from raykd.results.statistics.sample import Sample
from raykd.results.statistics.scores import patient_scores


@dataclass(frozen=True)
class Difference:
    """Method a minus method b over the cases that both were judged on.

    Attributes:
        clusters: of the mean over trainings of the mean over clients of the mean difference of their patients; None without any.
        num_patients, num_seeds: in common. With one seed the interval is over its patients alone, and there is no p-value.
        rank_biserial: matched-pairs rank-biserial correlation of patients, -1 to 1: the share of rank sums for a, less that for b.
        shift: the Hodges-Lehmann estimate of a patient's difference.
    """

    clusters: Clusters | None
    num_patients: int = 0
    num_seeds: int = 0
    rank_biserial: float = np.nan
    shift: float = np.nan

    @property
    def _is_nothing(self) -> bool:
        """Whether both methods gave each patient the same."""
        return self.clusters is not None and not self.clusters.means_SV.any() and not self.clusters.parts_NV.any()

    @cached_property
    def macro(self) -> Estimate:
        """The mean difference with its interval."""
        if self.clusters is None:
            return NOTHING
        return Estimate(0.0, 0.0, 0.0) if self._is_nothing and self.clusters.is_known else self.clusters.estimates()[0]

    @cached_property
    def p_value(self) -> float:
        """Two-sided, of no difference; NaN with one seed."""
        return self.p_against(0.0)

    def p_against(self, value: float) -> float:
        """Two-sided, of this difference; NaN with one seed."""
        if self.clusters is None or self.num_seeds < 2:
            return float("nan")
        if self._is_nothing and self.clusters.is_known:
            return 1.0 if abs(value) <= NO_SPREAD else 0.0
        return self.clusters.p_value(value)


def paired_difference(scores_a: pd.DataFrame, scores_b: pd.DataFrame) -> Difference:
    """Compare two methods on the cases and seeds that both have.

    Args:
        scores_a, scores_b: from `case_scores`, of one method each.
    """
    pairs = scores_a.merge(scores_b, on=["seed", "client_id", "patient_id", "case_id"], suffixes=("_a", "_b"))
    if pairs.empty:
        return Difference(None)
    sample = Sample(patient_scores(pairs.assign(score=pairs["score_a"] - pairs["score_b"], method="difference")))
    differences = sample.wide.to_numpy(np.float64).ravel()
    numbers = sample.num_patients, sample.num_seeds
    return Difference(sample.clusters, *numbers, rank_biserial(differences), hodges_lehmann(differences))


def rank_biserial(differences: NDArray[np.float64]) -> float:
    """The matched-pairs rank-biserial correlation of Kerby, The simple difference formula, Comprehensive Psychology 2014.

    Zeros have ranks, which count for neither side: Pratt, JASA 1959.
    """
    ranks = rankdata(np.abs(differences))
    return float((ranks * np.sign(differences)).sum() / ranks.sum())


def hodges_lehmann(differences: NDArray[np.float64]) -> float:
    """The median of all pairwise means: Hollander and Wolfe, Nonparametric Statistical Methods, 1999, section 3.2."""
    i, j = np.triu_indices(len(differences))
    return float(np.median((differences[i] + differences[j]) / 2))
