"""The one training loop, on a parabola whose path is known in closed form, and the schedules at the points that define them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from raykd.numerics.local_sgd import Batch, LocalResult, Schedule, build_optimiser, local_sgd

CURVATURE, TARGET, START = 3.0, 2.0, 5.0


class Point(nn.Module):
    """One parameter w, and a dropout that tells the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(START, dtype=torch.float64))
        self.dropout = nn.Dropout(0.5)


def parabola(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """a (w - b)^2 / 2, whose gradient is a (w - b): w - b shrinks by 1 - lr a in every step."""
    return {"supervised": 0.5 * CURVATURE * (model.w - TARGET) ** 2}


def a_batch() -> Batch:
    return Batch(torch.zeros(2, 1, 1, 1, 1), torch.zeros((2, 1, 1, 1), dtype=torch.long), 2)


def descend(
    num_steps: int,
    schedule: Schedule,
    loss: Callable[[nn.Module, Batch], dict[str, Tensor]] = parabola,
    *,
    clip_norm: float = 0.0,
    momentum: float = 0.0,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> tuple[float, LocalResult]:
    model = Point()
    # The optimiser's own rate is absurd, so that a loop which does not set the scheduled one is found out.
    optimiser = build_optimiser(model.parameters(), "sgd", 1e3, momentum=momentum)
    result = local_sgd(model, [a_batch()] * num_steps, loss, optimiser, schedule, clip_norm=clip_norm, on_step=on_step)
    return model.w.item(), result


def test_sgd_on_a_parabola_follows_the_closed_form() -> None:
    w, _ = descend(7, Schedule(0.1))
    assert w == pytest.approx(TARGET + (START - TARGET) * (1 - 0.1 * CURVATURE) ** 7, rel=1e-12)


def test_the_scheduled_rate_is_set_before_every_step() -> None:
    # Cosine over N = 8 steps, of which this call takes the third to fifth: t = 2, 3, 4.
    w, _ = descend(3, Schedule(0.2, "cosine", num_steps=8, offset=2))
    factors = [1 - CURVATURE * 0.2 * (1 + math.cos(math.pi * t / 8)) / 2 for t in (2, 3, 4)]
    assert w == pytest.approx(TARGET + (START - TARGET) * math.prod(factors), rel=1e-12)


def test_momentum_carries_the_step_before() -> None:
    # v1 = g0, w1 = w0 - lr g0; v2 = 0.9 v1 + g1, w2 = w1 - lr v2
    g0 = CURVATURE * (START - TARGET)
    w1 = START - 0.1 * g0
    w2 = w1 - 0.1 * (0.9 * g0 + CURVATURE * (w1 - TARGET))
    assert descend(2, Schedule(0.1), momentum=0.9)[0] == pytest.approx(w2, rel=1e-12)


def test_a_long_gradient_is_clipped_to_the_norm() -> None:
    # The gradient is 9 at the start; clipped to 0.5 it moves w by lr * 0.5.
    assert descend(1, Schedule(0.1), clip_norm=0.5)[0] == pytest.approx(START - 0.1 * 0.5, rel=1e-5)


def test_a_short_gradient_is_not_clipped() -> None:
    assert descend(1, Schedule(0.1), clip_norm=50.0)[0] == descend(1, Schedule(0.1))[0]


def test_gradients_do_not_pile_up_over_steps() -> None:
    ignored = descend(2, Schedule(0.1), lambda model, batch: {"supervised": model.w})[0]
    assert ignored == pytest.approx(START - 2 * 0.1, rel=1e-12)


def test_the_sum_of_terms_is_minimised() -> None:
    # d/dw (w + 2 w) = 3
    w, _ = descend(1, Schedule(0.1), lambda model, batch: {"supervised": model.w, "response": 2 * model.w})
    assert w == pytest.approx(START - 0.1 * 3, rel=1e-12)


def test_terms_are_averaged_over_steps_before_each_is_taken() -> None:
    _, result = descend(3, Schedule(0.1))
    distances = [(START - TARGET) * (1 - 0.1 * CURVATURE) ** t for t in range(3)]
    assert result.num_steps == 3
    assert result.terms == {"supervised": pytest.approx(sum(0.5 * CURVATURE * d * d for d in distances) / 3, rel=1e-12)}


def test_a_term_that_is_missing_in_a_step_counts_as_zero() -> None:
    calls: list[int] = []

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        calls.append(1)
        constant = {"supervised": 0.0 * model.w + 1.0}
        return constant | ({"response": 0.0 * model.w + 6.0} if len(calls) == 2 else {})

    assert descend(3, Schedule(0.1), loss)[1].terms == {"supervised": 1.0, "response": 2.0}


def test_no_batch_is_no_step() -> None:
    assert descend(0, Schedule(0.1)) == (START, LocalResult(0, {}))


def test_each_finished_step_is_told_with_its_terms() -> None:
    told: list[tuple[int, dict[str, float]]] = []
    descend(2, Schedule(0.1), on_step=lambda step, terms: told.append((step, terms)))
    # Both are the loss before the step: a / 2 * 3^2, and the same after shrinking by 0.7.
    assert [step for step, _ in told] == [1, 2]
    assert [terms["supervised"] for _, terms in told] == pytest.approx([13.5, 13.5 * 0.7**2])


def test_the_model_is_trained_in_training_mode() -> None:
    model = Point()
    model.eval()
    seen: list[bool] = []

    def loss(module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        seen.append(module.dropout.training)
        return parabola(module, batch)

    local_sgd(model, [a_batch()], loss, build_optimiser(model.parameters(), "sgd", 0.1), Schedule(0.1))
    assert seen == [True] and model.training


@pytest.mark.parametrize(
    ("shape", "start", "middle", "end"),
    [("constant", 0.4, 0.4, 0.4), ("cosine", 0.4, 0.2, 0.0), ("poly", 0.4, 0.4 * 0.5**0.9, 0.0)],
)
def test_schedules_at_the_start_the_middle_and_the_end(shape: str, start: float, middle: float, end: float) -> None:
    schedule = Schedule(0.4, shape, num_steps=10)
    assert [schedule.at(0), schedule.at(5), schedule.at(10)] == pytest.approx([start, middle, end], abs=1e-15)


@pytest.mark.parametrize("shape", ["constant", "cosine", "poly"])
def test_the_offset_continues_where_the_rounds_before_stopped(shape: str) -> None:
    whole = Schedule(0.4, shape, num_steps=12)
    third_round = Schedule(0.4, shape, num_steps=12, offset=8)
    assert [third_round.at(step) for step in range(4)] == [whole.at(8 + step) for step in range(4)]


@pytest.mark.parametrize("shape", ["cosine", "poly"])
def test_schedules_stay_at_their_end(shape: str) -> None:
    assert Schedule(0.4, shape, num_steps=10, offset=9).at(5) == pytest.approx(0.0, abs=1e-15)


def test_the_first_step_of_adam_is_the_learning_rate_against_the_sign() -> None:
    # m / sqrt(v) of a single gradient is its sign.
    model = Point()
    local_sgd(model, [a_batch()], parabola, build_optimiser(model.parameters(), "adam", 1e3), Schedule(0.25))
    assert model.w.item() == pytest.approx(START - 0.25, abs=1e-8)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_weight_decay_reaches_the_optimiser(name: str) -> None:
    assert build_optimiser(Point().parameters(), name, 0.1, weight_decay=0.01).param_groups[0]["weight_decay"] == 0.01


def test_an_unknown_optimiser_is_refused() -> None:
    with pytest.raises(ValueError, match="adam or sgd, got 'lion'"):
        build_optimiser(Point().parameters(), "lion", 0.1)


def test_a_batch_on_the_cpu_stays_itself() -> None:
    batch = a_batch()
    assert batch.to("cpu") is batch


def test_a_batch_moves_with_all_that_belongs_to_it() -> None:
    ones = torch.ones(2, 1, 1, 1, 1)
    batch = Batch(ones, ones[:, 0].long(), 1, soft_label_BLIJK=ones, entropy_BIJK=ones[:, 0], features={"bottleneck": ones})
    moved = batch.to("meta")
    tensors = [moved.image_BCIJK, moved.label_BIJK, moved.soft_label_BLIJK, moved.entropy_BIJK, moved.features["bottleneck"]]
    assert all(tensor is not None and tensor.is_meta for tensor in tensors) and moved.num_labelled == 1


def test_in_bfloat16_convolutions_are_and_parameters_and_gradients_are_not() -> None:
    from raykd.numerics.local_sgd import in_bfloat16

    seen = []

    def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        output = model(batch.image_BCIJK)
        seen.append(output.dtype)
        return {"supervised": output.float().square().mean()}

    model = nn.Conv3d(1, 1, 1)
    batch = Batch(torch.ones((2, 1, 2, 2, 2)), torch.zeros((2, 2, 2, 2), dtype=torch.int64), 2)
    in_bfloat16(loss, "cpu")(model, batch)["supervised"].backward()
    assert seen == [torch.bfloat16] and model.weight.dtype == torch.float32
    assert model.weight.grad is not None and model.weight.grad.dtype == torch.float32
