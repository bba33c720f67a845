"""Losses on relations within features, against their definitions written out in NumPy with full kernel matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from raykd.numerics.relation_losses import cka_loss, intra_class_loss
from raykd.numerics.rng import generator

GRID = (3, 4, 5)
NUM_CLASSES = 3
Loss = Callable[[Tensor, Tensor], Tensor]


def feature(name: str, channels: int = 6, grid: tuple[int, int, int] = GRID, num_patches: int = 2) -> Tensor:
    return torch.randn((num_patches, channels, *grid), generator=generator(0, name), dtype=torch.float64)


def region(grid: tuple[int, int, int] = GRID) -> Tensor:
    drawn = torch.randn((2, NUM_CLASSES, *grid), generator=generator(0, "region"), dtype=torch.float64)
    return torch.softmax(3 * drawn, dim=1)


def intra_class(student: Tensor, teacher: Tensor) -> Tensor:
    return intra_class_loss(student, teacher, region())


def cka_debiased(student: Tensor, teacher: Tensor) -> Tensor:
    return cka_loss(student, teacher, debiased=True)


LOSSES = pytest.mark.parametrize("loss", [intra_class, cka_loss, cka_debiased])
CKAS = pytest.mark.parametrize("loss", [cka_loss, cka_debiased])


def rows(x: Tensor) -> np.ndarray:
    """Positions by channels."""
    return x.numpy().transpose(0, 2, 3, 4, 1).reshape(-1, x.shape[1])


def test_intra_class_is_its_formula() -> None:
    student, teacher = feature("student", 4), feature("teacher", 6)
    label = region().argmax(dim=1).numpy()
    squared = []
    for b in range(2):
        for at in np.ndindex(GRID):
            cosines = []
            for x in (student[b].numpy(), teacher[b].numpy()):
                centre = x[:, label[b] == label[b][at]].mean(axis=1)
                here = x[(slice(None), *at)]
                cosines.append(here @ centre / np.linalg.norm(here) / np.linalg.norm(centre))
            squared.append((cosines[0] - cosines[1]) ** 2)
    assert float(intra_class_loss(student, teacher, region())) == pytest.approx(np.mean(squared), rel=1e-9)


def test_intra_class_takes_the_class_that_covers_most_of_a_position_of_a_coarser_map() -> None:
    """One position, one patch: whatever its class, the feature is its class's mean and the cosine is 1 on both sides."""
    lone = intra_class_loss(feature("student", 4, (1, 1, 1)), feature("teacher", 6, (1, 1, 1)), region())
    assert float(lone) == pytest.approx(0.0, abs=1e-12)
    # Two positions of one class though a few fine voxels are of another: the second class must draw no centre of its own.
    fine = torch.zeros(1, 2, 2, 2, 4, dtype=torch.float64)
    fine[:, 0], fine[:, 0, 0, 0, 0], fine[:, 1, 0, 0, 0] = 1.0, 0.0, 1.0
    student, teacher = feature("student", 4, (1, 1, 2), 1), feature("teacher", 6, (1, 1, 2), 1)
    all_first = torch.zeros_like(fine)
    all_first[:, 0] = 1.0
    expected = float(intra_class_loss(student, teacher, all_first))
    assert float(intra_class_loss(student, teacher, fine)) == pytest.approx(expected) and expected > 0


def test_cka_is_its_formula() -> None:
    """||Y'X||^2 / (||X'X|| ||Y'Y||) of centred columns, Kornblith et al., equation 3 and below."""
    student, teacher = feature("student", 4), feature("teacher", 6)
    x, y = (rows(f) - rows(f).mean(axis=0) for f in (student, teacher))
    cka = np.linalg.norm(y.T @ x) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
    assert float(cka_loss(student, teacher)) == pytest.approx(1 - cka, rel=1e-9)


