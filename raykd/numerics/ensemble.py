"""What several models say together, some of which know some of the classes only. Shapes: B patches, L classes, I J K voxels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ensemble_logits(logits: Sequence[Tensor], known: Sequence[Sequence[int] | None]) -> Tensor:
    """Mean of pre-softmax scores, class by class over the models that know the class: (B, L, I, J, K).

    The background of a model that knows some classes means "none of these", so that it has no say in that of all; where no model
    knows a class, or all of them, every model has.

    Args:
        logits: (B, L, I, J, K) of every model.
        known: by model, the foreground classes that it was taught; None: all.
    """
    by_class = []
    for index in range(logits[0].shape[1]):
        heard = [z for z, classes in zip(logits, known, strict=True) if classes is None or index in classes] or logits
        by_class.append(torch.stack([z[:, index] for z in heard]).mean(dim=0))
    return torch.stack(by_class, dim=1)
