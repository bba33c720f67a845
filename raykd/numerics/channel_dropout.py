"""Feature maps whose channels drop out, at a place in a network that the caller chooses. Shapes: B patches, F channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def drop_channels(feature_BFijk: Tensor, rate: float, rng: torch.Generator) -> Tensor:
    """Every channel of every patch set to zero with probability `rate`, in [0, 1), and the others scaled by 1 / (1 - rate)."""
    kept = torch.rand((*feature_BFijk.shape[:2], 1, 1, 1), generator=rng) >= rate
    return feature_BFijk * (kept / (1.0 - rate)).to(feature_BFijk)


@contextmanager
def dropping_channels(parts: Iterable[nn.Module], rate: float, rng: torch.Generator) -> Iterator[None]:
    """Within it, what these parts of a network give to the next ones has lost channels."""
    handles = [part.register_forward_hook(lambda module, args, output: drop_channels(output, rate, rng)) for part in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
