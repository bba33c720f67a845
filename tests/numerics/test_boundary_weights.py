"""Weights near boundaries, in mm, and of small classes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from raykd.numerics.boundary import Emphasis, boundary_distance_mm, boundary_weight, class_balance_weight, patch_boundary_weight
from raykd.numerics.rng import generator

UNKNOWN = 255
SPACING_MM = (4.5, 0.5, 0.75)


def labels(num_classes: int = 3, shape: tuple[int, int, int] = (3, 4, 5)) -> Tensor:
    return torch.randint(num_classes, shape, generator=generator(0, "labels"))


def nearest_other_mm(label: np.ndarray) -> np.ndarray:
    """By trying all pairs of voxels."""
    distance = np.full(label.shape, np.inf)
    for a, b in itertools.product(np.ndindex(label.shape), repeat=2):
        if label[a] != label[b] and UNKNOWN not in (label[a], label[b]):
            distance[a] = min(distance[a], math.dist(np.multiply(a, SPACING_MM), np.multiply(b, SPACING_MM)))
    return distance


def test_the_distance_is_that_to_the_nearest_voxel_of_another_class_in_mm() -> None:
    label = labels()
    label[0] = 0  # so that some distances span more than a voxel
    distance = boundary_distance_mm(label, SPACING_MM)
    assert np.allclose(distance.numpy(), nearest_other_mm(label.numpy()))
    assert len(set(distance.unique().tolist())) > 3


def test_small_structures_away_from_one_another_are_measured_to_their_own_surroundings() -> None:
    label = torch.zeros(4, 6, 7, dtype=torch.long)
    label[1:3, 1:4, 1:4], label[1:3, 4, 1:4], label[3, 5, 6] = 1, 2, 3
    assert np.allclose(boundary_distance_mm(label, SPACING_MM).numpy(), nearest_other_mm(label.numpy()))


def test_what_is_unknown_bounds_nothing_and_lies_nowhere() -> None:
    label = labels()
    label[1, 1:3] = UNKNOWN
    assert np.allclose(boundary_distance_mm(label, SPACING_MM).numpy(), nearest_other_mm(label.numpy()))
    assert torch.isinf(boundary_distance_mm(label, SPACING_MM)[1, 1:3]).all()


@pytest.mark.parametrize("label", [torch.full((2, 3, 4), 1), torch.full((2, 3, 4), UNKNOWN), torch.tensor([[[1, UNKNOWN]]])])
def test_a_single_class_has_no_boundary_and_its_voxels_weigh_one(label: Tensor) -> None:
    assert torch.isinf(boundary_distance_mm(label, SPACING_MM)).all()
    assert (boundary_weight(boundary_distance_mm(label, SPACING_MM)) == 1.0).all()


def test_the_weight_falls_as_a_gaussian_of_mm() -> None:
    weight = boundary_weight(torch.tensor([0.0, 3.0, 6.0, math.inf]), gain=5.0, width_mm=3.0)
    assert weight.tolist() == pytest.approx([6.0, 1 + 5 * math.exp(-0.5), 1 + 5 * math.exp(-2.0), 1.0])


def test_without_gain_all_voxels_weigh_alike() -> None:
    assert (boundary_weight(torch.tensor([0.0, 1.0, math.inf]), gain=0.0) == 1.0).all()


def test_a_boundary_between_thick_slices_weighs_less_than_one_within_them() -> None:
    """Two voxels of one class each, apart along I, at 4.5 mm, or along J, at 0.5 mm."""
    apart = torch.tensor([0, 1])
    spacing = torch.tensor([SPACING_MM])
    along_i, along_j = (patch_boundary_weight(apart.view(1, *shape), spacing) for shape in ((2, 1, 1), (1, 2, 1)))
    assert along_i.flatten().tolist() == pytest.approx([1 + 5 * math.exp(-(4.5**2) / 18)] * 2)
    assert along_j.flatten().tolist() == pytest.approx([1 + 5 * math.exp(-(0.5**2) / 18)] * 2)


def test_every_patch_has_its_own_spacing() -> None:
    label = torch.tensor([0, 1]).view(1, 2, 1, 1).expand(2, 2, 1, 1)
    weight = patch_boundary_weight(label, torch.tensor([[1.0, 9.0, 9.0], [3.0, 9.0, 9.0]]), gain=1.0, width_mm=1.0)
    assert weight[:, 0].flatten().tolist() == pytest.approx([1 + math.exp(-0.5), 1 + math.exp(-4.5)])


def one_hot(label: Tensor, num_classes: int) -> Tensor:
    return torch.nn.functional.one_hot(label, num_classes).movedim(-1, 1).double()


def test_a_class_weighs_as_the_inverse_square_root_of_its_volume() -> None:
    """96 voxels of one class, 4 of another: ratio sqrt(24), mean (96 / sqrt(96) + 4 / sqrt(4)) / 100 before scaling."""
    label = torch.zeros(1, 4, 5, 5, dtype=torch.long)
    label[0, 0, 0, :4] = 1
    weight = class_balance_weight(one_hot(label, 3))
    mean = (math.sqrt(96) + 2.0) / 100
    assert weight[0, 0, 0, 0].item() == pytest.approx(0.5 / mean)
    assert weight[0, 1, 0, 0].item() == pytest.approx(1 / math.sqrt(96) / mean)
    assert weight.mean().item() == pytest.approx(1.0)


def test_volumes_are_those_of_all_patches_together_and_soft() -> None:
    """Half a voxel of class 1 in each of 8: 4 voxels of each class in both patches, so that all weigh alike."""
    soft = torch.full((2, 2, 2, 2, 1), 0.5)
    assert torch.allclose(class_balance_weight(soft), torch.ones(2, 2, 2, 1))
    first, second = one_hot(torch.tensor([[[[0, 0, 0, 0]]], [[[1, 0, 0, 0]]]]), 2)
    together = class_balance_weight(torch.stack([first, second]))
    assert (together[1, 0, 0, 0] / together[0, 0, 0, 0]).item() == pytest.approx(math.sqrt(7))


def test_emphasis_is_one_the_other_or_their_product() -> None:
    label = labels()[None]
    soft, spacing = one_hot(label, 3), torch.tensor([SPACING_MM])
    near, small = patch_boundary_weight(label, spacing, gain=2.0, width_mm=1.5), class_balance_weight(soft)
    assert torch.allclose(Emphasis(boundary=True, gain=2.0, width_mm=1.5)(soft, spacing), near.double())
    assert torch.allclose(Emphasis(classes=True)(soft, None), small)
    assert torch.allclose(Emphasis(True, True, 2.0, 1.5)(soft, spacing), near * small)
    assert not torch.allclose(near.double(), small)


def test_a_boundary_without_spacing_is_refused() -> None:
    with pytest.raises(ValueError, match="need the spacing of every patch"):
        Emphasis(boundary=True)(one_hot(labels()[None], 3), None)
