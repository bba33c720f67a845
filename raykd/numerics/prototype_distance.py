"""How far features are from their classes' prototypes. Shapes: B patches, C classes with background, F channels, i j k feature
grid, I J K label grid.
"""

from __future__ import annotations

from torch import Tensor

from raykd.numerics.prototypes import coverage


def prototype_distance_loss(feature_BFijk: Tensor, label_BIJK: Tensor, prototype_CF: Tensor, present_C: Tensor) -> Tensor:
    """Mean over classes of the mean over a class's cells of the squared difference from its prototype, itself a mean over channels
    (FedProto, Tan et al., AAAI 2022, https://arxiv.org/abs/2105.00243, whose samples have one class each).

    Every class weighs alike, or the background would be nearly all of it.

    Args:
        label_BIJK: a cell counts for a class by its coverage; 255 is unknown and counts nowhere.
        prototype_CF: no gradient flows into it.
        present_C: which classes have a prototype; others do not count.
    """
    shape = feature_BFijk.shape[2:]
    weight_BCijk = coverage(label_BIJK, len(prototype_CF), shape) * present_C[:, None, None, None]
    difference_BCFijk = feature_BFijk[:, None] - prototype_CF.detach()[:, :, None, None, None]
    count_C = weight_BCijk.sum(dim=(0, 2, 3, 4))
    distance_C = (weight_BCijk * difference_BCFijk.square().mean(dim=2)).sum(dim=(0, 2, 3, 4)) / count_C.clamp(min=1e-6)
    return distance_C.sum() / (count_C > 0).sum().clamp(min=1)
