"""What a student learns from a teacher's features. Shapes: B patches, F channels (T of the teacher, S of the student), i j k
feature grid.

Teacher and student may stand on different grids: `match_grid` brings the student's map to the teacher's by averaging or trilinear
interpolation before any loss. Only `channel_kl_loss` asks for the same number of channels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def match_grid(feature_BFijk: Tensor, shape: Sequence[int]) -> Tensor:
    """The map averaged along the axes where `shape` is coarser and trilinearly interpolated along those where it is finer."""
    averaged = tuple(min(new, old) for new, old in zip(shape, feature_BFijk.shape[2:], strict=True))
    feature_BFijk = average_pool(feature_BFijk, averaged)
    if averaged == tuple(shape):
        return feature_BFijk
    if feature_BFijk.is_cuda:
        return by_matrices(feature_BFijk, shape, interpolation)
    return F.interpolate(feature_BFijk, size=_edges(shape), mode="trilinear", align_corners=False)


def average_pool(feature_BFijk: Tensor, shape: Sequence[int]) -> Tensor:
    """Adaptive average pooling to a shape."""
    if tuple(feature_BFijk.shape[2:]) == tuple(shape):
        return feature_BFijk
    if feature_BFijk.is_cuda:
        return by_matrices(feature_BFijk, shape, averaging)
    return F.adaptive_avg_pool3d(feature_BFijk, _edges(shape))


def by_matrices(feature_BFijk: Tensor, shape: Sequence[int], weights: Callable[[int, int], Tensor]) -> Tensor:
    """The map resized by one product of matrices an axis. It is slower than torch's own kernels, whose gradients on a GPU add up in
    another order at every run.

    Args:
        shape: i, j, k.
        weights: `averaging` or `interpolation`.
    """
    for axis, (old, new) in enumerate(zip(feature_BFijk.shape[2:], shape, strict=True), start=2):
        if old != new:
            feature_BFijk = (feature_BFijk.movedim(axis, -1) @ weights(old, new).to(feature_BFijk)).movedim(-1, axis)
    return feature_BFijk


@functools.lru_cache(maxsize=64)
def averaging(old: int, new: int) -> Tensor:
    """What every old position gives to every new one along an axis, as adaptive average pooling has it: (old, new)."""
    return F.adaptive_avg_pool1d(torch.eye(old, dtype=torch.float64)[None], new)[0]


@functools.lru_cache(maxsize=64)
def interpolation(old: int, new: int) -> Tensor:
    """The same of linear interpolation between the centres of positions."""
    return F.interpolate(torch.eye(old, dtype=torch.float64)[None], new, mode="linear", align_corners=False)[0]


def _edges(shape: Sequence[int]) -> tuple[int, int, int]:
    i, j, k = shape
    return i, j, k


def channel_kl_loss(student_BFijk: Tensor, teacher_BFijk: Tensor, *, per_channel: bool = True) -> Tensor:
    """KL(a || b) of the softmax over channels, a teacher and b student, mean over positions (He et al., ISBI 2023).

    Args:
        per_channel: divide by the number of channels, as `reduction='mean'` of the reference code does.

    Raises:
        ValueError: different numbers of channels.
    """
    if student_BFijk.shape[1] != teacher_BFijk.shape[1]:
        raise ValueError(
            f"channel_kl needs as many student as teacher channels, got {student_BFijk.shape[1]} and {teacher_BFijk.shape[1]}; "
            "choose attention, pairwise or region_affinity"
        )
    student_BFijk = match_grid(student_BFijk, teacher_BFijk.shape[2:])
    log_a = torch.log_softmax(teacher_BFijk, dim=1)
    log_b = torch.log_softmax(student_BFijk, dim=1)
    divergence = (log_a.exp() * (log_a - log_b)).sum(dim=1).mean()
    return divergence / student_BFijk.shape[1] if per_channel else divergence


def attention_loss(student_BSijk: Tensor, teacher_BTijk: Tensor) -> Tensor:
    """Squared distance of the unit-length attention maps, the mean over channels of f^2 (Zagoruyko and Komodakis, ICLR 2017,
    https://arxiv.org/abs/1612.03928), summed over positions and averaged over patches: between 0 and 2 on any grid. Free of
    channels.
    """

    def attention(feature: Tensor) -> Tensor:
        return F.normalize(feature.square().mean(dim=1).flatten(1), dim=1)

    student = match_grid(student_BSijk, teacher_BTijk.shape[2:])
    return (attention(student) - attention(teacher_BTijk)).square().sum(dim=1).mean()


def pairwise_loss(student_BSijk: Tensor, teacher_BTijk: Tensor, nodes: tuple[int, int, int] = (2, 4, 4)) -> Tensor:
    """Mean squared difference of the cosine similarities between all pairs of pooled positions (structured knowledge distillation,
    Liu et al., CVPR 2019, https://arxiv.org/abs/1903.04197). Free of channels and of grids.

    Args:
        nodes: positions along I, J, K that both maps are average-pooled to.
    """

    def similarity(feature: Tensor) -> Tensor:
        unit = F.normalize(average_pool(feature, nodes).flatten(2), dim=1)
        return unit.transpose(1, 2) @ unit

    return (similarity(student_BSijk) - similarity(teacher_BTijk)).square().mean()


def region_affinity_loss(student_BSijk: Tensor, teacher_BTijk: Tensor, region_BLIJK: Tensor) -> Tensor:
    """Sum over pairs of classes of the squared difference of the cosines between class-mean features (EMKD's region affinity,
    Qin et al., IEEE TMI 2021, https://arxiv.org/abs/2108.09987), mean over patches. Free of channels and of grids.

    Args:
        region_BLIJK: membership of each voxel in each class, in [0, 1]; averaged to both feature grids. A class that is absent
            from a patch takes part in no pair of it.
    """

    present = region_BLIJK.flatten(2).sum(dim=2) >= 1.0
    pairs = torch.triu(present[:, :, None] & present[:, None, :], diagonal=1)
    difference = (region_cosines(student_BSijk, region_BLIJK) - region_cosines(teacher_BTijk, region_BLIJK)).square()
    return (difference * pairs).sum(dim=(1, 2)).mean()


def region_cosines(feature_BFijk: Tensor, region_BLIJK: Tensor) -> Tensor:
    """By patch, the cosines between the mean features of classes: (B, L, L).

    Args:
        region_BLIJK: membership of each voxel in each class, in [0, 1], averaged to the feature grid; an absent class has cosines
            that mean nothing.
    """
    weight = F.adaptive_avg_pool3d(region_BLIJK, _edges(feature_BFijk.shape[2:])).flatten(2)
    mean = torch.einsum("blp,bfp->blf", weight, feature_BFijk.flatten(2)) / weight.sum(dim=2, keepdim=True).clamp(min=1e-6)
    unit = F.normalize(mean, dim=2)
    return unit @ unit.transpose(1, 2)
