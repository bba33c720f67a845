"""Consensus of random subsets of clients, against weights worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from raykd.numerics.rng import numpy_generator
from raykd.numerics.sub_consensus import consensus_weights, random_subsets, relative_distance


def test_subsets_are_of_distinct_clients_in_order() -> None:
    subsets = random_subsets(6, 3, 50, np.random.default_rng(0))
    assert len(subsets) == 50
    assert all(len(set(subset)) == 3 and list(subset) == sorted(subset) and set(subset) <= set(range(6)) for subset in subsets)


def test_every_client_comes_up_and_subsets_differ() -> None:
    subsets = random_subsets(6, 3, 50, np.random.default_rng(0))
    assert {client for subset in subsets for client in subset} == set(range(6))
    assert len(set(subsets)) > 10


def test_a_subset_larger_than_the_cohort_is_the_cohort() -> None:
    assert random_subsets(2, 5, 3, np.random.default_rng(0)) == [(0, 1)] * 3


def test_one_address_draws_the_same_subsets_and_another_round_others() -> None:
    first, again, later = (random_subsets(8, 4, 5, numpy_generator(7, "rscfed-subsets", r)) for r in (0, 0, 1))
    assert first == again != later


def test_distance_is_that_of_the_whole_vector_over_the_centres_length() -> None:
    """(1, 2 | 2) from (1, 0 | 0) plus: difference (0, 2 | 2), length sqrt 8; centre's length 1."""
    centre = {"params/a": torch.tensor([1.0, 0.0]), "params/b": torch.tensor([0.0]), "params/n": torch.tensor([9.0])}
    model = {"params/a": torch.tensor([1.0, 2.0]), "params/b": torch.tensor([2.0]), "params/n": torch.tensor([1.0])}
    assert relative_distance(model, centre, ["params/a", "params/b"]) == pytest.approx(math.sqrt(8))


def test_a_model_of_twice_the_scale_is_as_far() -> None:
    centre, model = {"params/a": torch.tensor([3.0, 4.0])}, {"params/a": torch.tensor([3.0, 5.0])}
    doubled = [{key: 2 * value for key, value in payload.items()} for payload in (model, centre)]
    assert relative_distance(model, centre, ["params/a"]) == pytest.approx(0.2)
    assert relative_distance(doubled[0], doubled[1], ["params/a"]) == pytest.approx(0.2)


def test_weights_fall_with_the_distance_over_the_cases() -> None:
    """Shares 1/2 and 1/4 and 1/4; exponents -10 * 0.2 / 2 = -1, -10 * 0.4 / 4 = -1, -10 * 0.3 / 1 = -3."""
    weights = consensus_weights([0.5, 0.25, 0.25], [0.2, 0.4, 0.3], [2, 4, 1], 10.0)
    raw = [0.5 * math.exp(-1), 0.25 * math.exp(-1), 0.25 * math.exp(-3)]
    assert weights == pytest.approx([value / sum(raw) for value in raw])


def test_no_scale_gives_the_shares_back() -> None:
    assert consensus_weights([0.7, 0.3], [5.0, 0.1], [1, 9], 0.0) == pytest.approx([0.7, 0.3])


def test_the_sources_scale_does_not_underflow() -> None:
    """exp(-1e4 * 9) is zero in double precision, for both."""
    assert consensus_weights([0.5, 0.5], [9.0, 9.0], [1, 1], 1e4) == pytest.approx([0.5, 0.5])


def test_a_client_without_a_share_gets_none_however_near_it_is() -> None:
    assert consensus_weights([0.0, 1.0], [0.0, 9.0], [0, 1], 1e4) == [0.0, 1.0]
