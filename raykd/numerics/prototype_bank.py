"""Many prototypes a class, of many patches and sites. Shapes: B patches, P prototypes, C classes with background, F channels,
i j k feature grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from raykd.numerics.prototypes import class_means, class_sums, cosine_logits, coverage
from raykd.numerics.segmentation_losses import UNKNOWN


def patch_prototypes(feature_BFijk: Tensor, label_BIJK: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Prototypes (B, C, F) of every patch on its own and the cells (B, C) that each is the mean of; zero where there is none."""
    pairs = [class_sums(feature[None], label[None], num_classes) for feature, label in zip(feature_BFijk, label_BIJK, strict=True)]
    counts = torch.stack([count_C for _, count_C in pairs])
    return torch.stack([class_means(*pair) for pair in pairs]), counts


def mean_prototypes(prototype_PCF: Tensor, count_PC: Tensor) -> tuple[Tensor, Tensor]:
    """A site's prototypes (C, F), the plain mean over the patches that hold a class, and the number (C,) of those patches."""
    present_PC = (count_PC > 0).to(prototype_PCF.dtype)
    number_C = present_PC.sum(dim=0)
    return (prototype_PCF * present_PC[..., None]).sum(dim=0) / number_C.clamp(min=1.0)[:, None], number_C


def bank_contrastive_loss(
    feature_BFijk: Tensor, label_BIJK: Tensor, prototype_PCF: Tensor, count_PC: Tensor, temperature: float = 0.1
) -> Tensor:
    """Mean over cells of -log of the share that the prototypes of the cell's own class have in the sum over classes of
    exp(cosine / temperature), each class's taken as a mean, so that one with more prototypes is not preferred (Wu et al., IEEE
    Transactions on Medical Imaging, 2023, https://github.com/zhangbaiming/FedSemiSeg).

    Args:
        label_BIJK: a cell is of the class that covers most of it; 255, or half of it unknown, takes part in nothing.
        prototype_PCF: no gradient flows into them.
        count_PC: 0 where there is no prototype, > 0 somewhere; cells of a class without any do not count.
        temperature: > 0.
    """
    num_prototypes, num_classes = count_PC.shape
    present_P = (count_PC > 0).flatten()
    logits = cosine_logits(feature_BFijk, prototype_PCF.detach().flatten(0, 1), scale=1.0 / temperature, present_P=present_P)
    present_C = (count_PC > 0).any(dim=0)
    number_C = (count_PC > 0).sum(dim=0).clamp(min=1).to(logits.dtype)
    class_BCijk = logits.unflatten(1, (num_prototypes, num_classes))[:, :, present_C].logsumexp(dim=1)
    class_BCijk = class_BCijk - number_C[present_C].log()[:, None, None, None]
    covered_BCijk = coverage(label_BIJK, num_classes, feature_BFijk.shape[2:])
    own_Bijk = covered_BCijk.argmax(dim=1)
    counts_Bijk = (covered_BCijk.sum(dim=1) > 0.5) & present_C[own_Bijk]
    position_C = present_C.cumsum(dim=0) - 1
    target_Bijk = torch.where(counts_Bijk, position_C[own_Bijk], UNKNOWN)
    return F.cross_entropy(class_BCijk, target_Bijk, ignore_index=UNKNOWN, reduction="none").sum() / counts_Bijk.sum().clamp(min=1)
