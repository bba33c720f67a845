"""The one local training loop; a method hands it a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

Outlined = tuple[int, ...] | None
"""The foreground classes that somebody outlined, ascending; None: all."""


@dataclass(frozen=True)
class Batch:
    """Patches of one step; the first `num_labelled` of them have a label.

    Attributes:
        image_BCIJK: normalised intensities.
        label_BIJK: classes of the labelled patches (B = num_labelled), int64; 255 is unknown.
        num_labelled: how many of the patches, counted from the first, have a label.
        soft_label_BLIJK: the teacher's probabilities for every patch, or None.
        entropy_BIJK: the teacher's predictive entropy in nats for every patch, infinite where it said nothing, or None.
        features: the teacher's feature maps by layer, (B, F, i, j, k) on their own coarser grids.
        spacing_mm_B3: voxel edges of every patch along I, J, K, or None.
        annotated: for every labelled patch the foreground classes outlined in it, None for all; empty: the patches do not say.
    """

    image_BCIJK: Tensor
    label_BIJK: Tensor
    num_labelled: int
    soft_label_BLIJK: Tensor | None = None
    entropy_BIJK: Tensor | None = None
    features: dict[str, Tensor] = field(default_factory=dict)
    spacing_mm_B3: Tensor | None = None
    annotated: tuple[Outlined, ...] = ()

    def to(self, device: str) -> Batch:
        """The same batch on a device."""
        if device == "cpu":
            return self
        moved: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved, features={layer: value.to(device) for layer, value in self.features.items()})

    def outlined(self, otherwise: Outlined = None) -> tuple[Outlined, ...]:
        """By labelled patch the foreground classes outlined in it, None for all; `otherwise` where the patches do not say."""
        return self.annotated or (otherwise,) * self.num_labelled

    def part(self, start: int, end: int) -> Batch:
        """Some of the labelled patches as a batch of their own."""
        own = slice(start, min(end, self.num_labelled))
        cut: dict[str, Any] = {name: value[own] for name, value in vars(self).items() if isinstance(value, Tensor)}
        features = {layer: value[own] for layer, value in self.features.items()}
        return replace(self, **cut, features=features, num_labelled=own.stop - start, annotated=self.annotated[own])


Hook = Callable[[nn.Module], None]
"""Told of the model within a step."""
Loss = Callable[[nn.Module, Batch], dict[str, Tensor]]
"""Terms by name (`supervised`, `response`, ...), already weighted; their sum is what is minimised."""
Gradients = Callable[[nn.Module, Batch, Loss], dict[str, Tensor]]
"""Leaves the gradients of a step in the parameters and gives the terms of its loss."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate over all steps of a federation.

    Args:
        learning_rate: at the first step, > 0.
        shape: "constant"; "cosine", lr (1 + cos(pi t / N)) / 2; or "poly", lr (1 - t / N)^0.9.
        num_steps: N, all steps of the federation.
        offset: t of the first step of this call.
    """

    learning_rate: float
    shape: str = "constant"
    num_steps: int = 1
    offset: int = 0

    def at(self, step: int) -> float:
        """The learning rate of the step-th step (from 0) of this call."""
        progress = min((self.offset + step) / self.num_steps, 1.0)
        if self.shape == "cosine":
            return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
        if self.shape == "poly":
            return self.learning_rate * (1.0 - progress) ** 0.9
        return self.learning_rate


@dataclass(frozen=True)
class LocalResult:
    """What one local update did: number of steps, the mean over them of every loss term, and the sum of their learning rates."""

    num_steps: int
    terms: dict[str, float]
    sum_learning_rate: float = 0.0


def local_sgd(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    optimiser: torch.optim.Optimizer,
    schedule: Schedule,
    *,
    clip_norm: float = 0.0,
    gradients: Gradients | None = None,
    before_step: Hook | None = None,
    after_step: Hook | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> LocalResult:
    """Takes one optimiser step a batch, in place on `model`, and returns the mean of each loss term.

    Args:
        model: in training mode afterwards.
        batches: as many as steps are to be taken.
        loss: its terms are summed; a term that is missing in a step counts as zero there.
        optimiser: over the parameters to train.
        schedule: sets the learning rate before each step.
        clip_norm: largest gradient norm; 0 clips nothing.
        gradients: how gradients come about; None: by one backward pass over the batch.
        before_step: called with the model when its gradients are there and clipped, and may change them.
        after_step: called with the model when its parameters have moved.
        on_step: told the number of each finished step and its terms.
    """
    sums: dict[str, float] = {}
    num_steps, sum_learning_rate = 0, 0.0
    model.train()
    for batch in batches:
        learning_rate = schedule.at(num_steps)
        sum_learning_rate += learning_rate
        for group in optimiser.param_groups:
            group["lr"] = learning_rate
        optimiser.zero_grad(set_to_none=True)
        terms = (gradients or backward)(model, batch, loss)
        if clip_norm > 0:
            nn.utils.clip_grad_norm_([p for g in optimiser.param_groups for p in g["params"]], clip_norm)
        if before_step is not None:
            before_step(model)
        optimiser.step()
        if after_step is not None:
            after_step(model)
        num_steps += 1
        values = {name: float(value.detach()) for name, value in terms.items()}
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value
        if on_step is not None:
            on_step(num_steps, values)
    return LocalResult(num_steps, {name: value / num_steps for name, value in sums.items()}, sum_learning_rate)


def backward(model: nn.Module, batch: Batch, loss: Loss) -> dict[str, Tensor]:
    """Leaves the gradients of the summed terms of a loss in the parameters, and gives the terms."""
    terms = loss(model, batch)
    torch.stack(list(terms.values())).sum().backward()
    return terms


def in_bfloat16(loss: Loss, device: str) -> Loss:
    """A loss whose convolutions run in bfloat16, as torch's autocast chooses; parameters and their gradients stay as they are."""

    def autocast(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        with torch.autocast(device, dtype=torch.bfloat16):
            return loss(model, batch)

    return autocast


def build_optimiser(
    parameters: Iterable[nn.Parameter], name: str, learning_rate: float, *, weight_decay: float = 0.0, momentum: float = 0.9
) -> torch.optim.Optimizer:
    """Adam (betas 0.9, 0.999) or SGD with momentum. Both are new for each local update: clients keep no moments between
    rounds, which is what the reference does and what lets a client be simulated anywhere."""
    if name == "adam":
        return torch.optim.Adam(parameters, learning_rate, weight_decay=weight_decay)
    if name == "sgd":
        return torch.optim.SGD(parameters, learning_rate, momentum=momentum, weight_decay=weight_decay)
    raise ValueError(f"optimiser must be adam or sgd, got {name!r}")
