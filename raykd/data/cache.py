"""Content-addressed files: what depends only on its inputs is computed once, by whichever process comes first."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

import raykd
from raykd.storage import cache_dir

CACHE_VERSION = 3
"""Raised whenever what is computed from the same inputs changes."""
COMPUTED_BY = ("monai", "nibabel", "numpy", "scipy", "SimpleITK", "torch", "torchio")
"""Packages whose versions are part of every key, because what is stored was computed with them."""
ABANDONED_S = 24 * 3600.0
"""Age from which an unfinished file of another machine is taken for abandoned."""

Stored = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors, and what is known of them as JSON values."""


@functools.cache
def versions() -> dict[str, str]:
    """raykd's version and those of the packages that it computes with."""
    return {"raykd": raykd.__version__, **{name: version(name) for name in COMPUTED_BY}}


def content_key(**inputs: Any) -> str:
    """SHA-256 (32 hex digits) of JSON inputs, the cache's version and those of the packages that compute."""
    text = json.dumps({"cache_version": CACHE_VERSION, "versions": versions(), "inputs": inputs}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def is_cached(kind: str, key: str) -> bool:
    """Whether there is an entry; it is not opened, and does not count as used."""
    return _path(kind, key).is_file()


def cached(kind: str, key: str, compute: Callable[[], tuple[Mapping[str, Tensor], Mapping[str, Any]]]) -> Stored:
    """What `compute` returns, read from the cache where it is and stored there where it is not.

    The file is written aside and renamed, so that processes may race; a file that cannot be read is computed again. Tensors are
    mapped from the file, copied on write: processes of one machine share them, and pages are read when they are needed.

    Args:
        kind: sub-folder of the cache: cases, teachers, knowledge.
        key: from `content_key`.
        compute: gives tensors and JSON values.
    """
    path = _path(kind, key)
    stored = _read(path)
    if stored is None:
        tensors, values = compute()
        stored = ({name: value.contiguous() for name, value in tensors.items()}, dict(values))
        _write(path, stored)
        stored = _read(path) or stored  # what was computed is let go for what all processes share
    return stored


def _path(kind: str, key: str) -> Path:
    return cache_dir() / kind / key[:2] / f"{key}.safetensors"


def _read(path: Path) -> Stored | None:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            values = json.loads(file.metadata()["raykd"])
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError):
        return None
    with contextlib.suppress(OSError):  # a cache that may only be read is a cache
        os.utime(path, (time.time(), path.stat().st_mtime))
    return tensors, values


def _write(path: Path, stored: Stored) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.{uuid.uuid4().hex}.{socket.gethostname()}")
    save_file(stored[0], aside, metadata={"raykd": json.dumps(stored[1])})
    aside.replace(path)


@dataclass(frozen=True)
class Entry:
    """A file of the cache, or a folder of what was fetched from a store.

    Attributes:
        kind: its sub-folder.
        path: where it lies.
        num_bytes: its size.
        used_s: when it was last read or written, in seconds since the epoch.
        is_whole: false for what a writer has not finished.
    """

    kind: str
    path: Path
    num_bytes: int
    used_s: float
    is_whole: bool = True


def entries() -> list[Entry]:
    """Every file of the cache, finished or not; those that vanish meanwhile are left out."""
    found = []
    for path in sorted(cache_dir().glob("*/*/*")):
        with contextlib.suppress(OSError):
            if path.is_file() and (path.suffix == ".safetensors" or path.name.startswith(".")):
                stat = path.stat()
                is_whole = not path.name.startswith(".")
                used_s = max(stat.st_atime, stat.st_mtime)
                found.append(Entry(path.parts[-3], path, stat.st_size, used_s, is_whole))
    return found


def abandoned(found: Iterable[Entry], now_s: float) -> list[Entry]:
    """The unfinished files that nobody will finish: their writer's process is gone, or they are a day old."""
    return [entry for entry in found if not entry.is_whole and (now_s - entry.used_s > ABANDONED_S or _is_orphan(entry.path))]


def _is_orphan(path: Path) -> bool:
    """Whether the file names a writer of this machine that has ended."""
    parts = path.name.split(".", 4)
    if len(parts) < 5 or not parts[2].isdigit() or parts[4] != socket.gethostname():
        return False
    try:
        os.kill(int(parts[2]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def to_prune(found: Iterable[Entry], now_s: float, *, unused_s: float | None = None, max_bytes: int | None = None) -> list[Entry]:
    """What to remove of finished entries: those long unused, then the least recently used until the others fit a size.

    Args:
        found: from `entries`.
        now_s: seconds since the epoch.
        unused_s: remove what was not used for longer; None: by age nothing.
        max_bytes: size of what may stay; None: any.
    """
    oldest_first = sorted((entry for entry in found if entry.is_whole), key=lambda entry: (entry.used_s, entry.path))
    chosen = [entry for entry in oldest_first if unused_s is not None and now_s - entry.used_s > unused_s]
    kept = oldest_first[len(chosen) :]
    surplus = -1 if max_bytes is None else sum(entry.num_bytes for entry in kept) - max_bytes
    for entry in kept:
        if surplus <= 0:
            break
        chosen.append(entry)
        surplus -= entry.num_bytes
    return chosen


def remove(chosen: Iterable[Entry]) -> int:
    """Removes entries and returns their bytes. Whoever has one open keeps it; whoever wants one computes it again."""
    num_bytes = 0
    for entry in chosen:
        with contextlib.suppress(FileNotFoundError):
            if entry.path.is_dir():
                shutil.rmtree(entry.path)
            else:
                entry.path.unlink()
            num_bytes += entry.num_bytes
    return num_bytes
