"""What a teacher knows in kilobytes instead of its weights, and what a student learns from it: statistics of classes in feature
space, cosines between classes, and soft labels with their few most probable classes.

Shapes: B patches, L classes with background, F channels, K classes kept, i j k feature grid, I J K voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from raykd.numerics.feature_losses import region_cosines
from raykd.numerics.prototypes import ClassStatistics, class_means, class_sums, coverage
from raykd.numerics.segmentation_losses import UNKNOWN


def comparable_label(label_BIJK: Tensor, known: Sequence[int] | None, annotated: Sequence[int] | None) -> Tensor:
    """A site's labels in the words of a teacher.

    Args:
        known: the foreground classes that the teacher was taught; others are background to it. None: all.
        annotated: those that the site outlines; where it leaves out one that the teacher knows, its background may be that class
            and becomes unknown (255). None: all.
    """
    if annotated is not None and (known is None or not set(known) <= set(annotated)):  # a full list is written None
        label_BIJK = label_BIJK.masked_fill(label_BIJK == 0, UNKNOWN)
    if known is None:
        return label_BIJK
    is_other = torch.isin(label_BIJK, label_BIJK.new_tensor([0, UNKNOWN, *known]), invert=True)
    return label_BIJK.masked_fill(is_other, 0)


def comparable_labels(label_BIJK: Tensor, known: Sequence[int] | None, annotated: Sequence[tuple[int, ...] | None]) -> Tensor:
    """`comparable_label` of patches, each with outlines of its own classes.

    Args:
        known: as for one label.
        annotated: by patch the foreground classes outlined in it; None: all.
    """
    if not len(label_BIJK):
        return label_BIJK
    pairs = zip(label_BIJK, annotated, strict=True)
    return torch.stack([comparable_label(label_IJK, known, own) for label_IJK, own in pairs])


def class_cosines(feature_BFijk: Tensor, label_BIJK: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """By patch, the cosines between the mean features of every pair of classes, and whether both have a voxel of it or more: two
    tensors (B, L (L - 1) / 2), pairs in the order of rows.
    """
    region_BLIJK = coverage(label_BIJK, num_classes, label_BIJK.shape[1:])
    present_BL = region_BLIJK.flatten(2).sum(dim=2) >= 1.0
    first, second = torch.triu_indices(num_classes, num_classes, offset=1)
    return region_cosines(feature_BFijk, region_BLIJK)[:, first, second], present_BL[:, first] & present_BL[:, second]


def affinity_loss(feature_BFijk: Tensor, label_BIJK: Tensor, cosine_P: Tensor, seen_P: Tensor, num_classes: int) -> Tensor:
    """Sum over pairs of classes of the squared difference of the cosine between their mean features from the teacher's mean cosine,
    mean over patches: EMKD's region affinity (Qin et al., IEEE TMI 2021, https://arxiv.org/abs/2108.09987) against numbers that
    were sent. Free of channels.

    Args:
        cosine_P: the teacher's, by pair, in the order of `class_cosines`.
        seen_P: pairs that the teacher met; others do not count.
    """
    cosine_BP, both_BP = class_cosines(feature_BFijk, label_BIJK, num_classes)
    return ((cosine_BP - cosine_P).square() * (both_BP & seen_P)).sum(dim=1).mean()


def alignment_loss(feature_BFijk: Tensor, label_BIJK: Tensor, teacher: ClassStatistics) -> Tensor:
    """Squared distance of the student's class means from the teacher's in units of the teacher's spread within the class, mean over
    channels and over classes that both have: (mu_S - mu_T)^2 / sigma_T^2.

    Args:
        feature_BFijk: with as many channels as the teacher's.
        teacher: its statistics by class. A variance counts as a hundredth of the mean variance at least.
    """
    sums_CF, count_C = class_sums(feature_BFijk, label_BIJK, len(teacher.count_C))
    floor = max(0.01 * float(teacher.variance_CF[teacher.present_C].mean()), 1e-6) if bool(teacher.present_C.any()) else 1.0
    distance_C = ((class_means(sums_CF, count_C) - teacher.mean_CF).square() / teacher.variance_CF.clamp(min=floor)).mean(dim=1)
    both_C = (count_C > 0) & teacher.present_C
    return (distance_C * both_C).sum() / both_C.sum().clamp(min=1)


def top_classes(probs_BLIJK: Tensor, num_kept: int) -> tuple[Tensor, Tensor]:
    """The largest probabilities of every voxel in half precision, and their classes as uint8: two tensors (B, K, I, J, K)."""
    values, classes = probs_BLIJK.topk(min(num_kept, probs_BLIJK.shape[1]), dim=1)
    return values.half(), classes.to(torch.uint8)


def from_top_classes(values_BKIJK: Tensor, classes_BKIJK: Tensor, num_classes: int) -> Tensor:
    """Probabilities (B, L, I, J, K) in float32 with what is left of one shared equally by the classes that were not kept."""
    kept, num_left = values_BKIJK.float(), num_classes - values_BKIJK.shape[1]
    left = (1.0 - kept.sum(dim=1, keepdim=True)).clamp(min=0.0) / max(num_left, 1)
    probs = left.expand(-1, num_classes, -1, -1, -1).scatter(1, classes_BKIJK.long(), kept)
    return probs / probs.sum(dim=1, keepdim=True)
