"""Conditional distillation on voxels of four classes, of which a site outlines class 2."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raykd.numerics.conditional_distillation import conditional_logits, conditional_loss, is_elsewhere


def _logits(*probs: tuple[float, ...]) -> Tensor:
    """One patch of voxels in a line, by their probabilities."""
    return torch.tensor(probs).log().T[None, :, :, None, None]


def test_conditional_probabilities_are_those_given_none_of_the_outlined_classes() -> None:
    """p = (0.2, 0.1, 0.6, 0.1): over 1 - 0.6 that is (0.5, 0.25, 0.25) of classes 0, 1, 3."""
    found = torch.softmax(conditional_logits(_logits((0.2, 0.1, 0.6, 0.1)), (2,), 1.0), dim=1)
    assert found.flatten().tolist() == pytest.approx([0.5, 0.25, 0.25])


def test_a_temperature_below_one_sharpens() -> None:
    """Squares of 0.5, 0.25, 0.25: 4 : 1 : 1."""
    found = torch.softmax(conditional_logits(_logits((0.2, 0.1, 0.6, 0.1)), (2,), 0.5), dim=1)
    assert found.flatten().tolist() == pytest.approx([4 / 6, 1 / 6, 1 / 6])


def test_voxels_of_outlined_classes_by_label_or_by_the_teacher_are_left_out() -> None:
    label = torch.tensor([0, 2, 0, 255, 255]).reshape(1, 5, 1, 1)
    sure = [(0.7, 0.1, 0.1, 0.1), (0.7, 0.1, 0.1, 0.1), (0.1, 0.1, 0.7, 0.1), (0.1, 0.7, 0.1, 0.1), (0.1, 0.1, 0.7, 0.1)]
    assert is_elsewhere(label, _logits(*sure), (2,)).flatten().tolist() == [True, False, False, True, False]


def test_loss_is_the_dice_of_conditional_probabilities_where_it_counts() -> None:
    """One voxel counts. Student (1/2, 1/4, 1/4), teacher (1/4, 1/2, 1/4) of classes 0, 1, 3. With 1 added above and below:
    class 1: 1 - (2/8 + 1) / (1/16 + 1/4 + 1); class 3: 1 - (2/16 + 1) / (1/16 + 1/16 + 1) = 0."""
    student = _logits((0.2, 0.1, 0.6, 0.1), (0.1, 0.6, 0.1, 0.2))
    teacher = _logits((0.2, 0.4, 0.2, 0.2), (0.3, 0.1, 0.3, 0.3))
    label = torch.tensor([0, 2]).reshape(1, 2, 1, 1)
    expected = (1 - 1.25 / 1.3125) / 2
    assert float(conditional_loss(student, teacher, label, (2,), 1.0)) == pytest.approx(expected, rel=1e-5)


def test_outlined_classes_get_no_gradient_and_agreement_is_a_minimum() -> None:
    teacher = _logits((0.4, 0.3, 0.1, 0.2))
    student = teacher.clone().requires_grad_(True)
    label = torch.zeros(1, 1, 1, 1, dtype=torch.long)
    loss = conditional_loss(student, teacher, label, (2,), 1.0)
    loss.backward()
    assert student.grad is not None
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
    assert float(student.grad.abs().max()) < 1e-6
    moved = (teacher + torch.tensor([0.0, 1.0, 5.0, 0.0]).reshape(1, 4, 1, 1, 1)).requires_grad_(True)
    conditional_loss(moved, teacher, label, (2,), 1.0).backward()
    assert moved.grad is not None
    assert float(moved.grad[0, 2]) == 0.0
    assert float(moved.grad[0, 1]) > 0.0
