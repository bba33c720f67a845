"""A run directory that is kept in a store as well: every durable step there in the order in which it was taken here.

So what is in the store is at any time what a process that died would have left on a disk, and can be gone on with anywhere.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from raykd.failpoints import failpoint
from raykd.results.checksums import CHECKPOINTS, LOCK, LOG, NAME, Journal
from raykd.results.durable import ASIDES
from raykd.results.lease import Lease
from raykd.scenario.errors import RunFailed
from raykd.storage import OWNER, Folder, StorageError

T = TypeVar("T")


class Mirror:
    """Writes to a store what a run writes to its directory.

    Args:
        folder: in the store.
        run_dir: here.
        lease: by which this process may write there.
    """

    def __init__(self, folder: Folder, run_dir: Path, lease: Lease):
        self._folder, self._run_dir, self._lease = folder, run_dir, lease
        self._checkpoints: set[str] = set()
        self._is_broken = False

    def put(self, path: Path) -> None:
        """Brings a file there whose checksum has been noted. Raises `RunFailed` where the store does not take it."""
        name = path.relative_to(self._run_dir).as_posix()
        if name.endswith(".json"):
            self._push(LOG)
        self._push(NAME, name)
        if name.startswith(CHECKPOINTS):
            self._checkpoints.add(name)
        for gone in sorted(old for old in self._checkpoints if not (self._run_dir / old).exists()):
            self._drop(gone)

    def seal(self) -> None:
        """Brings there what only a run that has ended has."""
        self._push(LOG, NAME)

    def settle(self) -> None:
        """Makes the store hold what this directory holds, as after a run that ended without a word was taken up."""
        there = self._asked(self._folder.listing) or {}
        journal = self._asked(lambda: self._folder.read(NAME)) or b""
        known = Journal.parsed(journal.decode(errors="replace")).entries
        here = {path.relative_to(self._run_dir).as_posix(): path for path in self._run_dir.rglob("*") if path.is_file()}
        here = {name: path for name, path in here.items() if name not in (LOCK, NAME) and not path.match(ASIDES)}
        self._checkpoints = {name for name in here if name.startswith(CHECKPOINTS)}
        for name, path in here.items():
            if name not in there or name == LOG or known.get(name, [""])[-1] != _digest(path):
                self._push(name)
        self._push(NAME)
        for name in sorted(there.keys() - here.keys() - {NAME, OWNER, LOCK}):
            if name.startswith(CHECKPOINTS):
                self._drop(name)

    def _push(self, *names: str) -> None:
        for name in names:
            path = self._run_dir / name
            if path.is_file():
                failpoint("mirror.before_write")
                self._asked(functools.partial(self._folder.write, name, path))

    def _drop(self, name: str) -> None:
        self._asked(lambda: self._folder.remove(name))
        self._checkpoints.discard(name)

    def _asked(self, ask: Callable[[], T]) -> T | None:
        """What the store answers; after it has failed once it is left alone, so that the run can end here."""
        if self._is_broken:
            return None
        try:
            self._lease.refuse_lost()
            return ask()
        except StorageError as error:
            self._is_broken = True
            raise RunFailed(str(error)) from None


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
