"""What clients keep and send, on disk: the driver's memory does not grow with their number.

Payloads are appended to a pack, one file for all that a round brings, and read back from where they lie; a file that was just
written is still in the machine's memory, so that this costs a copy. Once a pack is synced it is never written to again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from torch import Tensor

from raykd.federation.transport import Envelope, seal, unseal
from raykd.methods._base import Upload
from raykd.numerics.params import MEMORY

SUFFIX = ".pack"


class Place(NamedTuple):
    """Where a payload lies: its pack, the first byte, and the kinds and sizes of its parts in order."""

    pack: str
    start: int
    parts: Sequence[tuple[str, int]]

    @property
    def num_bytes(self) -> int:
        """Of all its parts."""
        return sum(size for _, size in self.parts)


EMPTY = Place("", 0, ())
"""Of a payload that holds nothing."""


class Pack:
    """A file that payloads are appended to.

    Args:
        name: of the file.
        file: its descriptor, of whoever holds the pack.
    """

    def __init__(self, name: str, file: int):
        self.name, self.end, self.is_synced = name, 0, False
        self._file, self._digest = file, hashlib.sha256()

    def append(self, blob: np.ndarray) -> None:
        """Adds bytes at the end."""
        self._digest.update(blob.data)
        self.end += _write(self._file, blob.data.cast("B"), self.end)

    def sync(self) -> str:
        """Brings it to the disk; its SHA-256."""
        os.fsync(self._file)
        self.is_synced = True
        return self._digest.hexdigest()


class Shelf:
    """Packs in a folder. What has ended may be read, and packs be removed, in another thread than the one that puts things there.

    Args:
        folder: made with the first pack; None: one that goes with the shelf.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder or Path(tempfile.mkdtemp(prefix="raykd-"))
        self._pack: Pack | None = None
        self._ended: list[Pack] = []
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()
        self.close = weakref.finalize(self, _let_go, self._files, None if folder else self.folder)
        """Lets go of all files; so does whoever lets go of the shelf."""

    def begin(self, name: str) -> None:
        """Starts a new pack, in place of one of the same name that was left behind."""
        self._remove([self._pack] if self._pack else [])
        self.folder.mkdir(parents=True, exist_ok=True)
        pack = name + SUFFIX
        with self._lock:
            self._files[pack] = os.open(self.folder / pack, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            self._pack = Pack(pack, self._files[pack])

    def put(self, envelope: Envelope) -> Place:
        """Appends a payload to the pack that was begun."""
        if not envelope:
            return EMPTY
        assert self._pack, "a pack must have been begun"
        blobs = sorted(envelope.items())
        place = Place(self._pack.name, self._pack.end, [(kind, blob.nbytes) for kind, blob in blobs])
        for _, blob in blobs:
            self._pack.append(blob)
        return place

    def get(self, place: Place) -> Envelope:
        """The payload at a place."""
        envelope, start = {}, place.start
        for kind, size in place.parts:
            blob = np.empty(size, dtype=np.uint8)
            _read(self._file(place.pack), blob.data, start)
            envelope[kind], start = blob, start + size
        return envelope

    def is_sound(self, pack: str, sha256: str) -> bool:
        """Whether a pack is there as it was synced."""
        try:
            with (self.folder / pack).open("rb") as content:
                return hashlib.file_digest(content, "sha256").hexdigest() == sha256
        except OSError:
            return False

    def end(self) -> Pack:
        """Ends the pack that was begun, which is still to be synced."""
        assert self._pack, "a pack must have been begun"
        ended, self._pack = self._pack, None
        self._ended = [*(pack for pack in self._ended if not pack.is_synced), ended]
        return ended

    def discard(self) -> None:
        """Removes the pack that was begun and those not synced, if there are any: what came to nothing leaves nothing behind."""
        self._remove([pack for pack in [*self._ended, self._pack] if pack and not pack.is_synced])
        self._ended, self._pack = [], None

    def keep(self, packs: Iterable[str]) -> None:
        """Removes all packs but these and the one that was begun."""
        with self._lock:
            kept = {*packs, *([self._pack.name] if self._pack else [])}
            for name in [name for name in self._files if name not in kept]:
                os.close(self._files.pop(name))
            for path in self.folder.glob(f"*{SUFFIX}"):
                if path.name not in kept:
                    path.unlink()

    def _remove(self, packs: Iterable[Pack]) -> None:
        with self._lock:
            for pack in packs:
                os.close(self._files.pop(pack.name))
                (self.folder / pack.name).unlink(missing_ok=True)

    def _file(self, pack: str) -> int:
        with self._lock:
            if pack not in self._files:
                self._files[pack] = os.open(self.folder / pack, os.O_RDONLY | os.O_CLOEXEC)
            return self._files[pack]


def _let_go(files: dict[str, int], folder: Path | None) -> None:
    for file in files.values():
        os.close(file)
    files.clear()
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def _write(file: int, content: memoryview, start: int) -> int:
    done = 0
    while done < len(content):
        done += os.pwrite(file, content[done:], start + done)
    return done


def _read(file: int, into: memoryview, start: int) -> None:
    done = 0
    while done < len(into):
        count = os.preadv(file, [into[done:]], start + done)
        if count == 0:
            raise EOFError(f"a pack ends {len(into) - done} bytes early")
        done += count


class ShelvedPayload(Mapping[str, Tensor]):
    """A payload that is read when it is first looked into, and let go with this object."""

    def __init__(self, shelf: Shelf, place: Place):
        self._shelf, self._place = shelf, place
        self._payload: dict[str, Tensor] | None = None

    def _read(self) -> dict[str, Tensor]:
        if self._payload is None:
            envelope = self._shelf.get(self._place)
            envelope.pop(MEMORY, None)  # what codecs keep is no part of what a method keeps
            self._payload = unseal(envelope)
        return self._payload

    def __getitem__(self, key: str) -> Tensor:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


class ShelvedUploads(Sequence[Upload]):
    """The uploads of a round in client order, each read when it is asked for.

    Args:
        shelf: where they lie.
        entries: client, place, number of labelled and of unlabelled cases.
    """

    def __init__(self, shelf: Shelf, entries: Sequence[tuple[int, Place, int, int]]):
        self._shelf, self.entries = shelf, entries

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Upload: ...

    @overload
    def __getitem__(self, index: slice) -> ShelvedUploads: ...

    def __getitem__(self, index: int | slice) -> Upload | ShelvedUploads:
        if isinstance(index, slice):
            return ShelvedUploads(self._shelf, self.entries[index])
        client_id, place, num_labelled, num_unlabelled = self.entries[index]
        return Upload(client_id, ShelvedPayload(self._shelf, place), num_labelled, num_unlabelled)

    def sealed(self) -> tuple[tuple[int, Envelope, int, int], ...]:
        """All of them as they were sent."""
        return tuple((client_id, self._shelf.get(place), known, unknown) for client_id, place, known, unknown in self.entries)


def sealed_uploads(uploads: Sequence[Upload]) -> tuple[tuple[int, Envelope, int, int], ...]:
    """Client, payload, and numbers of labelled and unlabelled cases of every upload."""
    if isinstance(uploads, ShelvedUploads):
        return uploads.sealed()
    return tuple((u.client_id, seal(dict(u.payload)), u.num_labelled, u.num_unlabelled) for u in uploads)
