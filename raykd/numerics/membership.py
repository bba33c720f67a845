"""Whether scores tell members from others: the success of membership inference (Yeom et al., IEEE CSF 2018,
https://arxiv.org/abs/1709.01604).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Scores = tuple[Sequence[float], Sequence[float]]
"""Of members and of others; a higher one says: member."""
Measure = Callable[[Sequence[float], Sequence[float]], float]
"""How well scores tell members from others. Scores of different groups are never compared."""
ROUNDING = 1e-9
"""So that a tenth of ten others is one."""


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


def interval(
    groups: Mapping[int, Scores], measure: Measure, rng: np.random.Generator, num_draws: int = 1000
) -> tuple[float, float]:
    """2.5th and 97.5th percentile of the pooled measure under resampling of groups and, within each, of members and of others."""
    ids = list(groups)
    draws = [
        np.mean([_drawn(groups[ids[i]], measure, rng) for i in rng.integers(len(ids), size=len(ids))]) for _ in range(num_draws)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def _drawn(scores: Scores, measure: Measure, rng: np.random.Generator) -> float:
    members, others = (_resampled(np.asarray(side, np.float64), rng) for side in scores)
    return measure(members.tolist(), others.tolist())


def _resampled(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    drawn: NDArray[np.float64] = values[rng.integers(len(values), size=len(values))]
    return drawn
