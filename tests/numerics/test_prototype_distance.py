"""Distances from prototypes, by hand on rows of a few cells."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raykd.numerics.prototype_distance import prototype_distance_loss

ALL = torch.tensor([True, True, True])
PROTOTYPES = torch.tensor([[0.0, 0.0], [1.0, 2.0], [9.0, 9.0]])


def _cells(*cells: tuple[float, float]) -> Tensor:
    """Features of two channels along K: (1, 2, 1, 1, K)."""
    return torch.tensor(cells).T.reshape(1, 2, 1, 1, -1)


def _labels(*classes: int) -> Tensor:
    return torch.tensor(classes).view(1, 1, 1, -1)


def test_every_class_weighs_alike_however_many_cells_it_has() -> None:
    """Background: (4 + 0) / 2 = 2, 0 and 1 in three cells, mean 1; class 1: (1 + 4) / 2 = 2.5 in one."""
    features = _cells((2.0, 0.0), (0.0, 0.0), (1.0, 1.0), (0.0, 0.0))
    assert float(prototype_distance_loss(features, _labels(0, 0, 0, 1), PROTOTYPES, ALL)) == pytest.approx((1.0 + 2.5) / 2)


def test_a_class_without_a_prototype_and_an_unknown_voxel_do_not_count() -> None:
    features = _cells((5.0, 5.0), (1.0, 2.0), (7.0, 7.0), (3.0, 2.0))
    present = torch.tensor([False, True, True])
    assert float(prototype_distance_loss(features, _labels(0, 1, 255, 1), PROTOTYPES, present)) == pytest.approx((0 + 2.0) / 2)


def test_a_cell_counts_for_its_classes_by_coverage() -> None:
    """Two cells over four voxels: the first is half of class 0 (distance 0.5) and half of class 1 (2), the second all 1 (0).
    Class 1: (0.5 x 2 + 1 x 0) / 1.5."""
    features = _cells((1.0, 0.0), (1.0, 2.0))
    loss = prototype_distance_loss(features, _labels(0, 1, 1, 1), PROTOTYPES, ALL)
    assert float(loss) == pytest.approx((0.5 + 1.0 / 1.5) / 2)


def test_nothing_to_compare_is_zero_and_has_a_gradient() -> None:
    features = _cells((1.0, 2.0)).requires_grad_(True)
    loss = prototype_distance_loss(features, _labels(255), PROTOTYPES, ALL)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert features.grad is not None and not features.grad.any()


def test_features_move_and_prototypes_do_not() -> None:
    """d/df of mean over two channels of (f - c)^2 is f - c."""
    features, prototypes = _cells((3.0, 2.0)).requires_grad_(True), PROTOTYPES.clone().requires_grad_(True)
    prototype_distance_loss(features, _labels(1), prototypes, ALL).backward()
    assert features.grad is not None and features.grad.flatten().tolist() == [2.0, 0.0]
    assert prototypes.grad is None
