"""Prototypes and statistics of classes in feature space: sums and counts that add exactly over cases and sites, and what is
predicted and learnt with them.

Shapes: B patches, C classes with background, F channels, i j k feature grid, I J K label grid, P prototypes. Labels are classes, or
255 where nobody knows, which takes part in nothing. Features and labels of a patch cover the same space, on grids of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from raykd.numerics.feature_losses import match_grid
from raykd.numerics.segmentation_losses import UNKNOWN


def coverage(label_BIJK: Tensor, num_classes: int, shape: Sequence[int]) -> Tensor:
    """Share of every cell of a grid that is of each class: (B, C, i, j, k), summing to less than 1 where part is unknown."""
    known_BIJK = label_BIJK != UNKNOWN
    one_hot_BCIJK = (F.one_hot(label_BIJK * known_BIJK, num_classes) * known_BIJK[..., None]).movedim(-1, 1)
    return match_grid(one_hot_BCIJK.to(torch.float32), shape)


def cell_label(label_BIJK: Tensor, num_classes: int, shape: Sequence[int]) -> Tensor:
    """The class that covers most of every cell of a grid, 255 where half of it or more is unknown: (B, i, j, k)."""
    covered_BCijk = coverage(label_BIJK, num_classes, shape)
    return torch.where(covered_BCijk.sum(dim=1) > 0.5, covered_BCijk.argmax(dim=1), UNKNOWN)


@dataclass(frozen=True)
class ClassStatistics:
    """Mean and variance of features by class, from any number of cases and sites.

    Attributes:
        mean_CF: zero for a class without a cell.
        variance_CF: about that mean, over all cells (not one fewer).
        count_C: cells of the feature grid, partly covered ones in part.
    """

    mean_CF: Tensor
    variance_CF: Tensor
    count_C: Tensor

    @property
    def present_C(self) -> Tensor:
        """Which classes have been seen."""
        return self.count_C > 0

    def merge(self, other: ClassStatistics) -> ClassStatistics:
        """Of both together, exactly: M = M_a + M_b + (mean_b - mean_a)^2 n_a n_b / n (Chan, Golub and LeVeque, The American
        Statistician 37, 1983, https://doi.org/10.2307/2683386)."""
        count_C = self.count_C + other.count_C
        share_C1 = (other.count_C / count_C.clamp(min=1e-12))[:, None]
        difference_CF = other.mean_CF - self.mean_CF
        variance_CF = (1.0 - share_C1) * self.variance_CF + share_C1 * other.variance_CF
        between_CF = share_C1 * (1.0 - share_C1) * difference_CF.square()
        return ClassStatistics(self.mean_CF + share_C1 * difference_CF, variance_CF + between_CF, count_C)


def class_sums(feature_BFijk: Tensor, label_BIJK: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Masked sums of features (C, F) and counts of cells (C,), which add over batches, cases and sites; `class_means` of the totals
    are the prototypes of masked average pooling (PANet, Wang et al., ICCV 2019, https://arxiv.org/abs/1908.06391).

    The mask is averaged to the feature grid, where PANet interpolates features to the mask's: a cell counts by its coverage.
    """
    weight_BCijk = coverage(label_BIJK, num_classes, feature_BFijk.shape[2:]).to(feature_BFijk.dtype)
    return torch.einsum("bcijk,bfijk->cf", weight_BCijk, feature_BFijk), weight_BCijk.sum(dim=(0, 2, 3, 4))


def class_means(sums_CF: Tensor, count_C: Tensor) -> Tensor:
    """Prototypes (C, F); zero for a class without a cell."""
    return sums_CF / count_C.clamp(min=1e-12)[:, None] * (count_C > 0)[:, None]


def class_statistics(feature_BFijk: Tensor, label_BIJK: Tensor, num_classes: int) -> ClassStatistics:
    """Mean, variance and count of the features of every class."""
    weight_BCijk = coverage(label_BIJK, num_classes, feature_BFijk.shape[2:]).to(feature_BFijk.dtype)
    mean_CF = class_means(*class_sums(feature_BFijk, label_BIJK, num_classes))
    weight_CN, feature_NF = weight_BCijk.movedim(1, 0).flatten(1), feature_BFijk.movedim(1, -1).flatten(0, 3)
    squares = [w @ (feature_NF - mean).square() for w, mean in zip(weight_CN, mean_CF, strict=True)]
    count_C = weight_CN.sum(dim=1)
    return ClassStatistics(mean_CF, class_means(torch.stack(squares), count_C), count_C)


def cosine_logits(feature_BFijk: Tensor, prototype_PF: Tensor, *, scale: float = 20.0, present_P: Tensor | None = None) -> Tensor:
    """scale * cos(feature, prototype): (B, P, i, j, k).

    Args:
        scale: PANet's 20.
        present_P: where False, there is no prototype and the logit is minus infinity: never predicted.
    """
    unit_BFijk, unit_PF = F.normalize(feature_BFijk, dim=1), F.normalize(prototype_PF, dim=1)
    logits_BPijk = scale * torch.einsum("bfijk,pf->bpijk", unit_BFijk, unit_PF)
    if present_P is None:
        return logits_BPijk
    return logits_BPijk.masked_fill(~present_P[:, None, None, None], float("-inf"))


def prototype_contrastive_loss(
    feature_BFijk: Tensor, label_BIJK: Tensor, prototype_CF: Tensor, *, temperature: float = 0.1, present_C: Tensor | None = None
) -> Tensor:
    """Mean of -log softmax over classes of cos(feature, prototype) / temperature at the cell's own class: towards its prototype,
    away from the others (InfoNCE with prototypes, Li et al., ICLR 2021, https://arxiv.org/abs/2005.04966).

    Args:
        label_BIJK: a cell is of the class that covers most of it, and unknown where half of it or more is.
        prototype_CF: no gradient flows into it.
        temperature: > 0.
        present_C: classes that have a prototype; cells of others do not count. None: all.
    """
    num_classes = len(prototype_CF)
    present = torch.ones(num_classes, dtype=torch.bool, device=prototype_CF.device) if present_C is None else present_C
    covered_BCijk = coverage(label_BIJK, num_classes, feature_BFijk.shape[2:])
    class_Bijk = covered_BCijk.argmax(dim=1)
    counts_Bijk = (covered_BCijk.sum(dim=1) > 0.5) & present[class_Bijk]
    logits = cosine_logits(feature_BFijk, prototype_CF.detach(), scale=1.0 / temperature, present_P=present)
    target = torch.where(counts_Bijk, class_Bijk, UNKNOWN)
    return F.cross_entropy(logits, target, ignore_index=UNKNOWN, reduction="none").sum() / counts_Bijk.sum().clamp(min=1)


def episodic_loss(feature_BFijk: Tensor, label_BIJK: Tensor, num_classes: int, *, temperature: float = 0.05) -> Tensor:
    """The mean over patches of the prototype contrast of each against the prototypes of all the others: every patch is the query of
    the rest once, as PANet's alignment swaps the two (its scale of 20 is 1 / temperature). 0 where there is a single patch.

    Args:
        label_BIJK: classes; 255 is unknown.
        temperature: > 0.
    """
    total, num_patches = feature_BFijk.sum() * 0.0, len(feature_BFijk)
    for query in range(num_patches) if num_patches > 1 else ():
        rest = [index for index in range(num_patches) if index != query]
        sums_CF, count_C = class_sums(feature_BFijk[rest], label_BIJK[rest], num_classes)
        asked = feature_BFijk[query : query + 1], label_BIJK[query : query + 1]
        prototype_CF = class_means(sums_CF, count_C)
        total = total + prototype_contrastive_loss(*asked, prototype_CF, temperature=temperature, present_C=count_C > 0)
    return total / max(num_patches, 1)