def unbiased_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al., equation 5, with both kernel matrices written out."""
    n, one = len(x), np.ones(len(x))
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0.0)
    np.fill_diagonal(m, 0.0)
    middle = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return float((np.trace(k @ m) + middle - 2 / (n - 2) * one @ k @ m @ one) / (n * (n - 3)))


def test_debiased_cka_is_its_formula_on_features_that_were_not_centred() -> None:
    student, teacher = feature("student", 4) + 0.5, feature("teacher", 6) * 2.0 - 1.0
    x, y = rows(student), rows(teacher)
    expected = unbiased_hsic(x, y) / np.sqrt(unbiased_hsic(x, x) * unbiased_hsic(y, y))
    assert float(cka_debiased(student, teacher)) == pytest.approx(1 - expected, rel=1e-9)


def test_independent_features_of_few_positions_look_alike_to_plain_cka_alone() -> None:
    """Mean over 40 pairs of 12 positions with 30 channels: plain CKA is high though nothing is shared, debiased CKA is about 0."""
    pairs = [(feature(f"x{i}", 30, (1, 3, 4), 1), feature(f"y{i}", 30, (1, 3, 4), 1)) for i in range(40)]
    plain, debiased = (1 - np.mean([float(loss(x, y)) for x, y in pairs]) for loss in (cka_loss, cka_debiased))
    assert plain > 0.6 and abs(debiased) < 0.05


def test_debiased_cka_of_three_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="four positions or more, got 3"):
        cka_debiased(feature("student", 4, (1, 1, 3), 1), feature("teacher", 6, (1, 1, 3), 1))


@CKAS
def test_cka_does_not_see_rotation_scale_or_offset_of_channels(loss: Loss) -> None:
    student, teacher = feature("student"), feature("teacher")
    rotation = torch.linalg.qr(torch.randn((6, 6), generator=generator(0, "rotation"), dtype=torch.float64)).Q
    turned = 3.0 * torch.einsum("bfijk,fg->bgijk", teacher, rotation) + 2.0
    assert float(loss(student, turned)) == pytest.approx(float(loss(student, teacher)), rel=1e-9)
    assert float(loss(turned, teacher)) == pytest.approx(0.0, abs=1e-9)


@CKAS
def test_constant_features_are_unlike_any_and_give_no_gradient_that_is_not_a_number(loss: Loss) -> None:
    flat = torch.ones(2, 4, *GRID, dtype=torch.float64, requires_grad=True)
    value = loss(flat, feature("teacher"))
    value.backward()
    assert value.item() == pytest.approx(1.0) and flat.grad is not None and bool(flat.grad.isfinite().all())


@LOSSES
def test_a_student_with_the_teacher_s_features_loses_nothing(loss: Loss) -> None:
    assert float(loss(feature("teacher"), feature("teacher"))) == pytest.approx(0.0, abs=1e-9)


@LOSSES
def test_the_order_and_scale_of_channels_do_not_matter(loss: Loss) -> None:
    student, teacher = feature("student"), feature("teacher")
    assert float(loss(7.0 * student[:, [3, 0, 5, 1, 4, 2]], teacher)) == pytest.approx(float(loss(student, teacher)), rel=1e-9)


@LOSSES
def test_a_finer_student_is_averaged_to_the_teacher_s_grid(loss: Loss) -> None:
    """Each value of a coarse map repeated in a block of 2 x 1 x 3 voxels comes back as it was."""
    student, teacher = feature("student", 4), feature("teacher", 6)
    fine = student.repeat_interleave(2, dim=2).repeat_interleave(3, dim=4)
    assert float(loss(fine, teacher)) == pytest.approx(float(loss(student, teacher)), rel=1e-9)


@LOSSES
def test_a_step_down_the_gradient_lowers_the_loss(loss: Loss) -> None:
    student, teacher = feature("student").requires_grad_(), feature("teacher")
    before = loss(student, teacher)
    before.backward()
    assert student.grad is not None and bool(student.grad.any())
    with torch.no_grad():
        assert loss(student - 0.1 * student.grad / student.grad.norm(), teacher).item() < before.item()


@LOSSES
def test_the_gradient_is_the_slope(loss: Loss) -> None:
    student, teacher = feature("student", 2).requires_grad_(), feature("teacher", 3)
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), student, fast_mode=True)
