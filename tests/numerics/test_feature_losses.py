"""Losses on feature maps against their formulas in NumPy, and what they must not see: order and scale of channels, the grid."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from raykd.numerics.feature_losses import (
    attention_loss,
    averaging,
    by_matrices,
    channel_kl_loss,
    interpolation,
    match_grid,
    pairwise_loss,
    region_affinity_loss,
)
from raykd.numerics.rng import generator

GRID = (4, 8, 8)
NUM_CLASSES = 3
NODES = (2, 4, 4)


def feature(name: str, channels: int = 6, grid: tuple[int, int, int] = GRID, num_patches: int = 2) -> Tensor:
    return torch.randn((num_patches, channels, *grid), generator=generator(0, name), dtype=torch.float64)


def region(grid: tuple[int, int, int] = GRID, num_patches: int = 2) -> Tensor:
    """Soft memberships that sum to one."""
    drawn = torch.randn((num_patches, NUM_CLASSES, *grid), generator=generator(0, "region"), dtype=torch.float64)
    return torch.softmax(3 * drawn, dim=1)


def region_affinity(student: Tensor, teacher: Tensor) -> Tensor:
    return region_affinity_loss(student, teacher, region())


LOSSES = pytest.mark.parametrize("loss", [channel_kl_loss, attention_loss, pairwise_loss, region_affinity])
FREE_OF_CHANNELS = pytest.mark.parametrize("loss", [attention_loss, pairwise_loss, region_affinity])
Loss = Callable[[Tensor, Tensor], Tensor]


def blocks(x: np.ndarray, by: tuple[int, int, int]) -> np.ndarray:
    """Means over blocks of the last three axes."""
    i, j, k = (n // b for n, b in zip(x.shape[-3:], by, strict=True))
    return x.reshape(*x.shape[:-3], i, by[0], j, by[1], k, by[2]).mean(axis=(-5, -3, -1))


def test_a_coarser_grid_is_reached_by_averaging() -> None:
    fine = feature("fine")
    assert np.allclose(match_grid(fine, (2, 4, 2)).numpy(), blocks(fine.numpy(), (2, 2, 4)))


def test_a_finer_grid_is_reached_by_linear_interpolation() -> None:
    # Voxel centres of the fine grid lie at -1/4, 1/4, 3/4, 5/4 ... of the coarse one; beyond the outermost centres it is constant.
    coarse = torch.tensor([0.0, 4.0], dtype=torch.float64).reshape(1, 1, 1, 1, 2).expand(1, 1, 2, 2, 2)
    assert match_grid(coarse, (2, 2, 4))[0, 0, 0, 0].tolist() == [0.0, 1.0, 3.0, 4.0]


def test_the_same_grid_is_left_alone() -> None:
    same = feature("same")
    assert torch.equal(match_grid(same, GRID), same)


def test_a_grid_coarser_here_and_finer_there_is_averaged_here_and_interpolated_there() -> None:
    # 0, 4 along K as above; along I the four values 0, 1, 8, 3 have block means 1/2 and 11/2.
    along_i = torch.tensor([0.0, 1.0, 8.0, 3.0], dtype=torch.float64).reshape(1, 1, 4, 1, 1)
    along_k = torch.tensor([0.0, 4.0], dtype=torch.float64).reshape(1, 1, 1, 1, 2)
    matched = match_grid((along_i + along_k).expand(1, 1, 4, 2, 2), (2, 2, 4))
    assert matched[0, 0, :, 0].tolist() == [[0.5, 1.5, 3.5, 4.5], [5.5, 6.5, 8.5, 9.5]]


@pytest.mark.parametrize("shape", [(4, 4, 4), (3, 11, 8), (16, 8, 5), (9, 20, 8), (1, 1, 1)])
@pytest.mark.parametrize("weights", [averaging, interpolation])
def test_matrices_resize_as_torch_does(weights: Callable[[int, int], Tensor], shape: tuple[int, int, int]) -> None:
    given = feature("given", 3, (8, 10, 8)).requires_grad_()
    if weights is averaging:
        there = F.adaptive_avg_pool3d(given, shape)
    else:
        there = F.interpolate(given, shape, mode="trilinear", align_corners=False)
    results = [there, by_matrices(given, shape, weights)]
    slopes = [torch.autograd.grad(result.square().sum(), given)[0] for result in results]
    np.testing.assert_allclose(results[1].detach(), results[0].detach(), atol=1e-6)
    np.testing.assert_allclose(slopes[1], slopes[0], atol=1e-5)


def test_channel_kl_is_its_formula() -> None:
    student, teacher = feature("student"), feature("teacher")
    a, b = (np.exp(x.numpy()) / np.exp(x.numpy()).sum(axis=1, keepdims=True) for x in (teacher, student))
    per_position = (a * np.log(a / b)).sum(axis=1)
    assert float(channel_kl_loss(student, teacher, per_channel=False)) == pytest.approx(per_position.mean(), rel=1e-9)
    # `reduction='mean'` of the reference code is the mean over all elements.
    assert float(channel_kl_loss(student, teacher)) == pytest.approx((a * np.log(a / b)).mean(), rel=1e-9)


@pytest.mark.parametrize("channels", [6, 64])
def test_per_channel_divides_channel_kl_by_the_number_of_channels(channels: int) -> None:
    # METHODS.md A5, item 3: the ratio is 64 for 64 channels.
    student, teacher = feature("student", channels), feature("teacher", channels)
    ratio = channel_kl_loss(student, teacher, per_channel=False) / channel_kl_loss(student, teacher)
    assert float(ratio) == pytest.approx(channels)


def test_channel_kl_refuses_different_numbers_of_channels_and_says_what_to_choose() -> None:
    with pytest.raises(ValueError, match="got 6 and 8; choose attention, pairwise or region_affinity"):
        channel_kl_loss(feature("student", 6), feature("teacher", 8))


def test_channel_kl_does_not_see_what_is_added_to_all_channels() -> None:
    student, teacher = feature("student"), feature("teacher")
    assert float(channel_kl_loss(student + 2.0, teacher - 1.0)) == pytest.approx(float(channel_kl_loss(student, teacher)), rel=1e-9)


def test_attention_is_its_formula() -> None:
    student, teacher = feature("student", 4), feature("teacher", 6)
    squared = []
    for s, t in zip(student.numpy(), teacher.numpy(), strict=True):
        s, t = (s**2).mean(axis=0).ravel(), (t**2).mean(axis=0).ravel()
        squared.append(((s / np.linalg.norm(s) - t / np.linalg.norm(t)) ** 2).sum())
    assert float(attention_loss(student, teacher)) == pytest.approx(np.mean(squared), rel=1e-9)


def test_attention_at_different_places_is_two_on_any_grid() -> None:
    # Two unit vectors without a common position: |a|^2 + |b|^2 = 2.
    for grid in (GRID, (2, 2, 2)):
        student, teacher = torch.zeros(1, 2, *grid), torch.zeros(1, 2, *grid)
        student[:, :, 0, 0, 0], teacher[:, :, 1, 1, 1] = 1.0, 5.0
        assert float(attention_loss(student, teacher)) == pytest.approx(2.0)


def test_pairwise_is_its_formula() -> None:
    student, teacher = feature("student", 4), feature("teacher", 6)
    squared = []
    for s, t in zip(student.numpy(), teacher.numpy(), strict=True):
        cosines = []
        for x in (s, t):
            nodes = blocks(x, (2, 2, 2)).reshape(len(x), -1)
            norm = np.linalg.norm(nodes, axis=0)
            cosines.append(nodes.T @ nodes / np.outer(norm, norm))
        squared.append(((cosines[0] - cosines[1]) ** 2).mean())
    assert float(pairwise_loss(student, teacher, NODES)) == pytest.approx(np.mean(squared), rel=1e-9)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def region_affinity_by_hand(student: np.ndarray, teacher: np.ndarray, membership: np.ndarray) -> float:
    """One patch on one grid: class means, their cosines, and squared differences over pairs of the classes given."""
    means = [[(m * x).sum(axis=(1, 2, 3)) / m.sum() for m in membership] for x in (student, teacher)]
    pairs = itertools.combinations(range(len(membership)), 2)
    return sum((cosine(means[0][c], means[0][d]) - cosine(means[1][c], means[1][d])) ** 2 for c, d in pairs)


def test_region_affinity_is_its_formula() -> None:
    student, teacher, membership = feature("student", 4), feature("teacher", 6), region()
    each = [region_affinity_by_hand(s, t, m) for s, t, m in zip(student.numpy(), teacher.numpy(), membership.numpy(), strict=True)]
    assert float(region_affinity_loss(student, teacher, membership)) == pytest.approx(np.mean(each), rel=1e-9)


def test_region_affinity_averages_memberships_to_each_network_s_own_grid() -> None:
    membership = region((8, 16, 16), num_patches=1)
    student, teacher = feature("student", 4, (4, 8, 8), 1), feature("teacher", 6, (2, 8, 4), 1)
    s_mean, t_mean = (
        [(m * x).sum(axis=(1, 2, 3)) / m.sum() for m in blocks(membership[0].numpy(), by)]
        for x, by in ((student[0].numpy(), (2, 2, 2)), (teacher[0].numpy(), (4, 2, 4)))
    )
    expected = sum(
        (cosine(s_mean[c], s_mean[d]) - cosine(t_mean[c], t_mean[d])) ** 2 for c, d in itertools.combinations(range(NUM_CLASSES), 2)
    )
    assert float(region_affinity_loss(student, teacher, membership)) == pytest.approx(expected, rel=1e-9)


def test_a_class_that_is_absent_from_a_patch_takes_part_in_no_pair_of_it() -> None:
    student, teacher, membership = feature("student"), feature("teacher"), region()
    membership[0, 0] += membership[0, 2]
    membership[0, 2] = 0.0
    each = [
        region_affinity_by_hand(student[0].numpy(), teacher[0].numpy(), membership[0, :2].numpy()),
        region_affinity_by_hand(student[1].numpy(), teacher[1].numpy(), membership[1].numpy()),
    ]
    assert float(region_affinity_loss(student, teacher, membership)) == pytest.approx(np.mean(each), rel=1e-9)


def test_a_patch_of_a_single_class_has_no_pair_and_no_loss() -> None:
    only_background = torch.zeros(2, NUM_CLASSES, *GRID, dtype=torch.float64)
    only_background[:, 0] = 1.0
    student = feature("student").requires_grad_()
    loss = region_affinity_loss(student, feature("teacher"), only_background)
    loss.backward()
    assert loss.item() == 0.0 and student.grad is not None and not student.grad.any()


@LOSSES
def test_a_student_with_the_teacher_s_features_loses_nothing(loss: Loss) -> None:
    teacher = feature("teacher")
    assert float(loss(teacher.clone(), teacher)) == pytest.approx(0.0, abs=1e-12)


@FREE_OF_CHANNELS
def test_the_order_of_channels_does_not_matter(loss: Loss) -> None:
    student, teacher = feature("student"), feature("teacher")
    assert float(loss(student[:, [3, 0, 5, 1, 4, 2]], teacher)) == pytest.approx(float(loss(student, teacher)), rel=1e-9)
    assert float(loss(teacher[:, [3, 0, 5, 1, 4, 2]], teacher)) == pytest.approx(0.0, abs=1e-12)


@FREE_OF_CHANNELS
def test_the_scale_of_features_does_not_matter(loss: Loss) -> None:
    student, teacher = feature("student"), feature("teacher")
    assert float(loss(7.0 * student, 0.3 * teacher)) == pytest.approx(float(loss(student, teacher)), rel=1e-9)


@FREE_OF_CHANNELS
def test_student_and_teacher_may_have_different_channels_and_grids(loss: Loss) -> None:
    assert float(loss(feature("student", 4, (4, 8, 8)), feature("teacher", 6, (2, 4, 4)))) > 0


@FREE_OF_CHANNELS
def test_a_teacher_with_doubled_channels_teaches_the_same(loss: Loss) -> None:
    student, teacher = feature("student"), feature("teacher")
    doubled = torch.cat([teacher, teacher], dim=1)
    assert float(loss(student, doubled)) == pytest.approx(float(loss(student, teacher)), rel=1e-9)


@LOSSES
def test_only_the_student_gets_a_gradient_and_a_step_down_it_lowers_the_loss(loss: Loss) -> None:
    student, teacher = feature("student").requires_grad_(), feature("teacher")
    before = loss(student, teacher)
    before.backward()
    assert student.grad is not None and bool(student.grad.any()) and teacher.grad is None
    step = 0.1 / float(student.grad.norm())
    with torch.no_grad():
        assert loss(student - step * student.grad, teacher).item() < before.item()


@LOSSES
def test_the_loss_is_a_mean_over_patches(loss: Loss) -> None:
    student, teacher = feature("student"), feature("teacher")
    # The memberships of a patch belong to its place in the batch, so that patches are repeated in theirs.
    if loss is region_affinity:
        each = [region_affinity_loss(student[b : b + 1], teacher[b : b + 1], region()[b : b + 1]) for b in range(2)]
    else:
        each = [loss(student[b : b + 1], teacher[b : b + 1]) for b in range(2)]
    assert float(loss(student, teacher)) == pytest.approx(float(sum(each)) / 2, rel=1e-9)
