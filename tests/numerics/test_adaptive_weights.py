"""Weights of clients from what was measured at them, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from raykd.numerics.adaptive_weights import prototype_similarity, refined_weights, softmax_weights


def test_weights_move_by_the_divergence_over_the_largest() -> None:
    """a = (1/2, 1/2), g = (1, 2), step 0.2: 1/2 + 0.1 and 1/2 + 0.2, over 1.3."""
    found = refined_weights(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 2.0]), 0.2)
    assert found.tolist() == pytest.approx([0.6 / 1.3, 0.7 / 1.3])


def test_weights_keep_the_sum_of_those_that_answered() -> None:
    """a = (0.2, 0.3), sum 0.5; both move by 0.1 to 0.3 and 0.4, which are scaled by 5/7."""
    found = refined_weights(torch.tensor([0.2, 0.3]), torch.tensor([3.0, 3.0]), 0.1)
    assert found.tolist() == pytest.approx([0.3 * 5 / 7, 0.4 * 5 / 7])


def test_weights_are_clipped_to_one_and_zero() -> None:
    """0.9 + 0.5 to 1, 0.1 - 0.5 to 0."""
    found = refined_weights(torch.tensor([0.9, 0.1]), torch.tensor([1.0, -1.0]), 0.5)
    assert found.tolist() == pytest.approx([1.0, 0.0])


def test_weights_stay_where_nothing_diverged_or_nothing_would_be_left() -> None:
    weights = torch.tensor([0.25, 0.75])
    assert refined_weights(weights, torch.zeros(2), 0.3).tolist() == pytest.approx([0.25, 0.75])
    assert refined_weights(weights, torch.tensor([-1.0, -1.0]), 1.0).tolist() == [0.25, 0.75]


def test_similarity_is_the_mean_cosine_over_shared_foreground_classes() -> None:
    """Class 1: cosine of 45 degrees; class 2: opposite; class 3 is at one site only; class 0, equal, is background."""
    one = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    other = torch.tensor([[1.0, 1.0], [3.0, 3.0], [0.0, -1.0], [1.0, 0.0]])
    found = prototype_similarity(one, torch.tensor([True, True, True, True]), other, torch.tensor([True, True, True, False]))
    assert found == pytest.approx((math.sqrt(0.5) - 1.0) / 2)


def test_sites_that_share_no_foreground_class_are_neither_alike_nor_opposite() -> None:
    protos = torch.ones(3, 2)
    assert prototype_similarity(protos, torch.tensor([True, True, False]), protos, torch.tensor([True, False, True])) == 0.0


def test_similarity_leaves_its_arguments_alone() -> None:
    present = torch.tensor([True, True])
    prototype_similarity(torch.ones(2, 2), present, torch.ones(2, 2), present)
    assert present.tolist() == [True, True]


def test_similarities_weigh_by_their_exponential() -> None:
    raw = [math.exp(1.0), math.exp(-1.0), math.exp(0.0)]
    assert softmax_weights([1.0, -1.0, 0.0]) == pytest.approx([value / sum(raw) for value in raw])
