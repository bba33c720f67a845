"""What the cache holds of stores: cases that settings name by URL, fetched by every machine that reads them, and runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from raykd.data.cache import Entry
from raykd.scenario.errors import RaykdError
from raykd.storage import Folder, StorageError, cache_dir, place_in_cache, url_of

S = TypeVar("S", bound=BaseModel)
LISTINGS = (".csv", ".json")
"""Files that name others of their folder, which is then fetched with them."""


def localised(settings: S) -> S:
    """Settings of which every text that is a URL has become a path or a pattern of this machine, all that it names fetched.

    Raises:
        StorageError: a store does not answer, refuses, or has nothing of that name.
    """
    urls = {name: url_of(value) for name, value in settings if isinstance(value, str)}
    return settings.model_copy(update={name: _fetched(url) for name, url in urls.items() if url})


def is_fetched(path: Path) -> bool:
    """Whether a path lies where files of stores are fetched to."""
    try:
        return path.absolute().is_relative_to((cache_dir() / "remote").absolute())
    except RaykdError:
        return False  # nothing is fetched where there is no cache


def entries_of_stores() -> list[Entry]:
    """The folders of the cache that are of stores: `fetched` ones, and `runs` that were written here and have reached their store.

    A run that is not done is left out, since what is here of it may be in no store.
    """
    found = []
    for folder in sorted((cache_dir() / "remote").glob("*/*")):
        if folder.name == "run" and not all(_is_done(run_dir) for run_dir in folder.glob("*/")):
            continue
        stats = []
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):
                stats += [path.stat()] if path.is_file() else []
        if stats:
            num_bytes, used_s = sum(stat.st_size for stat in stats), max(stat.st_mtime for stat in stats)
            found.append(Entry("runs" if folder.name == "run" else "fetched", folder, num_bytes, used_s))
    return found


def _is_done(run_dir: Path) -> bool:
    try:
        return bool(json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))["status"] == "done")
    except (OSError, ValueError, KeyError, TypeError):
        return False


@lru_cache(maxsize=1024)
def _fetched(url: str) -> str:
    """The path or pattern here that a URL or a pattern with one `*` stands for; asked of the store once a process."""
    before, star, after = url.partition("*")
    if star:
        base, _, prefix = before.rpartition("/")
        return str(_fetch(url, base, _matching(prefix, after)) / f"{prefix}*{after}")
    folder = Folder(url)
    folder.refuse_unreachable()
    if not folder.is_file():
        return str(_fetch(url, url, lambda name: True))
    base, _, own = url.rpartition("/")
    return str(_fetch(url, base, lambda name: name == own or url.endswith(LISTINGS)) / own)


def _matching(prefix: str, after: str) -> Callable[[str], bool]:
    """Whether a file's path is one that a pattern names, or lies below one."""
    suffix, _, tail = after.partition("/")

    def is_wanted(name: str) -> bool:
        first, _, rest = name.partition("/")
        is_alike = first.startswith(prefix) and first.endswith(suffix) and len(first) > len(prefix) + len(suffix)
        named = tail.replace("*", first[len(prefix) : len(first) - len(suffix)])
        return is_alike and (rest == named or rest.startswith(f"{named}/" if named else ""))

    return is_wanted


def _fetch(url: str, base: str, is_wanted: Callable[[str], bool]) -> Path:
    folder, into = Folder(base), place_in_cache(base, "data")
    folder.refuse_unreachable()
    if not any(map(is_wanted, folder.listing())):
        raise StorageError(f"{url}: must name something that is there, got nothing; correct the URL")
    folder.fetch(into, is_wanted)
    return into
