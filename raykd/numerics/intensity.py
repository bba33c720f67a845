"""Intensity statistics of whole volumes: over every voxel, so that they cannot depend on how the axes lie in memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def clip_limits(image: Tensor, low: float, high: float) -> tuple[float, float]:
    """Two quantiles of a volume's intensities, over every voxel.

    A value that more than half of the voxels have is padding. It does not count, and it lies within the limits: a structure that
    fills less than the clipped share of a padded volume keeps its intensities.

    Args:
        image: of any shape, finite.
        low, high: shares of the voxels, 0 to 1.
    """
    values = image.detach().cpu().numpy().ravel()
    darkest, median, brightest = np.quantile(values, [low, 0.5, high]).tolist()
    is_padding = values == median
    if is_padding.all() or 2 * np.count_nonzero(is_padding) <= values.size:
        return darkest, brightest
    darkest, brightest = np.quantile(values[~is_padding], [low, high]).tolist()
    return min(darkest, median), max(brightest, median)


def standardised(image: Tensor, low: float, high: float) -> Tensor:
    """Intensities clipped to limits and brought to mean 0 and standard deviation 1; zeros where they are constant."""
    span = high - low
    if not span > 0:
        return torch.zeros_like(image)
    unit = (image.clamp(low, high) - low) / span
    return (unit - unit.mean()) / unit.std()


def ranked_sample(image: Tensor, size: int) -> Tensor:
    """Intensities at evenly spaced ranks, from the darkest voxel to the brightest; of fewer than `size` voxels all."""
    ranked = torch.from_numpy(np.sort(image.detach().cpu().numpy(), axis=None))
    return ranked[torch.linspace(0, len(ranked) - 1, min(size, len(ranked)), dtype=torch.float64).round().long()]
