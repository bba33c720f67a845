"""Values that are drawn for every site of a group: `{uniform: [1, 3]}` in the place of a number."""

from __future__ import annotations

import hashlib
import math
import random
from statistics import NormalDist
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from raykd.scenario.fields import NonNegativeFloat, PositiveFloat, PositiveInt, Strict

DISTRIBUTIONS = ("uniform", "normal", "lognormal", "choice", "dirichlet")
_CLIPPED = ("uniform", "normal", "lognormal")
_SMALLEST = 2.0**-54
"""In the place of a random number 0, of which there is no logarithm."""


class Shares(Strict):
    """Unequal shares of a total, in proportions drawn from the symmetric Dirichlet distribution."""

    alpha: Annotated[float, Field(gt=0.0, le=1e6)]
    """Concentration: 0.5 gives very unlike shares, 100 nearly equal ones."""
    total: PositiveInt
    """What the shares of the group's sites add up to; each is a whole number of at least 1."""


class Draw(Strict):
    """One distribution, in the place of a value of a client group. Every site of the group draws its own value, from the scenario's
    seed, its name and the key, and the run's record says what it drew. Where whole numbers are expected, so is what is drawn."""

    uniform: tuple[float, float] | None = None
    """[low, high]: any number between the two alike; of whole numbers, both ends included."""
    normal: tuple[float, NonNegativeFloat] | None = None
    """[mean, standard deviation]."""
    lognormal: tuple[PositiveFloat, NonNegativeFloat] | None = None
    """[median, sigma]: half of the values lie below the median, two thirds between median / e^sigma and median * e^sigma."""
    choice: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None
    """One of these, each as likely: numbers, text, lists or whole blocks, which may hold draws themselves."""
    dirichlet: Shares | None = None
    """The site's share of a total, say of `source.num_cases`."""
    min: float | None = None
    """What is drawn below it becomes it; not for choice and dirichlet."""
    max: float | None = None
    """What is drawn above it becomes it."""

    @model_validator(mode="after")
    def _is_one(self) -> Draw:
        given = [word for word in DISTRIBUTIONS if getattr(self, word) is not None]
        if len(given) != 1:
            rule = "must be one of uniform, normal, lognormal, choice, dirichlet, and no other beside it"
            raise PydanticCustomError("draw", rule)
        if (self.min, self.max) != (None, None) and given[0] not in _CLIPPED:
            raise PydanticCustomError("draw", "min and max belong to uniform, normal and lognormal only")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise PydanticCustomError("draw", "min must not be above max", {"at": "min"})
        if self.uniform is not None and self.uniform[0] > self.uniform[1]:
            raise PydanticCustomError("draw", "must be [low, high] with low <= high", {"at": "uniform"})
        return self


def stream(seed: int, *address: int | str) -> random.Random:
    """Random numbers of their own for one address, the same in any process and order.

    Like `raykd.numerics.rng.generator`, but of the standard library: what reads scenarios loads no torch.
    """
    text = repr((seed, "draw", *address))
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little"))


def draw_number(draw: Draw, rng: random.Random, is_whole: bool) -> float:
    """One value of `uniform`, `normal` or `lognormal`, to six significant digits, or a whole number.

    Raises:
        ValueError: there is no whole number between the ends of `uniform`, or what was drawn is too large for a number.
    """
    share = max(rng.random(), _SMALLEST)
    low, high = -math.inf, math.inf
    if draw.uniform is not None:
        low, high = draw.uniform
        value = _whole_between(low, high, share) if is_whole else low + share * (high - low)
    elif draw.normal is not None:
        value = draw.normal[0] + draw.normal[1] * NormalDist().inv_cdf(share)
    else:
        assert draw.lognormal is not None
        exponent = math.log(draw.lognormal[0]) + draw.lognormal[1] * NormalDist().inv_cdf(share)
        value = math.exp(exponent) if exponent < 700 else math.inf
    value = _clip(value, low if draw.min is None else draw.min, high if draw.max is None else draw.max)
    if abs(value) >= 2**63:
        raise ValueError("the number drawn is too large")
    return round(value) if is_whole else _clip(float(f"{value:.6g}"), low, high)


def _whole_between(low: float, high: float, share: float) -> int:
    first, last = math.ceil(low), math.floor(high)
    if first > last:
        raise ValueError("there is no whole number between the two")
    return min(last, first + math.floor(share * (last - first + 1)))


def _clip(value: float, low: float, high: float) -> float:
    return max(low, min(value, high))


def draw_shares(shares: Shares, count: int, rng: random.Random) -> list[int]:
    """Whole numbers, each at least 1, that add up to the total: 1 each, and of the rest Dirichlet shares by largest remainder.

    Args:
        count: how many; at most `shares.total`.
    """
    # Gamma(alpha) = Gamma(alpha + 1) U^(1 / alpha), in logarithms: small alphas would all be 0 otherwise
    logs = [math.log(rng.gammavariate(shares.alpha + 1, 1)) for _ in range(count)]
    logs = [log + math.log(max(rng.random(), _SMALLEST)) / shares.alpha for log in logs]
    weights = [math.exp(log - max(logs)) for log in logs]
    rest = shares.total - count
    exact = [rest * weight / sum(weights) for weight in weights]
    whole = [math.floor(part) for part in exact]
    by_remainder = sorted(range(count), key=lambda index: (whole[index] - exact[index], index))
    for index in by_remainder[: rest - sum(whole)]:
        whole[index] += 1
    return [1 + part for part in whole]
