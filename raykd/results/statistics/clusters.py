"""How sure a mean is when every training (seed) has test patients of its own, or the same ones, or some of both.

A row is the score of one unit in one training. Trainings are the outer clusters: what one seed draws (first weights, order of
patches, who is labelled) moves all of its patients together. Units are patients within a site, or sites where these are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import t as student

from raykd.results.statistics.intervals import NUM_RESAMPLES, Array, Estimate

ALPHA = 0.05
NO_SPREAD = 1e-12
"""Half an interval below it is rounding."""
LEAST_LOG = np.log(1e-12)
"""Of a p-value."""

Ints = NDArray[np.intp]


@dataclass(frozen=True)
class Part:
    """A variance under each condition and its degrees of freedom."""

    variance_V: Array
    df_V: Array

    def squared_V(self, alpha: float) -> Array:
        """The square of half its interval."""
        return np.asarray(student.isf(alpha / 2, self.df_V) ** 2 * self.variance_V)


@dataclass(frozen=True)
class Clusters:
    """A mean over trainings with its two standard errors: over trainings and patients, and over patients alone.

    Over trainings, the variance is that of the trainings' means over their number, plus what these means share because the same
    patients were tested: Obuchowski and Rockette, Communications in Statistics 1995, with trainings as readers and patients as
    cases. Each of the two parts has its own Student quantile, and half the interval is the root of their squares' sum. Trainings
    that share no patient have no second part, and the interval is Student's over trainings. Over patients alone, the variance is
    that of stratified means with each patient as one cluster over all trainings, its degrees of freedom Satterthwaite's (Biometrics
    Bulletin 1946). An interval is the wider of the two, so that trainings that agree by chance do not hide what patients vary, and
    a p-value the larger: it is below 5% where the interval leaves out the value that it is of.

    Attributes:
        means_SV: the mean of each training, under each condition.
        parts_NV: each row's deviation from the mean of its stratum and training, weighted as in the overall mean and scaled by
            sqrt(n / (n - 1)), so that squares add up to an unbiased variance.
        units_N: the unit of each row, 0 to U - 1.
        strata_U: the stratum of each unit.
        dfs_H: degrees of freedom of each stratum.
        is_known: whether the spread between units is: not of a single unit that no other training replaces.
    """

    means_SV: Array
    parts_NV: Array
    units_N: Ints
    strata_U: Ints
    dfs_H: Array
    is_known: bool

    @classmethod
    def of(
        cls, scores_NV: Array, seeds_N: Ints, strata_N: Ints, units_N: Ints, weights: Mapping[int, float] | None = None
    ) -> Clusters:
        """From scores by training, stratum and unit.

        Args:
            scores_NV: a row a unit and training, a column a condition.
            seeds_N, strata_N: of each row; any numbers.
            units_N: of each row; the same number is the same unit in every training.
            weights: of each stratum's mean in the mean of a training; None: all the same, and together 1.
        """
        cells, cell_N, sizes_C = np.unique(np.stack([seeds_N, strata_N]), axis=1, return_inverse=True, return_counts=True)
        cell_N = cell_N.reshape(-1)
        means_CV = _sums(scores_NV, cell_N, len(sizes_C)) / sizes_C[:, None]
        _, seed_C, strata_per_seed = np.unique(cells[0], return_inverse=True, return_counts=True)
        num_seeds = len(strata_per_seed)
        weight_C = 1 / strata_per_seed[seed_C] if weights is None else np.array([weights[int(stratum)] for stratum in cells[1]])
        means_SV = _sums(weight_C[:, None] * means_CV, seed_C, num_seeds)
        sizes_N = sizes_C[cell_N]
        scales_N = weight_C[cell_N] / (num_seeds * sizes_N) * np.sqrt(sizes_N / np.maximum(sizes_N - 1, 1))
        parts_NV = scales_N[:, None] * (scores_NV - means_CV[cell_N])
        _, first_U, unit_N = np.unique(units_N, return_index=True, return_inverse=True)
        _, stratum_U = np.unique(strata_N[first_U], return_inverse=True)
        is_repeated_N = (np.bincount(unit_N)[unit_N] > 1) | (num_seeds == 1)
        is_known = not (is_repeated_N & (sizes_N == 1)).any()
        return cls(means_SV, parts_NV, unit_N, stratum_U, _dfs(stratum_U, stratum_U[unit_N], sizes_N), is_known)

    @property
    def num_seeds(self) -> int:
        """Trainings."""
        return len(self.means_SV)

    @cached_property
    def value_V(self) -> Array:
        """The mean over trainings."""
        return np.asarray(self.means_SV.mean(axis=0))

    @cached_property
    def _sums_UV(self) -> Array:
        return _sums(self.parts_NV, self.units_N, len(self.strata_U))

    @cached_property
    def _patients(self) -> Part:
        """The variance over units alone."""
        variances_HV = _sums(self._sums_UV**2, self.strata_U, len(self.dfs_H))
        return Part(variances_HV.sum(axis=0), _satterthwaite(variances_HV, self.dfs_H))

    @cached_property
    def _trainings(self) -> tuple[Part, Part]:
        """The variance over trainings, and what they share by testing the same units."""
        num = self.num_seeds
        between_V = self.means_SV.var(axis=0, ddof=1) / num
        shared_V = num / (num - 1) * ((self._sums_UV**2).sum(axis=0) - (self.parts_NV**2).sum(axis=0))
        return Part(between_V, np.full(between_V.shape, num - 1.0)), Part(np.maximum(shared_V, 0.0), self._patients.df_V)

    def _halves_V(self, alpha: float) -> Array:
        """Half the interval at a confidence of 1 - alpha."""
        patients = np.sqrt(self._patients.squared_V(alpha))
        if self.num_seeds == 1:
            return patients
        return np.maximum(patients, np.sqrt(sum(part.squared_V(alpha) for part in self._trainings)))

    def estimates(self) -> list[Estimate]:
        """The mean with its interval under each condition; NaN where no unit differs from another, or too little is known."""
        half_V = self._halves_V(ALPHA) if self.is_known else np.full(self.value_V.shape, np.nan)
        half_V = np.where(half_V > NO_SPREAD, half_V, np.nan)
        return [Estimate(float(v), float(v - half), float(v + half)) for v, half in zip(self.value_V, half_V, strict=True)]

    def p_value(self, against: float = 0.0) -> float:
        """Two-sided, of the first condition's mean being `against`: the alpha whose interval ends there. NaN with one training,
        whose own luck no patient tells, and where nothing varies."""
        if self.num_seeds == 1 or not self.is_known or self._halves_V(ALPHA)[0] <= NO_SPREAD:
            return float("nan")
        distance = abs(float(self.value_V[0]) - against)

        def excess(log_alpha: float) -> float:
            return float(self._halves_V(float(np.exp(log_alpha)))[0]) - distance

        return float(np.exp(brentq(excess, LEAST_LOG, 0.0))) if excess(LEAST_LOG) > 0 else float(np.exp(LEAST_LOG))

    def draws_BV(self, rng: np.random.Generator, num: int = NUM_RESAMPLES) -> Array:
        """Means as they might have come out, of all conditions together: multivariate t, for what derives from several means.

        The part of trainings and that of patients have their own degrees of freedom. NaN where too little is known.
        """
        if not self.is_known:
            return np.full((num, len(self.value_V)), np.nan)
        df = float(np.min(self._patients.df_V))
        if self.num_seeds == 1:
            return self.value_V + _multivariate_t(self._sums_UV, df, rng, num)
        spread_SV = (self.means_SV - self.value_V) / np.sqrt(self.num_seeds * (self.num_seeds - 1))
        all_VV, own_VV = self._sums_UV.T @ self._sums_UV, self.parts_NV.T @ self.parts_NV
        shared_VV = _positive(self.num_seeds / (self.num_seeds - 1) * (all_VV - own_VV))
        rest_VV = _positive(all_VV - shared_VV - spread_SV.T @ spread_SV)
        patients = _multivariate_t(_root(shared_VV + rest_VV), df, rng, num)
        return np.asarray(self.value_V + _multivariate_t(spread_SV, self.num_seeds - 1, rng, num) + patients)


def _sums(values_NV: Array, groups_N: Ints, num: int) -> Array:
    sums = np.zeros((num, values_NV.shape[1]))
    np.add.at(sums, groups_N, values_NV)
    return sums


def _dfs(stratum_U: Ints, stratum_N: Ints, sizes_N: Ints) -> Array:
    """Units of a stratum less what means take: n - 1 for the same n in every training, S (n - 1) for other n in each of S."""
    num_cells_H = np.bincount(stratum_N, 1 / sizes_N)
    mean_sizes_H = np.bincount(stratum_N) / num_cells_H
    return np.asarray(np.bincount(stratum_U) * (mean_sizes_H - 1) / mean_sizes_H)


def _satterthwaite(variances_HV: Array, dfs_H: Array) -> Array:
    """The degrees of freedom that a sum of independent variances has about."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shares_V = np.where(variances_HV > 0, variances_HV**2 / dfs_H[:, None], 0.0).sum(axis=0)
        return np.where(shares_V > 0, variances_HV.sum(axis=0) ** 2 / shares_V, max(float(dfs_H.sum()), 1.0))


def _multivariate_t(parts_RV: Array, df: float, rng: np.random.Generator, num: int) -> Array:
    """Draws about zero whose scale matrix is the sum of the products of the rows."""
    normal_BV = rng.standard_normal((num, len(parts_RV))) @ parts_RV
    return np.asarray(normal_BV * np.sqrt(df / rng.chisquare(df, size=num))[:, None])


def _positive(matrix_VV: Array) -> Array:
    """Its part without negative eigenvalues."""
    values, vectors = np.linalg.eigh((matrix_VV + matrix_VV.T) / 2)
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


def _root(matrix_VV: Array) -> Array:
    values, vectors = np.linalg.eigh((matrix_VV + matrix_VV.T) / 2)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))).T)
