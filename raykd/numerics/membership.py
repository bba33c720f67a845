"""Whether scores tell members from others: the success of membership inference (Yeom et al., IEEE CSF 2018,
https://arxiv.org/abs/1709.01604).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Scores = tuple[Sequence[float], Sequence[float]]
"""Of members and of others; a higher one says: member."""
Measure = Callable[[Sequence[float], Sequence[float]], float]
"""How well scores tell members from others. Scores of different groups are never compared."""
Variance = Callable[[float, int, int], float]
"""Of a measure of one group, by its true value and the numbers of members and of others."""
ROUNDING = 1e-9
"""So that a tenth of ten others is one."""
QUANTILE = 1.959964
"""Of the normal distribution, which 2.5% are above."""
NUM_HALVINGS = 50


def auc(members: Sequence[float], others: Sequence[float]) -> float:
    """The probability that a member's score is above another's, ties counting half: the area under the ROC curve."""
    a, b = np.asarray(members, np.float64)[:, None], np.asarray(others, np.float64)[None]
    return float(((a > b) + 0.5 * (a == b)).mean())


def true_positive_rate(members: Sequence[float], others: Sequence[float], false_positive_rate: float) -> float:
    """The share of members whose score is above all but a share of the others': what an attack finds at that rate of false alarms
    (Carlini et al., Membership inference attacks from first principles, IEEE S&P 2022, https://arxiv.org/abs/2112.03570).

    Args:
        members, others: scores; at least one other.
        false_positive_rate: in [0, 1); below one over the number of others not one of them may be called a member.
    """
    ranked = np.sort(np.asarray(others, np.float64))[::-1]
    threshold = ranked[int(false_positive_rate * len(ranked) + ROUNDING)]
    return float((np.asarray(members, np.float64) > threshold).mean())


def pooled(groups: Mapping[int, Scores], measure: Measure) -> float:
    """The mean over groups of a measure of each."""
    return float(np.mean([measure(*scores) for scores in groups.values()]))


def auc_variance(value: float, num_members: int, num_others: int) -> float:
    """Of an AUC of this true value: Hanley and McNeil, Radiology 1982, with the mean of both sizes in place of either, which holds
    for few cases (Newcombe, Statistics in Medicine 2006, method 5, https://doi.org/10.1002/sim.2324).
    """
    rest = (num_members + num_others) / 2 - 1
    chance = value * (1 - value) / (num_members * num_others)
    return chance * (1 + rest * (1 - value) / (2 - value) + rest * value / (1 + value))


def rate_variance(value: float, num_members: int, num_others: int) -> float:
    """Of a share of members of this true value, at a known threshold."""
    return value * (1 - value) / num_members


def interval(
    groups: Mapping[int, Scores], measure: Measure, variance: Variance, rng: np.random.Generator, num_draws: int = 1000
) -> tuple[float, float]:
    """The 95% interval of a pooled measure: the wider of the score interval, which holds for few cases, and of resampling.

    A score interval holds every value from which the measured one is at most 1.96 of that value's standard errors away (Wilson,
    JASA 1927), so that a perfect split of few cases leaves room. Groups, and within each members and others, are resampled: sites
    may differ.

    Args:
        groups: scores by site.
        measure: in [0, 1].
        variance: of the measure of one group, by its true value.
        rng: of the resampling.
        num_draws: resamples.
    """
    value, ids = pooled(groups, measure), list(groups)
    sizes = [(len(members), len(others)) for members, others in groups.values()]
    ends = [
        _score_end(value, end, lambda true: sum(variance(true, *size) for size in sizes) / len(sizes) ** 2) for end in (0.0, 1.0)
    ]
    draws = [
        np.mean([_drawn(groups[ids[i]], measure, rng) for i in rng.integers(len(ids), size=len(ids))]) for _ in range(num_draws)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return min(ends[0], float(low)), max(ends[1], float(high))


def _score_end(value: float, end: float, variance: Callable[[float], float]) -> float:
    """The last value towards an end of the range that is at most `QUANTILE` of its own standard errors away, by bisection."""
    inside, outside = value, end
    for _ in range(NUM_HALVINGS):
        middle = (inside + outside) / 2
        is_near = abs(value - middle) <= QUANTILE * math.sqrt(variance(middle))
        inside, outside = (middle, outside) if is_near else (inside, middle)
    return inside


def p_of_chance(groups: Mapping[int, Scores], measure: Measure, rng: np.random.Generator, num_draws: int = 2000) -> float:
    """One-sided p-value of cases being members or others by chance: the share of relabellings within groups, the true one among
    them, that reach as much. It holds for any number of cases (Phipson and Smyth, 2010, https://doi.org/10.2202/1544-6115.1585).
    """
    value, mixed = pooled(groups, measure), {key: np.concatenate(scores) for key, scores in groups.items()}

    def relabelled(key: int) -> Scores:
        cases, num_members = rng.permutation(mixed[key]), len(groups[key][0])
        return cases[:num_members].tolist(), cases[num_members:].tolist()

    as_much = sum(pooled({key: relabelled(key) for key in groups}, measure) >= value - ROUNDING for _ in range(num_draws))
    return (1 + as_much) / (1 + num_draws)


def least_p(groups: Mapping[int, Scores]) -> float:
    """The share of relabellings within groups that a perfect split is: no test of so few cases can give less."""
    return math.prod(1 / math.comb(len(members) + len(others), len(members)) for members, others in groups.values())


def _drawn(scores: Scores, measure: Measure, rng: np.random.Generator) -> float:
    members, others = (_resampled(np.asarray(side, np.float64), rng) for side in scores)
    return measure(members.tolist(), others.tolist())


def _resampled(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    drawn: NDArray[np.float64] = values[rng.integers(len(values), size=len(values))]
    return drawn
