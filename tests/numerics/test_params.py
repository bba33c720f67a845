"""Arithmetic on payloads: exact where numbers allow it, the same for any order of clients, and refused where keys differ."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from raykd.numerics.params import (
    KINDS,
    Payload,
    interpolate,
    is_finite,
    kind_of,
    load_state,
    rename,
    select,
    state_of,
    weighted_mean,
)
from raykd.numerics.rng import generator


def payload(*values: float, key: str = "params/w", dtype: torch.dtype = torch.float32) -> Payload:
    return {key: torch.tensor(values, dtype=dtype)}


def drawn(index: int) -> Payload:
    rng = generator(3, "payload", index)
    return {"params/w": torch.randn((5, 7), generator=rng), "params/b": 1e-4 * torch.randn(3, generator=rng)}


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_what_precedes_the_first_slash(kind: str) -> None:
    assert kind_of(f"{kind}/block/0.weight") == kind


@pytest.mark.parametrize("key", ["weights/w", "params", "params/", "/w", "", "paramsx/w"])
def test_a_key_without_a_known_kind_or_name_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="payload key must be"):
        kind_of(key)


def test_select_takes_one_kind_and_keeps_its_keys() -> None:
    mixed = {"params/w": torch.ones(1), "teacher/params/w": torch.ones(2), "paramsx/w": torch.ones(3)}
    assert list(select(mixed, "params")) == ["params/w"]


def test_rename_changes_only_the_first_part_and_drops_other_kinds() -> None:
    mixed = {"params/params/w": torch.tensor([4.0]), "control/w": torch.ones(1)}
    renamed = rename(mixed, "params", "teacher")
    assert list(renamed) == ["teacher/params/w"] and renamed["teacher/params/w"].tolist() == [4.0]


def test_the_state_of_a_module_is_a_copy() -> None:
    module = nn.Linear(2, 2)
    state = state_of(module)
    before = state["params/weight"].clone()
    with torch.no_grad():
        module.weight.add_(1.0)
    assert torch.equal(state["params/weight"], before) and not state["params/weight"].requires_grad


def test_a_state_loads_back_bit_for_bit_buffers_included() -> None:
    source, target = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    source(torch.arange(12.0).reshape(4, 3))
    load_state(target, state_of(source, "teacher"), "teacher")
    assert int(target.num_batches_tracked) == 1
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True))


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_a_state_that_does_not_fit_the_module_is_refused(change: str) -> None:
    module = nn.Linear(2, 2)
    state = state_of(module)
    if change == "missing":
        del state["params/bias"]
    elif change == "unknown":
        state["params/scale"] = torch.ones(2)
    else:
        state["params/bias"] = torch.ones(3)
    with pytest.raises(RuntimeError):
        load_state(module, state)


def test_the_weighted_mean_is_exact_on_integers() -> None:
    # (1 * 2 + 3 * 10) / 4 = 8 and (1 * 4 + 3 * 0) / 4 = 1
    mean = weighted_mean([payload(2.0, 4.0), payload(10.0, 0.0)], [1, 3])
    assert mean["params/w"].tolist() == [8.0, 1.0] and mean["params/w"].dtype == torch.float32


def test_only_the_ratio_of_weights_counts() -> None:
    parts = [payload(2.0), payload(10.0)]
    assert torch.equal(weighted_mean(parts, [0.25, 0.75])["params/w"], weighted_mean(parts, [2, 6])["params/w"])


def test_a_weight_of_zero_leaves_a_payload_out() -> None:
    assert weighted_mean([payload(2.0), payload(7.0)], [1, 0])["params/w"].tolist() == [2.0]


def test_sums_keep_small_clients_beside_a_large_one() -> None:
    # In float32, 2^24 + 1 + 1 stays 2^24, and a third of it is 5592405.33; the true mean is 5592406.
    mean = weighted_mean([payload(2.0**24), payload(1.0), payload(1.0)], [1, 1, 1])
    assert mean["params/w"].tolist() == [5592406.0]


def test_the_order_of_clients_does_not_matter() -> None:
    parts, weights = [drawn(index) for index in range(4)], [1.0, 2.0, 0.5, 4.0]
    reference = weighted_mean(parts, weights)
    for order in itertools.permutations(range(4)):
        other = weighted_mean([parts[i] for i in order], [weights[i] for i in order])
        for key, value in reference.items():
            torch.testing.assert_close(other[key], value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("num_clients", [1, 2, 3, 6, 7, 10, 49])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_mean_of_identical_payloads_is_that_payload_bit_for_bit(num_clients: int, dtype: torch.dtype) -> None:
    rng = generator(5, "identical", num_clients)
    one = {"params/w": torch.randn(400, generator=rng).to(dtype), "control/n": torch.tensor([0, 7, -3])}
    weights = torch.rand(num_clients, generator=rng).tolist()
    mean = weighted_mean([one] * num_clients, weights)
    assert torch.equal(mean["params/w"], one["params/w"]) and torch.equal(mean["control/n"], one["control/n"])


def test_integer_buffers_are_rounded_and_stay_integers() -> None:
    # (10 + 11 + 11) / 3 = 10.67 and (-1 - 2 - 2) / 3 = -1.67
    parts = [payload(*values, dtype=torch.int64) for values in ((10, -1), (11, -2), (11, -2))]
    mean = weighted_mean(parts, [1, 1, 1])["params/w"]
    assert mean.tolist() == [11, -2] and mean.dtype == torch.int64


def test_the_weighted_mean_leaves_its_inputs_alone() -> None:
    parts = [payload(2.0), payload(4.0)]
    weighted_mean(parts, [1, 1])
    assert [part["params/w"].item() for part in parts] == [2.0, 4.0]


def test_payloads_with_different_keys_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same keys.*params/v"):
        weighted_mean([payload(1.0), payload(1.0, key="params/v")], [1, 1])


@pytest.mark.parametrize("weights", [[], [1.0], [1.0, 1.0, 1.0], [0.0, 0.0], [2.0, -1.0]])
def test_weights_that_make_no_mean_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must be"):
        weighted_mean([payload(1.0), payload(2.0)], weights)


def test_no_payload_is_refused() -> None:
    with pytest.raises(ValueError, match="weights must be"):
        weighted_mean([], [])


def test_interpolation_ends_at_both_of_its_ends_bit_for_bit() -> None:
    start, end = drawn(0), drawn(1)
    assert all(torch.equal(interpolate(start, end, 0.0)[key], start[key]) for key in start)
    assert all(torch.equal(interpolate(start, end, 1.0)[key], end[key]) for key in start)


def test_interpolation_takes_the_share_of_the_end() -> None:
    assert interpolate(payload(4.0), payload(8.0), 0.25)["params/w"].tolist() == [5.0]  # 0.75 * 4 + 0.25 * 8


@pytest.mark.parametrize(
    ("value", "expected"), [(1e38, True), (float("nan"), False), (float("inf"), False), (-float("inf"), False)]
)
def test_finiteness_looks_at_every_value(value: float, expected: bool) -> None:
    assert is_finite(payload(0.0, value) | {"control/n": torch.tensor([1])}) is expected


def test_values_whose_sum_is_too_large_are_finite_and_infinities_that_cancel_are_not() -> None:
    assert is_finite(payload(3e38, 3e38)) and not is_finite(payload(float("inf"), -float("inf")))
