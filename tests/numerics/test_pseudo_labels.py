"""Pseudo-labels and their thresholds, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from raykd.numerics.pseudo_labels import (
    agreed_labels,
    certain_labels,
    class_balanced_labels,
    class_thresholds,
    entropy_limit,
    foreground_prior,
    rare_classes,
)


def _voxels(*rows: tuple[float, ...]) -> Tensor:
    """One patch of as many voxels in a line as there are rows, a row its scores by class."""
    return torch.tensor(rows).T[None, :, :, None, None]


def test_priors_are_of_the_foreground_and_on_the_scale_of_ten_classes() -> None:
    """Foreground 60, 30, 10 of 100, times 3 / 10; 9900 voxels of background change nothing."""
    assert foreground_prior(torch.tensor([9900.0, 60.0, 30.0, 10.0])).tolist() == pytest.approx([0.0, 0.18, 0.09, 0.03])


def test_thresholds_rise_with_the_prior_up_to_the_cap() -> None:
    """Priors 0.18, 0.02 (two classes, 0.9 and 0.1 of the foreground, times 2 / 10): std 0.08; 0.94 and 0.78."""
    found = class_thresholds(torch.tensor([1e6, 90.0, 10.0]), base=0.84, cap=0.95)
    assert found.tolist() == pytest.approx([0.95, 0.94, 0.78])
    assert class_thresholds(torch.tensor([1e6, 90.0, 10.0]), base=0.84, cap=0.9).tolist() == pytest.approx([0.9, 0.9, 0.78])


def test_one_foreground_class_has_a_threshold() -> None:
    """Prior 1 / 10, no spread."""
    assert class_thresholds(torch.tensor([50.0, 5.0])).tolist() == pytest.approx([0.95, 0.94])


def test_rare_is_a_class_that_was_seen_seldom_not_one_that_was_never_seen() -> None:
    """Priors 0.27, 0.0297, 0 of three classes."""
    assert rare_classes(torch.tensor([1.0, 901.0, 99.0, 0.0]), 0.03).tolist() == [False, False, True, False]
    assert rare_classes(torch.tensor([1.0, 901.0, 99.0, 0.0]), 0.0).tolist() == [False] * 4


def test_a_label_must_pass_its_own_classs_threshold_or_be_second_and_rare() -> None:
    probs = _voxels(
        (0.90, 0.06, 0.04),  # background, not sure enough; second is class 1, common
        (0.10, 0.85, 0.05),  # class 1 passes 0.8
        (0.60, 0.05, 0.35),  # background, unsure; second is class 2, rare
        (0.05, 0.25, 0.70),  # class 2, the rare one, passes its own low threshold
        (0.97, 0.01, 0.02),  # background, sure: that the second is rare does not matter
    )
    found = class_balanced_labels(probs, torch.tensor([0.95, 0.8, 0.6]), torch.tensor([False, False, True]))
    assert found.flatten().tolist() == [255, 1, 2, 2, 0]


def test_agreed_is_what_both_find_most_probable() -> None:
    one, other = _voxels((2.0, 1.0), (0.0, 1.0), (5.0, 0.0)), _voxels((0.9, 0.1), (0.6, 0.4), (0.2, 0.8))
    assert agreed_labels(one, other).flatten().tolist() == [0, 255, 255]


def test_certain_is_decided_by_the_mean_entropy_and_labelled_by_the_mean_probability() -> None:
    """Entropies: voxel 1 (ln 2 + h(0.9)) / 2 = 0.509; voxel 2 ln 2; voxel 3 h(0.9) = 0.325 for both."""
    one, other = _voxels((0.5, 0.5), (0.5, 0.5), (0.9, 0.1)), _voxels((0.1, 0.9), (0.5, 0.5), (0.1, 0.9))
    assert certain_labels(one, other, 0.51).flatten().tolist()[:2] == [1, 255]
    assert certain_labels(one, other, 0.50).flatten().tolist()[0] == 255
    skewed = _voxels((0.2, 0.8), (0.2, 0.8), (0.2, 0.8))
    assert certain_labels(one, skewed, math.log(2)).flatten().tolist() == [1, 1, 0]


def test_the_limit_lets_the_share_through() -> None:
    values = torch.tensor([0.5, 0.1, 0.4, 0.2, 0.3]).reshape(1, 5, 1, 1)
    assert entropy_limit(values, 0.4) == pytest.approx(0.2)
    assert entropy_limit(values, 1.0) == pytest.approx(0.5)
    assert entropy_limit(values, 0.0) == pytest.approx(0.1)
