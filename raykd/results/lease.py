"""Who writes a remote run directory: one process at a time, as far as stores that know no locks allow.

`owner.json` beside the run names its writer and holds a number that the writer raises every few seconds. Whoever wants to write
looks on for a while: where the number rises, somebody writes; where it stands still, the writer is dead. A writer that finds
another's name there ends. Two that begin in the same second may both believe to be alone until the first of them looks again.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from raykd.scenario.errors import RaykdError
from raykd.storage import OWNER, Folder, StorageError

BEAT_S, DEAD_S, LOOK_S = 15.0, 45.0, 2.0


def owner_of(folder: Folder) -> dict[str, Any] | None:
    """What is written there of the writer; None: nobody ever was."""
    content = folder.read(OWNER)
    try:
        found = json.loads(content or b"null")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def claim(folder: Folder, name: str | None) -> str:
    """Makes a directory this machine's to write, once nobody else does.

    Args:
        folder: of the run.
        name: under which this machine wrote it last; None: it has not.

    Returns:
        The name under which it may write.

    Raises:
        RaykdError: somebody writes it.
    """
    seen = owner_of(folder)
    if seen is not None and seen.get("name") == name and name is not None:
        return name
    _refuse_alive(folder, seen)
    own = uuid.uuid4().hex
    _write(folder, own, 0, is_held=False)
    return own


@contextmanager
def held(folder: Folder, name: str) -> Iterator[Lease]:
    """Shows that a directory is being written until the block ends. Raises `RaykdError` where it has become another's."""
    lease = Lease(folder, name)
    lease.beat()
    thread = threading.Thread(target=lease.keep_on, daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        lease.ended.set()
        thread.join()
        with suppress(StorageError):
            if not lease.is_lost:
                _write(folder, name, lease.number, is_held=False)


class Lease:
    """A claim that is kept up."""

    def __init__(self, folder: Folder, name: str):
        self._folder, self._name = folder, name
        self.number, self.is_lost, self.ended = 0, False, threading.Event()

    def beat(self) -> None:
        """Raises the number. Raises `RaykdError` where the directory has become another's."""
        found = owner_of(self._folder)
        if found is not None and found.get("name") != self._name:
            self.is_lost = True
            self.refuse_lost()
        self.number += 1
        _write(self._folder, self._name, self.number, is_held=True)

    def keep_on(self) -> None:
        """Beats until the end; a store that is away for a while does not end it."""
        while not self.ended.wait(BEAT_S) and not self.is_lost:
            with suppress(RaykdError):
                self.beat()

    def refuse_lost(self) -> None:
        """Raises `RaykdError` where another process took over."""
        if self.is_lost:
            raise StorageError(f"{self._folder.url}: a run directory has one writer at a time, and another process took it over")


def _refuse_alive(folder: Folder, seen: dict[str, Any] | None) -> None:
    if seen is None or not seen.get("is_held") or is_dead_here(seen):
        return
    end_s = time.monotonic() + DEAD_S
    while time.monotonic() < end_s:
        time.sleep(LOOK_S)
        now = owner_of(folder)
        if now is None or not now.get("is_held"):
            return
        if now != seen:
            holder = f"process {now.get('process')} of {now.get('machine')}"
            raise RaykdError(f"{folder.url}: a run directory has one writer at a time, and {holder} writes this one")


def is_dead_here(owner: dict[str, Any]) -> bool:
    """Whether the writer was a process of this machine that is gone."""
    if owner.get("machine") != platform.node() or not isinstance(owner.get("process"), int):
        return False
    try:
        os.kill(owner["process"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _write(folder: Folder, name: str, number: int, *, is_held: bool) -> None:
    about = {"name": name, "number": number, "is_held": is_held, "process": os.getpid(), "machine": platform.node()}
    folder.write(OWNER, json.dumps({**about, "at_s": time.time()}).encode())
