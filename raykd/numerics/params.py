"""Arithmetic on payloads: flat dicts of tensors whose keys begin with a kind, `params/...`, `teacher/...`, `prototypes/...`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest

import torch
from torch import Tensor, nn

Payload = dict[str, Tensor]
"""Whatever travels between server and client, or is saved."""

MEMORY = "memory"
"""The kind of what codecs keep at a client between rounds: it is saved, and crosses no link."""
TRAVELLING = ("params", "logits", "features", "prototypes", "control", "teacher")
KINDS = (*TRAVELLING, MEMORY)


def kind_of(key: str) -> str:
    """The kind of a payload key; `ValueError` where it has none of the known ones."""
    kind, slash, name = key.partition("/")
    if not slash or not name or kind not in KINDS:
        raise ValueError(f"a payload key must be <kind>/<name> with kind one of {', '.join(KINDS)}, got {key!r}")
    return kind


def select(payload: Mapping[str, Tensor], kind: str) -> Payload:
    """The entries of one kind, keys unchanged."""
    return {key: value for key, value in payload.items() if key.startswith(f"{kind}/")}


def rename(payload: Mapping[str, Tensor], old: str, new: str) -> Payload:
    """The entries of kind `old` filed under kind `new`."""
    return {f"{new}/{key.removeprefix(f'{old}/')}": value for key, value in payload.items() if key.startswith(f"{old}/")}


def state_of(module: nn.Module, kind: str = "params") -> Payload:
    """A detached copy of a module's state dict as a payload."""
    return {f"{kind}/{name}": value.detach().cpu().clone() for name, value in module.state_dict().items()}


def load_state(module: nn.Module, payload: Mapping[str, Tensor], kind: str = "params") -> None:
    """Copies the entries of one kind into a module; every name and shape must match."""
    module.load_state_dict({key.removeprefix(f"{kind}/"): value for key, value in select(payload, kind).items()})


def weighted_mean(payloads: Iterable[Mapping[str, Tensor]], weights: Sequence[float]) -> Payload:
    """Sum over i of weights[i] * payloads[i] / sum(weights), key by key, in the order given; one payload is looked at at a time.

    Sums are taken in float64 so that the order of magnitude of the number of clients does not matter; integer tensors are rounded.

    Raises:
        ValueError: no payload, weights that are negative or sum to zero, or payloads whose keys differ.
    """
    total = float(sum(weights))
    if not weights or min(weights) < 0 or total <= 0:
        raise ValueError(f"weights must be one non-negative number a payload with a positive sum, got {list(weights)}")
    sums: Payload = {}
    types: dict[str, torch.dtype] = {}
    for payload, weight in zip_longest(payloads, weights):
        if payload is None or weight is None:
            raise ValueError(f"weights must be one a payload, got {len(weights)} and another number of payloads")
        if not types:
            types = {key: value.dtype for key, value in payload.items()}
            sums = {key: torch.zeros_like(value, dtype=torch.float64) for key, value in payload.items()}
        if payload.keys() != types.keys():
            raise ValueError(f"payloads must have the same keys, differ in {sorted(payload.keys() ^ types.keys())[:3]}")
        for key, value in payload.items():
            sums[key].add_(value, alpha=weight / total)
    return {key: (sums[key] if kind.is_floating_point else sums[key].round()).to(kind) for key, kind in types.items()}


def interpolate(start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> Payload:
    """(1 - share) * start + share * end, key by key."""
    return weighted_mean([start, end], [1.0 - share, share])


def is_finite(payload: Mapping[str, Tensor]) -> bool:
    """Whether no tensor holds NaN or infinity."""
    # A sum is finite only where all that it adds up is, so few values are looked at one by one: of sums that grew too large.
    floats = [value for value in payload.values() if value.is_floating_point()]
    return all(math.isfinite(value.sum().item()) or bool(torch.isfinite(value).all()) for value in floats)


def squared_distance(model: nn.Module, payload: Mapping[str, Tensor]) -> Tensor:
    """Sum over a module's trainable parameters of their squared distance from a payload's `params/`, with its gradient."""
    distances = [
        (parameter - payload[f"params/{name}"].to(parameter.device)).square().sum() for name, parameter in model.named_parameters()
    ]
    return torch.stack(distances).sum()
