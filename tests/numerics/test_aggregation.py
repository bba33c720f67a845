"""How a server weighs its clients."""

from __future__ import annotations

import pytest

from raykd.numerics.aggregation import aggregation_weights


def test_uniform_weights_are_equal_shares() -> None:
    assert aggregation_weights("uniform", [1, 9, 0, 4], [0, 0, 0, 50]) == [0.25] * 4


def test_labelled_weights_count_labelled_cases_alone() -> None:
    assert aggregation_weights("labelled", [1, 3], [100, 0]) == [1 / 4, 3 / 4]


def test_weights_by_all_cases_are_those_of_fedavg() -> None:
    # p_k = n_k / n with n = (2, 6) and both = 8
    assert aggregation_weights("all", [1, 3], [1, 3]) == [2 / 8, 6 / 8]
    assert aggregation_weights("all", [2, 0], [0, 6]) == [2 / 8, 6 / 8]


def test_a_client_without_a_counted_case_weighs_nothing() -> None:
    assert aggregation_weights("labelled", [0, 5], [9, 9]) == [0.0, 1.0]


@pytest.mark.parametrize("weighting", ["labelled", "all"])
def test_clients_without_a_single_counted_case_all_weigh_alike(weighting) -> None:  # type: ignore[no-untyped-def]
    assert aggregation_weights(weighting, [0, 0], [0, 0]) == [0.5, 0.5]


@pytest.mark.parametrize("weighting", ["uniform", "labelled", "all"])
def test_weights_sum_to_one(weighting) -> None:  # type: ignore[no-untyped-def]
    assert sum(aggregation_weights(weighting, [2, 5, 1, 0, 4], [3, 0, 8, 7, 1])) == pytest.approx(1.0, abs=1e-15)
