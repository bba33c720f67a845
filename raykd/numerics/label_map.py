"""From scores to label maps."""

from __future__ import annotations

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
