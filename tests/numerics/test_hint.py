"""FitNets' hint and the adapters that it needs."""

from __future__ import annotations

import pytest
import torch

from raykd.numerics.hint import hint_adapters, hint_loss
from raykd.numerics.rng import generator


def test_the_loss_is_the_mean_squared_difference_on_the_teacher_s_grid() -> None:
    """Student voxels 1, 3 and 5, 9 average to 2 and 7; the teacher has 0 and 5: (4 + 4) / 2."""
    student = torch.tensor([1.0, 3.0, 5.0, 9.0]).view(1, 1, 1, 1, 4)
    teacher = torch.tensor([0.0, 5.0]).view(1, 1, 1, 1, 2)
    assert hint_loss(student, teacher).item() == 4.0


def test_unequal_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="got 4 and 6; bring the student's through one of hint_adapters"):
        hint_loss(torch.zeros(1, 4, 2, 2, 2), torch.zeros(1, 6, 2, 2, 2))


def test_adapters_lead_from_the_student_s_to_the_teacher_s_channels_by_layer() -> None:
    adapters = hint_adapters({"a": 4, "b": 8}, {"a": 6, "b": 3}, generator(0, "adapter"))
    assert adapters["a"](torch.zeros(2, 4, 1, 2, 3)).shape == (2, 6, 1, 2, 3)
    assert adapters["b"](torch.zeros(2, 8, 1, 2, 3)).shape == (2, 3, 1, 2, 3)


def test_adapters_depend_on_their_generator_and_leave_the_global_one_alone() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (hint_adapters({"a": 4}, {"a": 6}, generator(seed, "adapter"))["a"] for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.weight, same.weight) and not torch.equal(one.weight, other.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize(("student", "teacher"), [(4, 6), (6, 4), (5, 5)])
def test_an_adapter_starts_without_favouring_any_direction(student: int, teacher: int) -> None:
    """Its smaller side is orthonormal, and nothing is added."""
    adapter = hint_adapters({"a": student}, {"a": teacher}, generator(0, "adapter"))["a"]
    weight = adapter.weight.detach()[:, :, 0, 0, 0]  # type: ignore[index]
    weight = weight if student >= teacher else weight.T
    assert torch.allclose(weight @ weight.T, torch.eye(min(student, teacher)), atol=1e-6)
    assert not adapter.bias.any()  # type: ignore[union-attr]


def test_student_and_adapter_together_reach_a_teacher_that_is_linear_in_the_student() -> None:
    """A teacher of 3 channels made from the student's 5: gradient descent on the adapter alone finds the weights."""
    student = torch.randn((2, 5, 2, 3, 3), generator=generator(0, "student"))
    mixing = torch.randn((3, 5), generator=generator(0, "mixing"))
    teacher = torch.einsum("bfijk,gf->bgijk", student, mixing) + 0.5
    adapters = hint_adapters({"a": 5}, {"a": 3}, generator(0, "adapter"))
    optimiser = torch.optim.SGD(adapters.parameters(), lr=0.5)
    for _ in range(200):
        optimiser.zero_grad()
        loss = hint_loss(adapters["a"](student), teacher)
        loss.backward()
        optimiser.step()
    assert loss.item() < 1e-6
    assert torch.allclose(adapters["a"].weight[:, :, 0, 0, 0], mixing, atol=1e-2)  # type: ignore[index]
