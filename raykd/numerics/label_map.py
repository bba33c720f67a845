"""From scores to label maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def best_class(scores_LIJK: Tensor) -> Tensor:
    """The index along the first axis of the largest score, the lower one of equals: uint8 (I, J, K).

    A running maximum; `argmax` over a leading axis takes about ten times as long.
    """
    best, index = scores_LIJK[0], torch.zeros(scores_LIJK.shape[1:], dtype=torch.uint8)
    for c in range(1, len(scores_LIJK)):
        is_better = scores_LIJK[c] > best
        best = torch.where(is_better, scores_LIJK[c], best)
        index.masked_fill_(is_better, c)
    return index


def best_resampled_class(scores_LIJK: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The index of the largest score at each voxel of another grid, the lower one of equals: uint8.

    One class is resampled at a time.

    Args:
        scores_LIJK: of all classes.
        weights: for each axis, the share of each voxel in each of the other grid's, (new, old).
    """
    best, index = torch.zeros(()), torch.zeros((), dtype=torch.uint8)
    for c, scores_IJK in enumerate(scores_LIJK):
        resampled = torch.einsum("xi,yj,zk,ijk->xyz", *weights, scores_IJK)
        is_better = resampled > best if c else torch.ones_like(resampled, dtype=torch.bool)
        best = torch.where(is_better, resampled, best)
        index = torch.where(is_better, torch.tensor(c, dtype=torch.uint8), index)
    return index
