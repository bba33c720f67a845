"""Several prototypes a class, one a window in mm."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from raykd.numerics.local_prototypes import local_cosine_logits, local_prototypes, window_cells
from raykd.numerics.prototypes import cosine_logits
from raykd.numerics.rng import generator

UNKNOWN = 255


def line(*values: float) -> Tensor:
    """A map of one channel along K."""
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, 1, -1)


def label(*classes: int) -> Tensor:
    return torch.tensor(classes).view(1, 1, 1, -1)


def of(features: Tensor, labels: Tensor, c: int, **settings: object) -> list[float]:
    """The local prototypes of a class, two cells of 1.5 mm a window."""
    found = local_prototypes(features, labels, c, 3, window_mm=3.0, cell_mm=(3.0, 3.0, 1.5), **settings)  # type: ignore[arg-type]
    return [round(value, 6) for value in found[:, 0].tolist()]


def test_a_window_is_short_in_cells_where_they_are_long_in_mm() -> None:
    assert window_cells(9.0, (4.5, 1.4, 2.0), (16, 64, 64)) == (2, 6, 4)
    assert window_cells(9.0, (30.0, 1.4, 2.0), (16, 64, 64)) == (1, 6, 4)
    assert window_cells(9.0, (4.5, 1.4, 2.0), (1, 4, 64)) == (1, 4, 4)


def test_every_window_that_the_class_fills_is_a_prototype() -> None:
    """Windows 1 1, 1 0, 1 1 and, at the end, 1: the second is no prototype of either class."""
    assert of(line(1, 3, 5, 7, 9, 11, 13), label(1, 1, 1, 0, 1, 1, 1), 1) == [2.0, 10.0, 13.0]


def test_windows_that_are_unknown_in_part_are_not_filled() -> None:
    assert of(line(1, 3, 5, 7), label(1, UNKNOWN, 1, 1), 1) == [6.0]


def test_where_no_window_is_filled_the_mean_of_the_class_is_its_prototype() -> None:
    assert of(line(1, 3, 5, 7), label(0, 1, 1, 0), 1) == [4.0]


def test_the_mean_of_the_class_comes_on_top_where_it_is_asked_for() -> None:
    assert of(line(1, 3, 5, 7), label(1, 1, 1, 0), 1, with_mean=True) == [2.0, 3.0]


def test_a_class_that_is_absent_has_no_prototype() -> None:
    assert of(line(1, 3, 5, 7), label(1, 1, 1, 0), 2) == []
    assert of(line(1, 3, 5, 7), label(1, 1, 1, 0), 2, with_mean=True) == []


def test_less_coverage_may_be_asked_for() -> None:
    assert of(line(1, 3, 5, 7), label(1, 0, 1, 1), 1, min_coverage=0.4) == [2.0, 6.0]


def test_windows_are_laid_in_every_patch_and_along_every_axis() -> None:
    features = torch.randn((2, 3, 2, 4, 4), generator=generator(0, "feature"))
    found = local_prototypes(features, torch.zeros(2, 4, 8, 8, dtype=torch.long), 0, 2, window_mm=2.0, cell_mm=(1.0, 1.0, 1.0))
    assert found.shape == (2 * 1 * 2 * 2, 3)
    assert torch.allclose(found[0], features[0, :, :2, :2, :2].mean(dim=(1, 2, 3)), atol=1e-6)
    assert torch.allclose(found[-1], features[1, :, :2, 2:, 2:].mean(dim=(1, 2, 3)), atol=1e-6)


def test_one_prototype_a_class_gives_cosine_logits() -> None:
    features, prototypes = torch.randn((2, 5, 2, 3, 4), generator=generator(0, "feature")), torch.eye(3, 5)
    logits = local_cosine_logits(features, [prototype[None] for prototype in prototypes])
    assert torch.allclose(logits, cosine_logits(features, prototypes), atol=1e-5)


def test_several_prototypes_give_the_softmax_weighted_sum_of_their_logits() -> None:
    """A feature at 0 and 60 degrees from two prototypes: s = 2 and 1 at scale 2."""
    features = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1)
    prototypes = torch.tensor([[3.0, 0.0], [0.5, math.sqrt(0.75)]])
    expected = (2 * math.exp(2) + 1 * math.exp(1)) / (math.exp(2) + math.exp(1))
    assert local_cosine_logits(features, [prototypes], scale=2.0).item() == pytest.approx(expected)


def test_a_class_without_prototypes_is_never_predicted() -> None:
    features = torch.randn((1, 2, 2, 2, 2), generator=generator(0, "feature"))
    logits = local_cosine_logits(features, [torch.eye(2), torch.zeros(0, 2)])
    assert bool((logits[:, 1] == -math.inf).all()) and not logits.argmax(dim=1).any()


def test_patches_are_segmented_by_prototypes_of_their_like() -> None:
    """A background of two looks, whose mean lies at the foreground's: local prototypes tell them apart where the mean cannot."""
    looks = {0: (1.0, 0.1), 1: (-1.0, 0.1), 2: (0.0, 1.0)}
    place = torch.tensor([0, 0, 1, 1, 2, 2])
    features = torch.tensor([looks[int(p)] for p in place]).T.reshape(1, 2, 1, 1, 6)
    truth = label(0, 0, 0, 0, 1, 1)
    prototypes = [local_prototypes(features, truth, c, 2, window_mm=2.0, cell_mm=(1.0, 1.0, 1.0)) for c in range(2)]
    assert torch.equal(local_cosine_logits(features, prototypes).argmax(dim=1), truth)
    means = torch.stack([p.mean(dim=0) for p in prototypes])
    assert not torch.equal(cosine_logits(features, means).argmax(dim=1), truth)
