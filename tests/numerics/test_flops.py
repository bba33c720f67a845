"""Operations of a step, against sums done by hand; counting changes no gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raykd.numerics import flops
from raykd.numerics.flops import CountedGradients
from raykd.numerics.local_sgd import Batch, backward

FORWARD = {"first": 2 * 64 * 2 * 27 * 1, "second": 2 * 64 * 3 * 1 * 2}
"""A multiplication and an addition for each of 64 output voxels, output channels, voxels of the kernel and input channels."""
STEP = 2 * FORWARD["first"] + 3 * FORWARD["second"]
"""Forward, gradients of the weights, and of the input where another layer wants them: the first layer's is the image."""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv3d(2, 3, 1))


def batch(size: int) -> Batch:
    image = torch.randn(size, 1, 4, 4, 4, generator=torch.Generator().manual_seed(size))
    return Batch(image, torch.zeros(size, 4, 4, 4, dtype=torch.long), size)


def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    return {"supervised": nn.functional.cross_entropy(model(batch.image_BCIJK), batch.label_BIJK)}


def test_a_step_counts_its_convolutions_forward_and_backward() -> None:
    counted, model = CountedGradients(), network()
    counted(model, batch(1), loss)
    assert counted.num_flops == STEP
    counted(model, batch(3), loss)
    assert counted.num_flops == 4 * STEP


def test_a_frozen_layer_costs_no_gradient_of_its_weights() -> None:
    counted, model = CountedGradients(), network()
    model[0].requires_grad_(False)
    counted(model, batch(1), loss)
    assert counted.num_flops == FORWARD["first"] + 2 * FORWARD["second"]


def test_of_several_steps_of_one_shape_the_first_alone_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    counted, model, looked = CountedGradients(), network(), list[int]()
    init = flops.FlopCount.__init__
    monkeypatch.setattr(flops.FlopCount, "__init__", lambda self: (looked.append(1), init(self))[1])
    for size in (1, 2, 1, 1, 2):
        counted(model, batch(size), loss)
    assert counted.num_flops == (1 + 2 + 1 + 1 + 2) * STEP and len(looked) == 2


def test_counting_changes_no_bit_of_a_gradient() -> None:
    one, other = network(), network()
    told, plain = CountedGradients()(one, batch(2), loss), backward(other, batch(2), loss)
    assert told["supervised"].equal(plain["supervised"])
    assert all(a.grad is not None and a.grad.equal(b.grad) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_step_that_cannot_be_counted_leaves_nothing_that_looks_like_a_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **kwargs: object) -> int:
        raise AssertionError

    monkeypatch.setitem(flops.flop_registry, torch.ops.aten.convolution, unknown)
    counted, model = CountedGradients(), network()
    counted(model, batch(1), loss)
    counted(model, batch(1), loss)
    assert counted.num_flops is None
