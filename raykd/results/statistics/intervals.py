"""Intervals by bootstrap: patients are drawn within clients, and clients too where there are enough of them to stand for others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

NUM_RESAMPLES = 10_000
RESAMPLING_SEED = 20_260_101
FEW_CLIENTS = 6
"""Up to so many clients are fixed strata: the statement is about these sites. Above it they are a draw from sites like them."""
TAILS = (0.025, 0.975)

Array = NDArray[np.float64]


def resampling_rng() -> np.random.Generator:
    """The generator of every interval in questions and reports: the same runs give the same intervals."""
    return np.random.default_rng(RESAMPLING_SEED)


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95% interval; NaN where there is too little to say so."""

    value: float
    low: float
    high: float


NOTHING = Estimate(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Sample:
    """Patients' scores under one or several conditions.

    Attributes:
        clients: client_id to its patients' scores, patients x conditions; no NaN, no client without patients.
        conditions: what the columns are.
    """

    clients: dict[int, Array]
    conditions: tuple[object, ...]

    @classmethod
    def of(cls, wide: pd.DataFrame) -> Sample:
        """Of a frame from `patient_scores`: client_id and patient_id in the index, a column a condition."""
        blocks = {int(client): rows.to_numpy(np.float64) for client, rows in wide.groupby(level="client_id")}  # type: ignore[call-overload]
        return cls(blocks, tuple(wide.columns))

    @property
    def has_fixed_clients(self) -> bool:
        """Whether clients are strata that every resample has."""
        return len(self.clients) <= FEW_CLIENTS

    @property
    def num_patients(self) -> int:
        """Over all clients."""
        return sum(len(block) for block in self.clients.values())

    @cached_property
    def means_KV(self) -> Array:
        """Every client's mean under every condition."""
        return np.stack([block.mean(axis=0) for block in self.clients.values()])

    @property
    def macro_V(self) -> Array:
        """The mean over clients of the mean over their patients, under every condition."""
        return self.means_KV.mean(axis=0)

    def draws_BKV(self, rng: np.random.Generator, num: int = NUM_RESAMPLES) -> Array:
        """Resampled means of the clients: with few of them each of its own patients, else of clients drawn before their patients.

        A single patient has NaN where clients are fixed: the spread between patients is not known, and zero would feign certainty.
        """
        blocks = list(self.clients.values())
        if self.has_fixed_clients:
            return np.stack([_means(block, rng, num) if len(block) > 1 else np.full((num, block.shape[1]), np.nan)
                             for block in blocks], axis=1)  # fmt: skip
        picks_BK = rng.integers(len(blocks), size=(num, len(blocks)))
        draws = np.empty((num, len(blocks), len(self.conditions)))
        for client, block in enumerate(blocks):
            is_picked = picks_BK == client
            draws[is_picked] = _means(block, rng, int(is_picked.sum()))
        return draws

    def macro_draws_BV(self, rng: np.random.Generator, num: int = NUM_RESAMPLES) -> Array:
        """Resampled macro means."""
        return self.draws_BKV(rng, num).mean(axis=1)

    def macro(self, rng: np.random.Generator) -> list[Estimate]:
        """The macro mean under every condition with its BCa interval."""
        if not self.clients:
            return [NOTHING] * len(self.conditions)
        draws_BV, groups = self.macro_draws_BV(rng), self._left_out()
        return [bca(float(value), draws_BV[:, v], [group[:, v] for group in groups]) for v, value in enumerate(self.macro_V)]

    def _left_out(self) -> list[Array]:
        """The macro mean without one unit after the other: patients by stratum, or clients."""
        num_clients = len(self.clients)
        if not self.has_fixed_clients:
            return [(self.means_KV.sum(axis=0) - self.means_KV) / (num_clients - 1)]
        groups = []
        for block, mean_V in zip(self.clients.values(), self.means_KV, strict=True):
            without_PV = (block.sum(axis=0) - block) / max(len(block) - 1, 1)
            groups.append(self.macro_V + (without_PV - mean_V) / num_clients)
        return groups


def mean_of(values: Array, rng: np.random.Generator) -> Estimate:
    """The mean of one client's patients with its BCa interval."""
    return Sample({0: np.asarray(values, np.float64)[:, None]}, ("score",)).macro(rng)[0]


def _means(block_PV: Array, rng: np.random.Generator, num: int) -> Array:
    """Means of `num` resamples of as many patients."""
    size = len(block_PV)
    counts = rng.multinomial(size, np.full(size, 1 / size), size=num)
    return np.asarray(counts @ block_PV / size)


def bca(value: float, draws_B: Array, left_out: list[Array]) -> Estimate:
    """The bias-corrected and accelerated interval: Efron, Better bootstrap confidence intervals, JASA 1987; for several strata as
    Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 5.4.

    Args:
        value: the estimate itself.
        draws_B: its resamples; NaN gives an interval of NaN.
        left_out: for each stratum, the estimates without one of its units after the other.
    """
    if np.isnan(draws_B).any():
        return Estimate(value, np.nan, np.nan)
    if np.ptp(draws_B) <= 1e-12 * max(1.0, abs(value)):
        return Estimate(value, value, value)
    ties = np.isclose(draws_B, value, rtol=0, atol=1e-12)
    share_below = np.mean((draws_B < value) & ~ties) + np.mean(ties) / 2
    bias = norm.ppf(np.clip(share_below, 1 / len(draws_B), 1 - 1 / len(draws_B)))
    influences = [(len(units) - 1) / len(units) * (units.mean() - units) for units in left_out]
    cubes, squares = (sum(float((u**power).sum()) for u in influences) for power in (3, 2))
    acceleration = cubes / (6 * squares**1.5) if squares > 0 else 0.0
    z = bias + norm.ppf(TAILS)
    low, high = np.quantile(draws_B, norm.cdf(bias + z / (1 - acceleration * z)))
    return Estimate(value, float(low), float(high))


def percentiles(draws_B: Array) -> tuple[float, float]:
    """The percentile interval, for what derives from means: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, 13.3."""
    if np.isnan(draws_B).any():
        return np.nan, np.nan
    low, high = np.quantile(draws_B, TAILS, method="nearest")
    return float(low), float(high)
