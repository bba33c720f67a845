"""What a student learns from a teacher's response: soft labels, and how sure the teacher is of them.

Shapes: B patches, L classes with background, I J K voxels. Teacher tensors carry no gradient. Every loss is a mean over voxels
of a sum over classes, so that weights mean the same on any grid.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sigmoid_ramp(step: float, num_steps: float) -> float:
    """exp(-5 (1 - min(step, num_steps) / num_steps)^2): from 0.0067 to 1 (Laine and Aila, ICLR 2017, https://arxiv.org/abs/1610.02242)."""
    progress = min(max(step, 0.0), num_steps) / num_steps
    return math.exp(-5.0 * (1.0 - progress) ** 2)


def entropy(probs_BLIJK: Tensor) -> Tensor:
    """-sum over classes of p ln(p + 1e-6), in nats: (B, I, J, K), between 0 and ln L."""
    return -(probs_BLIJK * torch.log(probs_BLIJK + 1e-6)).sum(dim=1)


def entropy_threshold(progress: float, num_classes: int) -> float:
    """The entropy below which a teacher's voxel is learnt from: (0.75 + 0.25 progress) ln(num_classes).

    Args:
        progress: the sigmoid ramp over the federation, in [0, 1].
        num_classes: of the maximum entropy. The reference code takes 2 whatever the number of classes (UA-MT's binary task),
            which is stricter; its text means the true number (Yu et al., MICCAI 2019, https://arxiv.org/abs/1907.07034).
    """
    return (0.75 + 0.25 * progress) * math.log(num_classes)


def _weighted_mean(values_BIJK: Tensor, weight_BIJK: Tensor | None) -> Tensor:
    if weight_BIJK is None:
        return values_BIJK.mean()
    return (values_BIJK * weight_BIJK).sum() / weight_BIJK.sum().clamp(min=1e-6)


def softmax_mse_loss(
    logits_BLIJK: Tensor, soft_label_BLIJK: Tensor, weight_BIJK: Tensor | None = None, normaliser: float | None = None
) -> Tensor:
    """Mean over weighted voxels of sum over classes of (p_student - p_teacher)^2 / normaliser.

    Args:
        weight_BIJK: weight or 0/1 mask of each voxel; None: all alike.
        normaliser: L when None; the reference code divides by 2, the classes of the task that it took the loss from.
    """
    squared_BIJK = (torch.softmax(logits_BLIJK, dim=1) - soft_label_BLIJK).square().sum(dim=1)
    return _weighted_mean(squared_BIJK, weight_BIJK) / (logits_BLIJK.shape[1] if normaliser is None else normaliser)


def kl_loss(logits_BLIJK: Tensor, soft_label_BLIJK: Tensor, weight_BIJK: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """temperature^2 times the mean over weighted voxels of KL(teacher || student), both softened (Hinton et al., 2015,
    https://arxiv.org/abs/1503.02531). The teacher's probabilities are softened as p^(1/T) / sum p^(1/T), which equals
    softening its logits.
    """
    target = soft_label_BLIJK.clamp(min=1e-8)
    if temperature != 1.0:
        target = torch.softmax(target.log() / temperature, dim=1)
    log_student = torch.log_softmax(logits_BLIJK / temperature, dim=1)
    divergence_BIJK = (target * (target.log() - log_student)).sum(dim=1)
    return temperature**2 * _weighted_mean(divergence_BIJK, weight_BIJK)


def soft_dice_loss(logits_BLIJK: Tensor, soft_label_BLIJK: Tensor, weight_BIJK: Tensor | None = None) -> Tensor:
    """1 - (2 sum(p q w) + 1) / (sum(p^2 w) + sum(q^2 w) + 1), mean over patches and foreground classes, p student, q teacher.

    The squares in the denominator make the loss smallest at p = q also where q is not 0 or 1 (V-Net's Dice, Milletari et al.,
    3DV 2016, https://arxiv.org/abs/1606.04797).
    """
    p, q = torch.softmax(logits_BLIJK, dim=1)[:, 1:], soft_label_BLIJK[:, 1:]
    w = torch.ones_like(p[:, :1]) if weight_BIJK is None else weight_BIJK[:, None]
    axes = (2, 3, 4)
    overlap = (p * q * w).sum(axes)
    return (1.0 - (2.0 * overlap + 1.0) / ((p * p * w).sum(axes) + (q * q * w).sum(axes) + 1.0)).mean()
