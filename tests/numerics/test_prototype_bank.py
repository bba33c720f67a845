"""Banks of prototypes, on maps of one channel or two and a voxel or two."""

from __future__ import annotations

import math

import pytest
import torch

from raykd.numerics.prototype_bank import bank_contrastive_loss, mean_prototypes, patch_prototypes
from raykd.numerics.prototypes import prototype_contrastive_loss


def test_every_patch_has_prototypes_of_its_own() -> None:
    """Patch 1: features 1, 3 of class 0 and 5 of class 1. Patch 2: one voxel unknown, the others class 2."""
    feature = torch.tensor([[1.0, 3.0, 5.0], [2.0, 4.0, 100.0]]).reshape(2, 1, 3, 1, 1)
    label = torch.tensor([[0, 0, 1], [2, 2, 255]]).reshape(2, 3, 1, 1)
    mean, count = patch_prototypes(feature, label, 3)
    assert mean[..., 0].tolist() == [[2.0, 5.0, 0.0], [0.0, 0.0, 3.0]]
    assert count.tolist() == [[2.0, 1.0, 0.0], [0.0, 0.0, 2.0]]


def test_a_sites_prototype_is_the_plain_mean_over_patches_that_hold_the_class() -> None:
    """Class 1 is in patches 1 and 3, whatever the number of its cells."""
    prototypes = torch.tensor([[[1.0], [2.0]], [[1.0], [0.0]], [[4.0], [6.0]]])
    mean, number = mean_prototypes(prototypes, torch.tensor([[1.0, 50.0], [1.0, 0.0], [2.0, 1.0]]))
    assert mean[:, 0].tolist() == [2.0, 4.0]
    assert number.tolist() == [3.0, 2.0]


def test_no_patches_have_no_prototypes() -> None:
    mean, number = mean_prototypes(torch.zeros(0, 3, 2), torch.zeros(0, 3))
    assert mean.tolist() == [[0.0, 0.0]] * 3
    assert number.tolist() == [0.0] * 3


def test_contrast_takes_the_mean_over_a_classs_prototypes() -> None:
    """A cell of class 0 at 0 degrees; prototypes of class 0 at 0 and 90 degrees, of class 1 at 180: with temperature 1
    e_0 = (e^1 + e^0) / 2, e_1 = e^-1."""
    feature = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1, 1)
    label = torch.zeros(1, 1, 1, 1, dtype=torch.long)
    bank = torch.tensor([[[2.0, 0.0], [-1.0, 0.0]], [[0.0, 3.0], [9.0, 9.0]]])
    count = torch.tensor([[4.0, 1.0], [1.0, 0.0]])
    near, far = (math.e + 1) / 2, math.exp(-1)
    found = bank_contrastive_loss(feature, label, bank, count, temperature=1.0)
    assert float(found) == pytest.approx(-math.log(near / (near + far)), rel=1e-5)


def test_one_prototype_a_class_is_the_contrast_with_class_prototypes() -> None:
    rng = torch.Generator().manual_seed(0)
    feature, prototypes = torch.randn(2, 5, 2, 2, 2, generator=rng), torch.randn(4, 5, generator=rng)
    label = torch.randint(0, 4, (2, 4, 4, 4), generator=rng)
    label[0, 0] = 255
    present = torch.tensor([True, True, False, True])
    expected = prototype_contrastive_loss(feature, label, prototypes, temperature=0.2, present_C=present)
    found = bank_contrastive_loss(feature, label, prototypes[None], present[None].float(), temperature=0.2)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_cells_of_unknown_or_absent_classes_do_not_count_and_gradients_are_finite() -> None:
    feature = torch.randn(1, 2, 2, 1, 1, requires_grad=True)
    label = torch.tensor([255, 2]).reshape(1, 2, 1, 1)
    loss = bank_contrastive_loss(feature, label, torch.ones(1, 3, 2), torch.tensor([[1.0, 1.0, 0.0]]))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert feature.grad is not None
    assert torch.isfinite(feature.grad).all()
