"""Truncated updates: ranks and products worked out by hand, and what travels in their place."""

from __future__ import annotations

import pytest
import torch

from raykd.numerics.low_rank import pack, truncated_factors, unpack

DIAGONAL = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
"""Squared singular values 9, 4, 1: of 14, the first holds 0.643 and the first two hold 0.929."""


@pytest.mark.parametrize(("energy", "rank"), [(0.01, 1), (0.64, 1), (0.65, 2), (0.92, 2), (0.93, 3), (1.0, 3)])
def test_the_smallest_rank_that_holds_the_energy_is_kept(energy: float, rank: int) -> None:
    left_MR, right_RN = truncated_factors(DIAGONAL, energy)
    assert left_MR.shape == (3, rank) and right_RN.shape == (rank, 3)
    kept = torch.tensor([3.0, 2.0, 1.0]) * (torch.arange(3) < rank)
    assert torch.allclose(left_MR @ right_RN, torch.diag(kept), atol=1e-6)


def test_a_change_of_nothing_has_rank_zero() -> None:
    left_MR, right_RN = truncated_factors(torch.zeros(4, 6), 0.95)
    assert left_MR.shape == (4, 0) and right_RN.shape == (0, 6)


@pytest.mark.parametrize("energy", [0.0, -0.1, 1.1])
def test_an_impossible_energy_is_refused(energy: float) -> None:
    with pytest.raises(ValueError, match=r"energy must lie in \(0, 1\]"):
        truncated_factors(DIAGONAL, energy)


def test_a_kernel_that_moved_along_one_direction_travels_as_two_vectors() -> None:
    """A kernel of (4, 3, 1, 2, 2) is a matrix of 4 rows and 12 columns: 16 numbers of rank one in place of 48."""
    base = torch.arange(48.0).view(4, 3, 1, 2, 2)
    rows, columns = torch.tensor([1.0, 0.0, -2.0, 0.5]), torch.arange(12.0) - 5.0
    moved = base + torch.outer(rows, columns).view(base.shape)
    packed = pack({"params/a": moved}, {"params/a": base}, 0.95)
    assert packed["params/a"].shape == (16,)
    assert torch.allclose(unpack(packed, {"params/a": base})["params/a"], moved, atol=1e-5)


def test_factors_that_are_no_fewer_numbers_are_not_sent() -> None:
    """A change of full rank: 2 x (2 + 2) numbers would replace 4."""
    base = {"params/a": torch.tensor([[5.0, 6.0], [7.0, 8.0]])}
    model = {"params/a": base["params/a"] + torch.eye(2)}
    assert pack(model, base, 0.99)["params/a"].equal(model["params/a"])


def test_vectors_and_counters_travel_as_they_are() -> None:
    base = {"params/bias": torch.zeros(5), "params/steps": torch.tensor(3), "params/table": torch.zeros(6, 6, dtype=torch.long)}
    model = {key: value + 1 for key, value in base.items()}
    packed = pack(model, base, 0.5)
    assert all(packed[key].equal(model[key]) for key in model)


def test_at_full_energy_the_model_arrives_to_the_last_bit() -> None:
    rng = torch.Generator().manual_seed(0)
    base, model = ({"params/a": torch.randn(8, 5, 3, generator=rng)} for _ in range(2))
    assert unpack(pack(model, base, 1.0), base)["params/a"].equal(model["params/a"])


def test_a_matrix_that_did_not_move_arrives_though_nothing_is_sent() -> None:
    base = {"params/a": torch.arange(12.0).view(3, 4)}
    packed = pack(base, base, 0.95)
    assert packed["params/a"].numel() == 0
    assert unpack(packed, base)["params/a"].equal(base["params/a"])


def test_a_whole_model_needs_nothing_to_start_from() -> None:
    model = {"params/a": torch.ones(3, 4)}
    assert unpack(model, {})["params/a"].equal(model["params/a"])
