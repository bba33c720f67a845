"""Labels that models give to voxels nobody outlined: 255 where they are not to be believed.

Shapes: B patches, L classes with background, I J K voxels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from raykd.numerics.response_losses import entropy
from raykd.numerics.segmentation_losses import UNKNOWN

SOURCE_CLASSES = 10
"""Classes of the task that the constants of class-balanced thresholds were set on."""


def foreground_prior(count_L: Tensor) -> Tensor:
    """pi, the share of each class among all foreground voxels, times the number of foreground classes over 10, which brings any
    number of classes to the scale of the source's constants; 0 for the background.

    With the background in it, whose share is nearly 1, every other class's prior would be nearly 0.
    """
    prior_L = count_L.double().clone()
    prior_L[0] = 0.0
    return prior_L / prior_L.sum().clamp(min=1e-12) * (len(count_L) - 1) / SOURCE_CLASSES


def class_thresholds(count_L: Tensor, base: float = 0.84, cap: float = 0.95) -> Tensor:
    """pi_c + base - std(pi), at most `cap`: the more frequent a class, the surer a pseudo-label of it must be; `cap` for the
    background (CBAFed, Li et al., CVPR 2023, https://github.com/minglllli/CBAFed).

    Args:
        count_L: voxels by class, of labels and pseudo-labels of all sites.
        base, cap: in [0, 1].
    """
    prior_L = foreground_prior(count_L)
    threshold_L = (prior_L + base - prior_L[1:].std(correction=0)).clamp(max=cap)
    threshold_L[0] = cap
    return threshold_L.float()


def rare_classes(count_L: Tensor, limit: float = 0.03) -> Tensor:
    """Foreground classes whose prior is below the limit; a class that nobody has seen yet is unknown, not rare."""
    return (foreground_prior(count_L) < limit) & (count_L > 0) & (torch.arange(len(count_L)) > 0)


def class_balanced_labels(probs_BLIJK: Tensor, threshold_L: Tensor, rare_L: Tensor) -> Tensor:
    """The most probable class where it passes its own threshold; elsewhere the second most probable where that is rare.

    Args:
        probs_BLIJK: of the model that labels; L >= 2.
        threshold_L: by class.
        rare_L: by class, whether it is accepted as second best.
    """
    probs_B2IJK, order_B2IJK = probs_BLIJK.topk(2, dim=1)
    first, second = order_B2IJK.unbind(dim=1)
    label = torch.where(rare_L[second], second, UNKNOWN)
    return torch.where(probs_B2IJK[:, 0] > threshold_L[first], first, label)


def agreed_labels(one_BLIJK: Tensor, other_BLIJK: Tensor) -> Tensor:
    """The class that two models both find most probable, given the scores of each."""
    label = one_BLIJK.argmax(dim=1)
    return torch.where(label == other_BLIJK.argmax(dim=1), label, UNKNOWN)


def certain_labels(one_BLIJK: Tensor, other_BLIJK: Tensor, threshold: float) -> Tensor:
    """The most probable class of the mean of two models' probabilities where the mean of their entropies, in nats, is at most the
    threshold (dual-teacher refinement, Deng et al., Medical Image Analysis, 2025, https://arxiv.org/abs/2501.07378).
    """
    mean_entropy = (entropy(one_BLIJK) + entropy(other_BLIJK)) / 2
    return torch.where(mean_entropy <= threshold, (one_BLIJK + other_BLIJK).argmax(dim=1), UNKNOWN)


def entropy_limit(entropy_BIJK: Tensor, share: float) -> float:
    """The entropy that a share of all voxels, in (0, 1], does not exceed; ties may make it more voxels."""
    values = entropy_BIJK.flatten()
    return float(values.kthvalue(max(math.ceil(share * len(values)), 1)).values)
