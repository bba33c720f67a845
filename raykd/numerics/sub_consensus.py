"""Averaging by the consensus of random subsets of clients (RSCFed, Liang et al., CVPR 2022, https://github.com/xmed-lab/rscfed)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from torch import Tensor


def random_subsets(num_clients: int, size: int, num_subsets: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Subsets of distinct clients, each ascending; two subsets may share clients or be equal.

    Args:
        num_clients: to draw from, > 0.
        size: of a subset; where there are fewer clients, all of them.
        num_subsets: M.
        rng: source of every draw.
    """
    size = min(size, num_clients)
    return [tuple(sorted(rng.choice(num_clients, size, replace=False).tolist())) for _ in range(num_subsets)]


def relative_distance(model: Mapping[str, Tensor], centre: Mapping[str, Tensor], keys: Collection[str]) -> float:
    """||model - centre|| / ||centre|| over the entries named, all taken as one vector: the same for a model of any size."""
    apart = sum(float((model[key].double() - centre[key].double()).square().sum()) for key in keys)
    length = sum(float(centre[key].double().square().sum()) for key in keys)
    return math.sqrt(apart / max(length, 1e-24))


def consensus_weights(shares: Sequence[float], distances: Sequence[float], num_cases: Sequence[int], scale: float) -> list[float]:
    """Weights proportional to share_i * exp(-scale * distance_i / n_i), summing to one: who strays from the mean counts less.

    Args:
        shares: of the plain mean, summing to one.
        distances: from the plain mean, >= 0.
        num_cases: n_i; a site without cases counts as one of a single case.
        scale: s, >= 0; 0 gives the shares back.
    """
    exponents = [-scale * distance / max(n, 1) for distance, n in zip(distances, num_cases, strict=True)]
    top = max(exponent for exponent, share in zip(exponents, shares, strict=True) if share > 0)
    raw = [share * math.exp(min(exponent - top, 0.0)) for share, exponent in zip(shares, exponents, strict=True)]
    return [weight / sum(raw) for weight in raw]
