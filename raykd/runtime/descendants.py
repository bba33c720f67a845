"""The processes that this one started, and those that they did."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def end_descendants() -> None:
    """Kills every process that descends from this one, as those of a Ray of its own: by themselves they may outlive it for long.

    Does nothing where there is no /proc.
    """
    for pid in descendants():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def descendants(leader: int | None = None) -> list[int]:
    """Every process that descends from one, by default this one, parents before their children; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(file.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(file.parent.name))
    found, left = list[int](), [os.getpid() if leader is None else leader]
    while left:
        below = children.get(left.pop(0), [])
        found += below
        left += below
    return found
