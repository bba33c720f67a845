"""What a student learns from a teacher's response: soft labels, and how sure the teacher is of them.

Shapes: B patches, L classes with background, I J K voxels. Teacher tensors carry no gradient. Every loss is a mean over voxels
of a sum over classes, but for `channel_wise_loss`, a mean over classes of a sum over voxels whose shares sum to one: weights mean
the same on any grid.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from raykd.numerics.segmentation_losses import UNKNOWN


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


def most_certain(entropy_BIJK: Tensor, share: float) -> Tensor:
    """1 at the `share` of all voxels with the lowest entropy, 0 elsewhere; ties at the limit are all kept (U2PL keeps 80 %; Wang et
    al., CVPR 2022, https://arxiv.org/abs/2203.03884).

    Args:
        entropy_BIJK: the teacher's, in nats.
        share: of the voxels of all patches together, in (0, 1].

    Raises:
        ValueError: a share outside (0, 1].
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    limit = entropy_BIJK.flatten().kthvalue(math.ceil(share * entropy_BIJK.numel())).values
    return (entropy_BIJK <= limit).to(entropy_BIJK.dtype)


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


def decoupled_loss(
    logits_BLIJK: Tensor,
    soft_label_BLIJK: Tensor,
    weight_BIJK: Tensor | None = None,
    temperature: float = 4.0,
    *,
    target_weight: float = 1.0,
    non_target_weight: float = 2.0,
    label_BIJK: Tensor | None = None,
) -> Tensor:
    """temperature^2 times the mean over weighted voxels of alpha TCKD + beta NCKD, decoupled knowledge distillation (DKD, Zhao et
    al., CVPR 2022, https://arxiv.org/abs/2203.08679).

    TCKD is the KL divergence of (p_y, 1 - p_y), how sure the teacher is of the target class y; NCKD that of the other classes among
    themselves. With beta = 1 - p_y of the softened teacher their sum would be the KL divergence; with two classes NCKD is zero.
    Where the teacher leaves less than 1e-6 to the other classes it says nothing about them, and NCKD does not count.

    Args:
        weight_BIJK: weight or 0/1 mask of each voxel; None: all alike.
        target_weight: alpha.
        non_target_weight: beta; the paper's 8 is for a hundred classes and more.
        label_BIJK: y, 255 where nobody knows; there, and for None, y is the teacher's most probable class.
    """
    target_BIJK = soft_label_BLIJK.argmax(dim=1)
    if label_BIJK is not None:
        target_BIJK = torch.where(label_BIJK == UNKNOWN, target_BIJK, label_BIJK)
    target = target_BIJK[:, None]
    is_target = torch.zeros_like(soft_label_BLIJK, dtype=torch.bool).scatter(1, target, True)
    log_t = torch.log_softmax(soft_label_BLIJK.clamp(min=1e-8).log() / temperature, dim=1)
    log_s = torch.log_softmax(logits_BLIJK / temperature, dim=1)
    rest_t, rest_s = (x.masked_fill(is_target, -math.inf).logsumexp(dim=1, keepdim=True) for x in (log_t, log_s))
    tckd = log_t.gather(1, target).exp() * (log_t - log_s).gather(1, target) + rest_t.exp() * (rest_t - rest_s)
    among_rest = (log_t - rest_t).exp() * (log_t - rest_t - log_s + rest_s)
    speaks_BIJK = soft_label_BLIJK.masked_fill(is_target, 0.0).sum(dim=1) > 1e-6
    nckd_BIJK = among_rest.masked_fill(is_target, 0.0).sum(dim=1) * speaks_BIJK
    return temperature**2 * _weighted_mean(target_weight * tckd[:, 0] + non_target_weight * nckd_BIJK, weight_BIJK)


def channel_wise_loss(
    logits_BLIJK: Tensor, soft_label_BLIJK: Tensor, weight_BIJK: Tensor | None = None, temperature: float = 4.0
) -> Tensor:
    """temperature^2 times the mean over patches and classes of KL(teacher || student) of the softmax over all voxels of a class's
    channel: where in the patch the class is, rather than how probable (CWD, Shu et al., ICCV 2021,
    https://arxiv.org/abs/2011.13256, which weighs this term 3 at temperature 4).

    Channels are log-probabilities on both sides, because a soft label keeps logits only up to a constant of each voxel.

    Args:
        soft_label_BLIJK: a class that has less than a voxel's worth in a patch does not count there.
        weight_BIJK: factor of each voxel's share in either softmax; 0 leaves the voxel out. None: all alike.
    """
    log_t = soft_label_BLIJK.clamp(min=1e-8).log().flatten(2) / temperature
    log_s = torch.log_softmax(logits_BLIJK, dim=1).flatten(2) / temperature
    weight = torch.ones_like(log_t[:, :1]) if weight_BIJK is None else weight_BIJK.flatten(1)[:, None]
    log_weight = weight.clamp(min=1e-30).log()
    log_t, log_s = (x - (x + log_weight).logsumexp(dim=2, keepdim=True) for x in (log_t, log_s))
    divergence_BL = (weight * log_t.exp() * (log_t - log_s)).sum(dim=2)
    counts_BL = ((soft_label_BLIJK.flatten(2) * (weight > 0)).sum(dim=2) >= 1.0).to(divergence_BL.dtype)
    return temperature**2 * (divergence_BL * counts_BL).sum() / counts_BL.sum().clamp(min=1.0)


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
