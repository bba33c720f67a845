"""A server's steps, against arithmetic done by hand."""

from __future__ import annotations

import math

import pytest
import torch

from raykd.numerics.aggregation import local_progress, normalised_average
from raykd.numerics.server_optimisers import adaptive_step, momentum_step, pseudo_gradient

W = {"params/w": torch.tensor([1.0, -2.0])}
D = {"params/w": torch.tensor([0.5, -0.1])}
ZERO = {"params/w": torch.zeros(2)}


def test_the_pseudo_gradient_leads_from_the_server_to_the_average() -> None:
    assert pseudo_gradient(W, {"params/w": torch.tensor([1.5, -2.1])})["params/w"].tolist() == pytest.approx([0.5, -0.1], rel=1e-6)


def test_momentum_adds_up_over_two_steps() -> None:
    """m1 = d, w1 = w + d; m2 = 0.9 d + d = 1.9 d, w2 = w1 + 1.9 d = w + 2.9 d."""
    w, m = momentum_step(W, D, ZERO, learning_rate=1.0, beta=0.9)
    w, m = momentum_step(w, D, m, learning_rate=1.0, beta=0.9)
    assert m["params/w"].tolist() == pytest.approx([0.95, -0.19])
    assert w["params/w"].tolist() == pytest.approx([1 + 2.9 * 0.5, -2 - 2.9 * 0.1])


def test_without_momentum_and_at_rate_one_the_server_takes_the_average() -> None:
    w, _ = momentum_step(W, D, ZERO, learning_rate=1.0, beta=0.0)
    assert w["params/w"].tolist() == pytest.approx([1.5, -2.1])


@pytest.mark.parametrize("is_yogi", [False, True])
def test_an_adaptive_step_by_hand(is_yogi: bool) -> None:
    """d = 0.5: m = 0.1 * 0.5. v0 = 1e-4: Adam 0.99e-4 + 0.01 * 0.25; Yogi 1e-4 - 0.01 * 0.25 * sign(1e-4 - 0.25)."""
    v0 = {"params/w": torch.full((1,), 1e-4)}
    w, m, v = adaptive_step(
        {"params/w": torch.tensor([1.0])},
        {"params/w": torch.tensor([0.5])},
        {"params/w": torch.zeros(1)},
        v0,
        learning_rate=0.1,
        beta_1=0.9,
        beta_2=0.99,
        tau=0.01,
        is_yogi=is_yogi,
    )
    square = 1e-4 + 0.0025 if is_yogi else 0.99e-4 + 0.0025
    assert float(m["params/w"]) == pytest.approx(0.05)
    assert float(v["params/w"]) == pytest.approx(square, rel=1e-5)
    assert float(w["params/w"]) == pytest.approx(1 + 0.1 * 0.05 / (math.sqrt(square) + 0.01), rel=1e-6)


def test_yogis_second_moment_falls_by_no_more_than_the_square() -> None:
    """Where v is larger than d^2, Adam forgets one hundredth of v, Yogi only one hundredth of d^2."""
    arguments = {"learning_rate": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 0.01}
    large = {"params/w": torch.full((2,), 4.0)}
    _, _, adam = adaptive_step(W, D, ZERO, large, **arguments, is_yogi=False)
    _, _, yogi = adaptive_step(W, D, ZERO, large, **arguments, is_yogi=True)
    assert adam["params/w"].tolist() == pytest.approx([3.96 + 0.0025, 3.96 + 0.0001])
    assert yogi["params/w"].tolist() == pytest.approx([4 - 0.0025, 4 - 0.0001])


def test_local_progress_counts_steps_without_momentum() -> None:
    assert local_progress(7) == 7.0


@pytest.mark.parametrize(("num_steps", "momentum"), [(1, 0.9), (5, 0.9), (30, 0.5)])
def test_local_progress_is_the_way_of_sgd_under_a_constant_gradient(num_steps: int, momentum: float) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=1.0, momentum=momentum)
    for _ in range(num_steps):
        weight.grad = torch.full((1,), -1.0)
        optimiser.step()
    assert local_progress(num_steps, momentum) == pytest.approx(float(weight.detach()), rel=1e-5)


def test_normalised_average_of_unequal_work_by_hand() -> None:
    """Two clients of equal share: 1 step to 1.0 and 3 steps to 6.0 from 0. Per step 1 and 2; mean work 2: 0 + 2 * (1 + 2) / 2 = 3.
    A buffer is averaged plainly: 3.5."""
    start = {"params/w": torch.zeros(1), "params/buffer": torch.zeros(1)}
    models = [{"params/w": torch.tensor([x]), "params/buffer": torch.tensor([x])} for x in (1.0, 6.0)]
    result = normalised_average(start, models, [0.5, 0.5], [1.0, 3.0], ["params/w"])
    assert float(result["params/w"]) == pytest.approx(3.0)
    assert float(result["params/buffer"]) == pytest.approx(3.5)


def test_normalised_average_of_equal_work_is_the_mean() -> None:
    start = {"params/w": torch.tensor([5.0])}
    models = [{"params/w": torch.tensor([x])} for x in (1.0, 6.0)]
    result = normalised_average(start, models, [0.25, 0.75], [4.0, 4.0], ["params/w"])
    assert float(result["params/w"]) == pytest.approx(0.25 * 1.0 + 0.75 * 6.0)
