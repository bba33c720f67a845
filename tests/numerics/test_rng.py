"""Randomness is an address: equal addresses give equal streams anywhere, and nobody else's stream is touched."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from raykd.numerics.rng import generator, integer, numpy_generator, uniform

ADDRESS = (7, "patches", 3, "community-1")


def torch_draws(seed: int, purpose: str, *address: int | str) -> list[float]:
    return torch.rand(4, generator=generator(seed, purpose, *address)).tolist()


def numpy_draws(seed: int, purpose: str, *address: int | str) -> list[float]:
    return numpy_generator(seed, purpose, *address).random(4).tolist()


BOTH = pytest.mark.parametrize("draws", [torch_draws, numpy_draws])


@BOTH
def test_the_same_address_gives_the_same_stream(draws) -> None:  # type: ignore[no-untyped-def]
    first = draws(*ADDRESS)
    draws(8, "something else")
    assert draws(*ADDRESS) == first


@BOTH
@pytest.mark.parametrize(
    "other",
    [
        (8, "patches", 3, "community-1"),
        (7, "patch", 3, "community-1"),
        (7, "patches", 4, "community-1"),
        (7, "patches", 3, "community-2"),
        (7, "patches", "3", "community-1"),
        (7, "patches", 3),
        (7, "patches", 3, "community-1", 0),
        (7, "patches", "community-1", 3),
        (73, "patches", "community-1"),
    ],
)
def test_any_changed_part_gives_another_stream(draws, other) -> None:  # type: ignore[no-untyped-def]
    assert draws(*other) != draws(*ADDRESS)


def test_parts_do_not_run_into_one_another() -> None:
    assert torch_draws(1, "a", "b c") != torch_draws(1, "a", "b", "c")
    assert torch_draws(1, "a', 'b") != torch_draws(1, "a", "b")


def test_the_stream_is_the_same_in_another_process() -> None:
    code = (
        "import torch; from raykd.numerics.rng import generator, numpy_generator\n"
        f"print(torch.rand(4, generator=generator(*{ADDRESS!r})).tolist() + numpy_generator(*{ADDRESS!r}).random(4).tolist())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert process.stdout.strip() == str(torch_draws(*ADDRESS) + numpy_draws(*ADDRESS))


def test_no_global_state_is_touched() -> None:
    torch_before, (name, keys, *rest) = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    rng = generator(*ADDRESS)
    uniform(rng), integer(rng, 10), torch_draws(*ADDRESS), numpy_draws(*ADDRESS)
    name_after, keys_after, *rest_after = np.random.get_state()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert name_after == name and np.array_equal(keys_after, keys) and rest_after == rest


def test_no_global_state_is_read() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = torch_draws(*ADDRESS)
        torch.manual_seed(2)
        assert torch_draws(*ADDRESS) == first


def test_the_streams_of_two_clients_are_uncorrelated() -> None:
    a, b = (torch.rand(4000, generator=generator(7, "patches", 0, client)) for client in (0, 1))
    # The correlation of independent draws has a standard deviation of 1 / sqrt(4000) = 0.016.
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 5 * 0.016


def test_uniform_stays_in_its_range_and_fills_it() -> None:
    rng = generator(0, "uniform")
    draws = [uniform(rng, -2.0, 3.0) for _ in range(500)]
    assert -2.0 <= min(draws) < -1.8 and 2.8 < max(draws) < 3.0


def test_integer_gives_every_number_below_its_bound() -> None:
    rng = generator(0, "integer")
    assert {integer(rng, 3) for _ in range(100)} == {0, 1, 2}
