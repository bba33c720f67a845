"""Prototypes and statistics of classes: additive over patches, blind to what is unknown, and what is predicted with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from raykd.numerics.prototypes import (
    ClassStatistics,
    class_means,
    class_statistics,
    class_sums,
    cosine_logits,
    coverage,
    prototype_contrastive_loss,
)
from raykd.numerics.rng import generator

GRID = (2, 3, 4)
NUM_CLASSES = 3
UNKNOWN = 255


def feature(num_patches: int = 2, grid: tuple[int, int, int] = GRID, name: str = "feature") -> Tensor:
    return torch.randn((num_patches, 5, *grid), generator=generator(0, name), dtype=torch.float64)


def labels(num_patches: int = 2, grid: tuple[int, int, int] = GRID) -> Tensor:
    """Some of each class, and some unknown."""
    drawn = torch.randint(NUM_CLASSES + 1, (num_patches, *grid), generator=generator(0, "labels"))
    return torch.where(drawn == NUM_CLASSES, UNKNOWN, drawn)


def of_class(features: Tensor, label: Tensor, c: int) -> np.ndarray:
    """Cells of a class by channels."""
    return features.movedim(1, -1)[label == c].numpy()


def test_a_cell_is_covered_by_the_share_of_its_voxels() -> None:
    """Two cells of four voxels: 1 1 2 ? and 0 0 0 2."""
    label = torch.tensor([1, 1, 2, UNKNOWN, 0, 0, 0, 2]).view(1, 1, 1, 8)
    assert coverage(label, 3, (1, 1, 2))[0, :, 0, 0].T.tolist() == [[0.0, 0.5, 0.25], [0.75, 0.0, 0.25]]


def test_prototypes_are_the_means_of_the_cells_of_each_class() -> None:
    means = class_means(*class_sums(feature(), labels(), NUM_CLASSES))
    for c in range(NUM_CLASSES):
        assert np.allclose(means[c].numpy(), of_class(feature(), labels(), c).mean(axis=0))


def test_cells_that_are_covered_in_part_count_in_part() -> None:
    """Cell 1, three quarters class 1, and cell 2, a quarter: (3/4 f_1 + 1/4 f_2) / 1."""
    label = torch.tensor([1, 1, 1, 0, 1, UNKNOWN, 0, 0]).view(1, 1, 1, 8)
    features = torch.tensor([[4.0, 8.0]]).view(1, 1, 1, 1, 2)
    sums, counts = class_sums(features, label, 2)
    assert counts.tolist() == [0.75, 1.0]
    assert sums.flatten().tolist() == [0.25 * 4 + 0.5 * 8, 0.75 * 4 + 0.25 * 8]


def test_sums_and_counts_add_over_patches() -> None:
    whole = class_sums(feature(), labels(), NUM_CLASSES)
    parts = [class_sums(feature()[b : b + 1], labels()[b : b + 1], NUM_CLASSES) for b in range(2)]
    for of_whole, one, other in zip(whole, *parts, strict=True):
        assert torch.allclose(of_whole, one + other)


def test_a_class_without_a_cell_has_a_prototype_of_zeros_and_statistics_of_none() -> None:
    label = torch.where(labels() == 2, UNKNOWN, labels())
    found = class_statistics(feature(), label, NUM_CLASSES)
    assert found.present_C.tolist() == [True, True, False]
    assert not found.mean_CF[2].any() and not found.variance_CF[2].any()
    assert not class_means(*class_sums(feature(), label, NUM_CLASSES))[2].any()


def test_statistics_are_numpy_s_mean_and_variance() -> None:
    found = class_statistics(feature(), labels(), NUM_CLASSES)
    for c in range(NUM_CLASSES):
        cells = of_class(feature(), labels(), c)
        assert found.count_C[c].item() == len(cells)
        assert np.allclose(found.mean_CF[c].numpy(), cells.mean(axis=0))
        assert np.allclose(found.variance_CF[c].numpy(), cells.var(axis=0))


def assert_same(one: ClassStatistics, other: ClassStatistics) -> None:
    for name in ("mean_CF", "variance_CF", "count_C"):
        assert torch.allclose(getattr(one, name), getattr(other, name)), name


def test_merged_statistics_are_those_of_all_cells_together_in_any_order() -> None:
    """Three sites far apart in feature space, of unequal size."""
    label = labels(4)
    features = feature(4) + torch.tensor([0.0, 100.0, -50.0, -50.0], dtype=torch.float64).view(4, 1, 1, 1, 1)
    sites = [class_statistics(features[at], label[at], NUM_CLASSES) for at in ([0], [1], [2, 3])]
    whole = class_statistics(features, label, NUM_CLASSES)
    assert_same(sites[0].merge(sites[1]).merge(sites[2]), whole)
    assert_same(sites[2].merge(sites[0].merge(sites[1])), whole)


def test_a_site_without_a_class_changes_nothing_of_it() -> None:
    without = class_statistics(feature(name="other"), torch.full((2, *GRID), UNKNOWN), NUM_CLASSES)
    found = class_statistics(feature(), labels(), NUM_CLASSES)
    assert_same(found.merge(without), found)
    assert_same(without.merge(found), found)
    assert_same(without.merge(without), without)


def test_logits_are_scaled_cosines() -> None:
    prototypes = torch.randn((3, 5), generator=generator(0, "prototypes"), dtype=torch.float64)
    logits = cosine_logits(feature(), prototypes)
    for b, p, at in ((0, 0, (0, 0, 0)), (1, 2, (1, 2, 3)), (0, 1, (1, 0, 2))):
        x, mu = feature()[b, :, *at].numpy(), prototypes[p].numpy()
        assert logits[b, p, *at].item() == pytest.approx(20 * x @ mu / np.linalg.norm(x) / np.linalg.norm(mu))


def test_a_class_without_prototype_is_never_predicted() -> None:
    logits = cosine_logits(feature(), torch.eye(3, 5, dtype=torch.float64), present_P=torch.tensor([True, False, True]))
    assert (logits[:, 1] == -math.inf).all()
    assert set(logits.argmax(dim=1).unique().tolist()) == {0, 2} and bool(torch.softmax(logits, dim=1).isfinite().all())


def test_the_contrastive_loss_is_the_mean_over_known_cells_of_minus_log_softmax_of_cosines() -> None:
    prototypes = torch.randn((3, 5), generator=generator(0, "prototypes"), dtype=torch.float64)
    values = []
    for c in range(NUM_CLASSES):
        for x in of_class(feature(), labels(), c):
            cosines = prototypes.numpy() @ x / np.linalg.norm(x) / np.linalg.norm(prototypes.numpy(), axis=1)
            values.append(np.log(np.exp(cosines / 0.2).sum()) - cosines[c] / 0.2)
    loss = prototype_contrastive_loss(feature(), labels(), prototypes, temperature=0.2)
    assert float(loss) == pytest.approx(np.mean(values), rel=1e-9)


def test_cells_of_a_class_without_prototype_do_not_count_and_it_repels_nothing() -> None:
    prototypes = torch.eye(3, 5, dtype=torch.float64)
    present = torch.tensor([True, True, False])
    without = torch.where(labels() == 2, UNKNOWN, labels())
    expected = prototype_contrastive_loss(feature(), without, prototypes[:2])
    assert float(prototype_contrastive_loss(feature(), labels(), prototypes, present_C=present)) == pytest.approx(float(expected))


def test_a_cell_that_is_half_unknown_is_unknown_and_one_that_is_less_has_the_class_that_covers_most() -> None:
    """Of three cells of four voxels, only the second counts, as class 1; its feature is prototype 1, orthogonal to the others."""
    label = torch.tensor([1, 1, UNKNOWN, UNKNOWN, 1, 1, 2, UNKNOWN, *[UNKNOWN] * 4]).view(1, 1, 1, 12)
    features = torch.zeros(1, 5, 1, 1, 3)
    features[0, 0, 0, 0, 0] = features[0, 1, 0, 0, 1] = features[0, 2, 0, 0, 2] = 1.0
    loss = prototype_contrastive_loss(features, label, torch.eye(3, 5), temperature=1.0)
    assert loss.item() == pytest.approx(math.log(math.e + 2) - 1)


def test_nothing_known_is_no_loss_and_no_gradient() -> None:
    features = feature().requires_grad_()
    loss = prototype_contrastive_loss(features, torch.full((2, *GRID), UNKNOWN), torch.eye(3, 5, dtype=torch.float64))
    loss.backward()
    assert loss.item() == 0.0 and features.grad is not None and not features.grad.any()


def test_the_contrastive_loss_pulls_towards_its_own_prototype_and_does_not_move_it() -> None:
    features, prototypes = feature().requires_grad_(), torch.eye(3, 5, dtype=torch.float64).requires_grad_()
    before = prototype_contrastive_loss(features, labels(), prototypes)
    before.backward()
    assert features.grad is not None and prototypes.grad is None
    with torch.no_grad():
        assert prototype_contrastive_loss(features - features.grad, labels(), prototypes).item() < before.item()
