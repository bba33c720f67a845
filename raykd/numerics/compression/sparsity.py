"""The few largest numbers of a vector, and what three values make of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def num_kept(share: float, size: int) -> int:
    """How many of `size` numbers are kept: a share of them, at least one where there are any."""
    return min(size, max(1, math.floor(share * size + 0.5)))


def largest(vector: Tensor, count: int) -> Tensor:
    """Ascending indices of the `count` numbers of largest magnitude; of equal ones, those that come first."""
    if not count:
        return torch.zeros(0, dtype=torch.long)
    size = vector.abs()
    least = torch.topk(size, count, sorted=False).values.min()
    above = torch.nonzero(size > least).flatten()
    level = torch.nonzero(size == least).flatten()[: count - len(above)]
    return torch.cat([above, level]).sort().values


def scatter(values: Tensor, index: Tensor, size: int) -> Tensor:
    """A vector of zeros with values at their indices."""
    vector = values.new_zeros(size)
    vector[index] = values
    return vector


def ternary(values: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each number is positive, and the mean of their magnitudes: all that sparse ternary compression keeps of them."""
    return values > 0, values.abs().mean() if len(values) else values.new_zeros(())
