"""Whether scores tell members from others: the success of membership inference (Yeom et al., IEEE CSF 2018,
https://arxiv.org/abs/1709.01604).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Scores = tuple[Sequence[float], Sequence[float]]
"""Of members and of others; a higher one says: member."""


def auc(members: Sequence[float], others: Sequence[float]) -> float:
    """The probability that a member's score is above another's, ties counting half: the area under the ROC curve."""
    a, b = np.asarray(members, np.float64)[:, None], np.asarray(others, np.float64)[None]
    return float(((a > b) + 0.5 * (a == b)).mean())


def pooled_auc(groups: Mapping[int, Scores]) -> float:
    """The mean over groups of their own areas: scores of different groups are never compared."""
    return float(np.mean([auc(*scores) for scores in groups.values()]))


def auc_interval(groups: Mapping[int, Scores], rng: np.random.Generator, num_draws: int = 1000) -> tuple[float, float]:
    """2.5th and 97.5th percentile of the pooled area under resampling of groups and, within each, of members and of others."""
    ids = list(groups)
    draws = [np.mean([_drawn(groups[ids[i]], rng) for i in rng.integers(len(ids), size=len(ids))]) for _ in range(num_draws)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def _drawn(scores: Scores, rng: np.random.Generator) -> float:
    members, others = (_resampled(np.asarray(side, np.float64), rng) for side in scores)
    return auc(members.tolist(), others.tolist())


def _resampled(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    drawn: NDArray[np.float64] = values[rng.integers(len(values), size=len(values))]
    return drawn
