"""What a model says that was taught some of the classes only: its background means "none of these".

How such a model shares the probability of "none of these" between background and the classes that it was never taught means
nothing, so the share is undone before anyone learns from it or scores it. `marginal_logits` of the segmentation losses does the
same for logits (Shi et al., Medical Image Analysis 70, 2021, https://arxiv.org/abs/2007.03868).

Shapes: B patches, L classes with background, I J K voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def merge_probs(probs_BLIJK: Tensor, known: Sequence[int] | None) -> Tensor:
    """Probabilities in which the classes that are not known are part of the background; their own become 0.

    Args:
        probs_BLIJK: over background and all classes.
        known: the foreground classes that the model was taught; None: all, and the probabilities are returned as they came.
    """
    if known is None:
        return probs_BLIJK
    merged = torch.zeros_like(probs_BLIJK)
    merged[:, list(known)] = probs_BLIJK[:, list(known)]
    merged[:, 0] = probs_BLIJK[:, [index for index in range(probs_BLIJK.shape[1]) if index not in known]].sum(dim=1)
    return merged
