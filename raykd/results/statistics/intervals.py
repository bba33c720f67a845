"""Estimates with their intervals, and the generator behind whatever is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 10_000
RESAMPLING_SEED = 20_260_101
TAILS = (0.025, 0.975)

Array = NDArray[np.float64]


def resampling_rng() -> np.random.Generator:
    """The generator of everything drawn in questions and reports: the same runs give the same intervals."""
    return np.random.default_rng(RESAMPLING_SEED)


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95% interval; NaN where there is too little to give one."""

    value: float
    low: float
    high: float

    def within(self, least: float, most: float) -> Estimate:
        """The same, its interval cut to the range that the quantity can have."""
        return Estimate(self.value, *(float(np.clip(end, least, most)) for end in (self.low, self.high)))


NOTHING = Estimate(np.nan, np.nan, np.nan)


def percentiles(draws_B: Array) -> tuple[float, float]:
    """The middle 95% of draws, for what derives from means."""
    if np.isnan(draws_B).any():
        return np.nan, np.nan
    low, high = np.quantile(draws_B, TAILS, method="nearest")
    return float(low), float(high)


def columns_of(name: str, estimate: Estimate) -> dict[str, float]:
    """An estimate as three columns: NAME, NAME_low, NAME_high."""
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
