"""Codecs' arithmetic against values derived by hand, and its bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raykd.numerics.compression.bits import pack_bits, rice_bound, rice_decode, rice_encode, rice_width, unpack_bits
from raykd.numerics.compression.power_iteration import factors, is_start, is_worth_factoring
from raykd.numerics.compression.quantisation import from_half, from_int8, from_levels, to_half, to_int8, to_levels
from raykd.numerics.compression.sparsity import largest, num_kept, scatter, ternary
from raykd.numerics.rng import generator, numpy_generator


def test_bits_by_hand() -> None:
    packed = pack_bits(np.array([5, 0, 7, 2]), 3)  # 101 000 111 010, filled up with 0000
    assert packed.tolist() == [0b10100011, 0b10100000]
    assert unpack_bits(packed, 3, 4).tolist() == [5, 0, 7, 2]
    with pytest.raises(ValueError, match="from 0 to 7, got 2 to 8"):
        pack_bits(np.array([2, 8]), 3)


def test_rice_codes_by_hand() -> None:
    # Gaps 0, 2, 0, 6: low bits 0 0 0 0, quotients 0, 1, 0, 3 as 0 10 0 1110.
    coded = rice_encode(np.array([0, 3, 4, 11]), 12, 1)
    assert coded.tolist() == [0b00000000, 0b01001110]
    assert rice_decode(coded, 4, 1).tolist() == [0, 3, 4, 11]
    with pytest.raises(ValueError, match="must ascend from 0 to 11"):
        rice_encode(np.array([3, 3]), 12, 1)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.4, 1.0])
def test_indices_come_back_in_as_many_bytes_wherever_they_lie(share: float) -> None:
    size, width = 20_000, rice_width(share)
    count = num_kept(share, size)
    drawn = np.sort(numpy_generator(0, "indices", str(share)).choice(size, count, replace=False))
    for indices in (drawn, np.arange(count), np.arange(size - count, size)):
        coded = rice_encode(indices, size, width)
        assert len(coded) == rice_bound(count, size, width)
        assert np.array_equal(rice_decode(coded, count, width), indices)


def test_an_index_takes_eight_bits_at_one_per_cent() -> None:
    """b* = 6 at 1 %, and 6 + 1 / (1 - 0.99^64) = 8.11 bits in the mean; filled up, 6 + 1 + 99 / 64 = 8.55."""
    size, count = 1_000_000, 10_000
    indices = np.sort(numpy_generator(0, "places").choice(size, count, replace=False))
    assert rice_width(0.01) == 6
    gaps = np.diff(indices, prepend=-1) - 1
    assert (count * (6 + 1) + (gaps >> 6).sum()) / count == pytest.approx(8.11, abs=0.03)
    assert 8 * rice_bound(count, size, 6) / count == pytest.approx(8.55, abs=0.01)


def test_int8_by_hand_and_within_half_a_step() -> None:
    coded, scale = to_int8(torch.tensor([[127.0, -63.4], [0.0, 0.0], [2.54, -0.011]]))
    assert coded.tolist() == [[127, -63], [0, 0], [127, -1]] and scale.tolist() == pytest.approx([1.0, 0.0, 0.02])
    value = torch.randn((8, 4, 3, 3, 3), generator=generator(0, "v")) * torch.logspace(-3, 3, 8)[:, None, None, None, None]
    coded, scale = to_int8(value)
    error = (from_int8(coded, scale) - value).abs().flatten(1).amax(dim=1)
    assert (error <= scale / 2 * (1 + 1e-5)).all() and (error > scale / 4).all()


def test_half_precision_keeps_small_changes_that_plain_halves_would_lose() -> None:
    value = torch.tensor([1e-9, -3e-10, 0.0])
    assert value.half().tolist() == [0.0, 0.0, 0.0]
    assert from_half(*to_half(value)).tolist() == pytest.approx(value.tolist(), rel=2**-11)


def test_levels_by_hand() -> None:
    # ||(3, 4)|| = 5: with five levels both lie on one, and no draw moves them.
    levels, norm = to_levels(torch.tensor([3.0, -4.0]), 5, 8, generator(0, "q"))
    assert (levels.tolist(), norm.tolist()) == ([3, -4], [5.0])
    assert from_levels(levels, norm, 5, 8).tolist() == [3.0, -4.0]


def test_levels_are_right_in_the_mean_and_spread_no_more_than_proven() -> None:
    value, rng, num_draws = torch.randn(64, generator=generator(0, "v")), generator(0, "draws"), 4000
    draws = torch.stack([from_levels(*to_levels(value, 4, 64, rng), 4, 64) for _ in range(num_draws)])
    spread = draws.std(dim=0)
    assert (draws.mean(dim=0) - value).abs().lt(5 * spread / num_draws**0.5 + 1e-6).all()
    variance = (draws - value).square().sum(dim=1).mean()
    assert 0 < variance <= min(64 / 4**2, 64**0.5 / 4) * value.square().sum()


def test_the_largest_are_kept_and_of_equals_the_first() -> None:
    vector = torch.tensor([0.5, -3.0, 0.5, 2.0, -0.5])
    assert largest(vector, 2).tolist() == [1, 3] and largest(vector, 4).tolist() == [0, 1, 2, 3]
    assert scatter(vector[[1, 3]], torch.tensor([1, 3]), 5).tolist() == [0.0, -3.0, 0.0, 2.0, 0.0]
    assert (num_kept(0.01, 149), num_kept(0.01, 150), num_kept(0.01, 3), num_kept(0.5, 0)) == (1, 2, 1, 0)


def test_three_values_by_hand() -> None:
    is_positive, magnitude = ternary(torch.tensor([-3.0, 2.0, 1.0]))
    assert (is_positive.tolist(), float(magnitude)) == ([False, True, True], 2.0)


def test_a_matrix_of_low_rank_comes_back_whole() -> None:
    rng = generator(0, "matrix")
    matrix = torch.randn((12, 3), generator=rng) @ torch.randn((3, 40), generator=rng)
    start = torch.randn((40, 3), generator=rng)
    p, q = factors(matrix, start)
    torch.testing.assert_close(p @ q.T, matrix)
    p, q = factors(matrix, start[:, :2])
    assert (p @ q.T - matrix).norm() > 0.05 * matrix.norm()


def test_warm_iterations_come_near_the_best_that_the_rank_allows() -> None:
    matrix = torch.randn((20, 30), generator=generator(0, "matrix"))
    best = torch.linalg.svdvals(matrix)[2:].norm()
    q, errors = torch.randn((30, 2), generator=generator(0, "start")), []
    for _ in range(40):
        p, q = factors(matrix, q)
        errors.append(float((p @ q.T - matrix).norm() / best))
    assert errors[0] > 1.02 and errors[-1] == pytest.approx(1.0, abs=1e-3)


def test_factors_are_taken_only_where_they_are_fewer_numbers_and_begin_anew_where_directions_were_lost() -> None:
    assert is_worth_factoring(64, 8000, 2) and not is_worth_factoring(4, 4, 2)
    assert is_start(torch.eye(3)) and not is_start(torch.zeros(3, 2)) and not is_start(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
