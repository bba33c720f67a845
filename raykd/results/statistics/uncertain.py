"""Quantities that are not sure: a value beside draws of it, carried through sums, products and quotients together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raykd.results.statistics.intervals import NUM_RESAMPLES, RESAMPLING_SEED, Estimate, percentiles

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Uncertain:
    """A quantity.

    Attributes:
        value: what is printed: the estimate, at the likeliest prices.
        draws_B: resamples of it; draw b of every quantity belongs to draw b of every other.
    """

    value: float
    draws_B: Array

    def __add__(self, other: Uncertain | float) -> Uncertain:
        return self._with(other, np.add)

    def __sub__(self, other: Uncertain | float) -> Uncertain:
        return self._with(other, np.subtract)

    def __mul__(self, other: Uncertain | float) -> Uncertain:
        return self._with(other, np.multiply)

    def __truediv__(self, other: Uncertain | float) -> Uncertain:
        return self._with(other, np.divide)

    def _with(self, other: Uncertain | float, operation: Callable[[Any, Any], Any]) -> Uncertain:
        value, draws = (other.value, other.draws_B) if isinstance(other, Uncertain) else (other, other)
        with np.errstate(invalid="ignore", divide="ignore"):
            return Uncertain(float(operation(self.value, value)), np.asarray(operation(self.draws_B, draws), np.float64))

    def at_least(self, floor: float) -> Uncertain:
        """What is below the floor is the floor."""
        return self._with(floor, np.maximum)

    @property
    def estimate(self) -> Estimate:
        """The value and the middle 95% of the draws."""
        return Estimate(self.value, *percentiles(self.draws_B))

    @property
    def share_positive(self) -> float:
        """The share of draws above zero; NaN where some are not known."""
        return float("nan") if np.isnan(self.draws_B).any() else float((self.draws_B > 0).mean())


def sure(value: float, num: int = NUM_RESAMPLES) -> Uncertain:
    """A quantity without spread."""
    return Uncertain(value, np.full(num, value))


def drawn(name: str, values: Sequence[float], num: int = NUM_RESAMPLES) -> Uncertain:
    """A price: one number is sure, two are the ends of a uniform distribution, three the low end, mode and high end of a triangle.

    The draws depend on the name and on nothing else, so that a price that is added leaves the others' draws as they were.
    """
    rng = np.random.default_rng([RESAMPLING_SEED, *name.encode()])
    if values[0] == values[-1]:
        return sure(values[0], num)
    if len(values) == 2:
        return Uncertain(sum(values) / 2, rng.uniform(values[0], values[1], size=num))
    return Uncertain(values[1], rng.triangular(values[0], values[1], values[2], size=num))
