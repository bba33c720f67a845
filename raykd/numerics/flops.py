"""Floating-point operations of optimiser steps, counted and not timed: the same on every machine."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from raykd.numerics.local_sgd import Batch, Gradients, Loss, backward

Shapes = tuple[tuple[int, ...], tuple[int, ...]]


class CountedGradients:
    """Gradients as they were, with the operations that they took.

    Every step of one batch shape of one local update counts as much as the first of them, which alone is looked at: a local update
    keeps its network and its loss. Nothing is kept from one update to the next, for a loss may change with the round.

    Args:
        gradients: how gradients come about; None: by one backward pass over the batch.

    Attributes:
        num_flops: so far, forward and backward; None: a step could not be counted.
    """

    def __init__(self, gradients: Gradients | None = None):
        self._gradients = gradients or backward
        self._known: dict[Shapes, int | None] = {}
        self.num_flops: int | None = 0

    def __call__(self, model: nn.Module, batch: Batch, loss: Loss) -> dict[str, Tensor]:
        shapes = (tuple(batch.image_BCIJK.shape), tuple(batch.label_BIJK.shape))
        if shapes in self._known:
            terms = self._gradients(model, batch, loss)
        else:
            with FlopCount() as count:
                terms = self._gradients(model, batch, loss)
            self._known[shapes] = count.num_flops
        of_step = self._known[shapes]
        self.num_flops = None if self.num_flops is None or of_step is None else self.num_flops + of_step
        return terms


class FlopCount(TorchDispatchMode):
    """Counts the operations of convolutions and matrix products, a multiplication and an addition as two.

    The formulas are those of `torch.utils.flop_counter`, whose own mode counts by module besides, which takes longer.

    Attributes:
        num_flops: so far; None: an operation's could not be told.
    """

    def __init__(self) -> None:
        super().__init__()
        self.num_flops: int | None = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """torch would import its compiler, which takes seconds, to keep that away from this mode; no compiled step is counted."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None and self.num_flops is not None:
            try:
                self.num_flops += int(formula(*args, **(kwargs or {}), out_val=result))
            except (TypeError, ValueError, AssertionError, RuntimeError):
                self.num_flops = None
        return result
