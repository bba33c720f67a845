"""Randomness is an address: every draw comes from a generator derived from what it is for, never from a global state."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def _entropy(seed: int, purpose: str, address: tuple[int | str, ...]) -> int:
    text = repr((int(seed), purpose, *address))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def generator(seed: int, purpose: str, *address: int | str) -> torch.Generator:
    """A torch generator for one purpose at one address, say `generator(seed, "patches", round_index, client_id)`.

    The same arguments give the same stream in any process, in any order, on any number of machines.
    """
    state = np.random.SeedSequence(_entropy(seed, purpose, address)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def numpy_generator(seed: int, purpose: str, *address: int | str) -> np.random.Generator:
    """The same, as a NumPy generator."""
    return np.random.default_rng(np.random.SeedSequence(_entropy(seed, purpose, address)))


_BORROWED = threading.RLock()
"""Held while torch's global state is borrowed."""


@contextmanager
def seeded_layers(rng: torch.Generator, device: torch.device | str = "cpu") -> Iterator[None]:
    """For what in torch takes no generator, dropout and initial parameters: its global state is borrowed, seeded from `rng`, and
    given back. Nothing else in raykd touches that state, and of several threads one at a time.

    Args:
        rng: advances by one draw.
        device: its state is borrowed beside the CPU's.
    """
    device = torch.device(device)
    seed = int(torch.randint(2**62, (), generator=rng))
    with _BORROWED, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.default_generators[device.index or 0].manual_seed(seed)
        yield


def uniform(rng: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    """One draw from the uniform distribution on [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=rng))


def integer(rng: torch.Generator, high: int) -> int:
    """One draw from 0, ..., high - 1."""
    return int(torch.randint(high, (), generator=rng))
