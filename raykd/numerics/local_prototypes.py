"""Several prototypes a class, one a window in mm, and the score of a voxel against them: what a large, varied class such as the
background needs (SSL-ALPNet, Ouyang et al., ECCV 2020, https://arxiv.org/abs/2007.09886).

Shapes: B patches, F channels, i j k feature grid, I J K label grid, P prototypes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from raykd.numerics.prototypes import class_means, class_sums, cosine_logits, coverage


def window_cells(window_mm: float, cell_mm: Sequence[float], shape: Sequence[int]) -> tuple[int, int, int]:
    """Cells of a cubic window along each axis, one at least and no more than there are: few across thick slices, many within.

    Args:
        window_mm: edge of the window.
        cell_mm: edges of a cell of the feature grid, voxel spacing times the layer's stride.
        shape: of the feature grid.
    """
    i, j, k = (min(max(round(window_mm / mm), 1), n) for mm, n in zip(cell_mm, shape, strict=True))
    return i, j, k


def local_prototypes(
    feature_BFijk: Tensor,
    label_BIJK: Tensor,
    class_index: int,
    num_classes: int,
    *,
    window_mm: float,
    cell_mm: Sequence[float],
    min_coverage: float = 0.95,
    with_mean: bool = False,
) -> Tensor:
    """Mean features of the windows that the class covers nearly whole: (P, F), none where the class is absent.

    Args:
        label_BIJK: classes; 255 is unknown and covers nothing.
        window_mm: edge of the windows, laid side by side; those at the far end may be smaller.
        cell_mm: edges of a cell of the feature grid along i, j, k.
        min_coverage: more of a window must be of the class. Where no window has that much, the class's mean is the one prototype.
        with_mean: add the class's mean in any case, which the paper does for foreground classes.
    """
    window = window_cells(window_mm, cell_mm, feature_BFijk.shape[2:])
    covered_Bijk = coverage(label_BIJK, num_classes, feature_BFijk.shape[2:])[:, class_index, None].to(feature_BFijk.dtype)
    pooled_BF, covered = (
        F.avg_pool3d(x, window, ceil_mode=True, count_include_pad=False).movedim(1, -1).flatten(0, 3)
        for x in (feature_BFijk, covered_Bijk)
    )
    local_PF = pooled_BF[covered[:, 0] > min_coverage]
    sums_CF, count_C = class_sums(feature_BFijk, label_BIJK, num_classes)
    if count_C[class_index] == 0 or (len(local_PF) and not with_mean):
        return local_PF
    return torch.cat([local_PF, class_means(sums_CF, count_C)[class_index, None]])


def local_cosine_logits(feature_BFijk: Tensor, prototypes: Sequence[Tensor], *, scale: float = 20.0) -> Tensor:
    """By class, the sum over its prototypes of softmax(s) s with s = scale * cos, a soft maximum: (B, C, i, j, k).

    Args:
        prototypes: (P, F) by class; a class with none has minus infinity and is never predicted.
    """
    scores = []
    for prototype_PF in prototypes:
        if len(prototype_PF) == 0:
            scores.append(torch.full_like(feature_BFijk[:, :1], float("-inf")))
            continue
        similarity_BPijk = cosine_logits(feature_BFijk, prototype_PF, scale=scale)
        scores.append((torch.softmax(similarity_BPijk, dim=1) * similarity_BPijk).sum(dim=1, keepdim=True))
    return torch.cat(scores, dim=1)
