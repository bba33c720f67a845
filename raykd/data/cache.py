"""Content-addressed files: what depends only on its inputs is computed once, by whichever process comes first."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

CACHE_VERSION = 1
"""Raised whenever what is computed from the same inputs changes."""

Stored = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors, and what is known of them as JSON values."""


def cache_dir() -> Path:
    """`$RAYKD_CACHE`, or `raykd` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "raykd"
    return Path(os.environ.get("RAYKD_CACHE", default))


def content_key(**inputs: Any) -> str:
    """SHA-256 (32 hex digits) of JSON inputs and the cache's version."""
    text = json.dumps({"cache_version": CACHE_VERSION, **inputs}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def cached(kind: str, key: str, compute: Callable[[], tuple[Mapping[str, Tensor], Mapping[str, Any]]]) -> Stored:
    """What `compute` returns, read from the cache where it is and stored there where it is not.

    The file is written aside and renamed, so that processes may race; a file that cannot be read is computed again.

    Args:
        kind: sub-folder of the cache: cases, teachers, knowledge.
        key: from `content_key`.
        compute: gives tensors and JSON values.
    """
    path = cache_dir() / kind / key[:2] / f"{key}.safetensors"
    stored = _read(path)
    if stored is None:
        tensors, values = compute()
        stored = ({name: value.contiguous() for name, value in tensors.items()}, dict(values))
        _write(path, stored)
    return stored


def _read(path: Path) -> Stored | None:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return tensors, json.loads(file.metadata()["raykd"])
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError):
        return None


def _write(path: Path, stored: Stored) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    save_file(stored[0], aside, metadata={"raykd": json.dumps(stored[1])})
    aside.replace(path)
