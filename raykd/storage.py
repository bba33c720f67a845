"""Folders in object stores and on other remote file systems, by URL: `s3://bucket/run`, `gs://...`, `memory://...`.

S3 and Google's store are spoken to by Arrow, which needs nothing else installed, all others by fsspec. Credentials are those that
the store's own libraries find (environment, files of the user, the machine's role): raykd reads, prints and stores none.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow.fs import FileSelector, FileType, S3FileSystem

from raykd.scenario.errors import RaykdError

T = TypeVar("T")
ANSWER_S = 20.0
"""Within which a store must give its first answer."""
CONNECT_S = 5.0
LARGE_BYTES = 32 * 2**20
"""From which size a file is sent in parts."""
OWNER = "owner.json"
"""Who writes a remote run directory: no file of the run."""
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/+(?=[^/])")
_DENIED = ("ACCESS_DENIED", "Forbidden", "INVALID_ACCESS_KEY", "SIGNATURE", "InvalidAccessKeyId", "UNRECOGNIZED_CLIENT")


class StorageError(RaykdError):
    """A store does not answer, refuses, or lacks what was asked for."""


def cache_dir() -> Path:
    """`$RAYKD_CACHE`, or `raykd` in the user's cache folder. Raises `RaykdError` where the user has none and none is named."""
    if named := os.environ.get("RAYKD_CACHE"):
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raykd"
    except RuntimeError:
        raise RaykdError(
            "the cache must have a place, got no home directory; set RAYKD_CACHE to a directory where you may write"
        ) from None


def refuse_unwritable(place: Path, hint: str) -> None:
    """Raises `RaykdError` with a hint where nothing can be written at a place of this machine, which need not be there yet."""
    try:
        there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    except OSError as error:
        raise RaykdError(f"{place}: cannot be written ({error.strerror}); {hint}") from None
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise RaykdError(f"{place}: nothing can be written in {there}; {hint}")


def url_of(place: str | Path) -> str | None:
    """The URL that a text or a path made of one stands for; None: it is a path of this machine.

    Raises:
        StorageError: the URL holds a password.
    """
    text = str(place)
    match = _SCHEME.match(text)
    if match is None:
        return None
    scheme, rest = match[1], text[match.end() :].rstrip("/")
    url = f"{scheme}:///{rest}" if scheme == "file" else f"{scheme}://{rest}"
    if urlsplit(url).password is not None:
        host = urlsplit(url).hostname or ""
        raise StorageError(f"{scheme}://...@{host}: a URL must hold no password; give it as the store's own tools take it")
    return url


class Folder:
    """A folder of a store.

    Args:
        url: as `url_of` gives it.

    Raises:
        StorageError: nothing installed here speaks to such a store.
    """

    def __init__(self, url: str):
        self.url = url
        self._fs, self._path = _opened(url)

    def listing(self) -> dict[str, str]:
        """Every file below the folder, by its path from there, and a token that changes with its content."""

        def listed() -> dict[str, str]:
            prefix = self._path.strip("/") + "/"
            found = {name.strip("/"): token for name, token in self._found()}
            return {name.removeprefix(prefix): found[name] for name in sorted(found) if name.startswith(prefix)}

        return self._asked("listed", listed)

    def _found(self) -> Iterator[tuple[str, str]]:
        """Name and token of every file; fsspec's own walk through Arrow would take what fails for what is not there."""
        if isinstance(self._fs, ArrowFSWrapper):
            for info in self._fs.fs.get_file_info(FileSelector(self._path, recursive=True, allow_not_found=True)):
                if info.type is FileType.File:
                    yield info.path, f"{info.size} {info.mtime_ns}"
            return
        self._fs.invalidate_cache()
        with suppress(FileNotFoundError):
            for info in self._fs.find(self._path, detail=True, on_error="raise").values():
                yield str(info["name"]), _token(info)

    def is_file(self) -> bool:
        """Whether the URL names a file and no folder."""
        return bool(self._asked("looked at", lambda: self._fs.isfile(self._path)))

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is no such file."""

        def read() -> bytes | None:
            try:
                return bytes(self._fs.cat_file(self._at(name)))
            except FileNotFoundError:
                return None

        return self._asked(f"read ({name})", read)

    def write(self, name: str, content: bytes | Path) -> None:
        """Puts a file there; in an object store wholly or not at all."""

        def write() -> None:
            path = self._at(name)
            if self._fs.protocol in ("memory", ("file", "local")):
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            if isinstance(content, Path) and content.stat().st_size > LARGE_BYTES:
                self._fs.put_file(str(content), path)
            else:
                self._fs.pipe_file(path, content if isinstance(content, bytes) else content.read_bytes())

        self._asked(f"written ({name})", write)

    def remove(self, name: str) -> None:
        """Removes a file; one that is not there is none."""

        def remove() -> None:
            try:
                self._fs.rm_file(self._at(name))
            except FileNotFoundError:
                return

        self._asked(f"cleared ({name})", remove)

    def fetch(self, into: Path, is_wanted: Callable[[str], bool] = lambda name: True, *, is_anew: bool = False) -> None:
        """Makes a local directory what the folder is: what changed is fetched, what is gone is removed.

        Args:
            into: the directory; what it was fetched from lies beside it.
            is_wanted: which names count; others are left as they are.
            is_anew: files at the top, which are rewritten in place, whatever the times say, which in stores are of whole seconds.
        """
        record = into.with_name(f".{into.name}.fetched")
        known = _json(record.read_bytes()) if record.is_file() else {}
        there = {name: token for name, token in self.listing().items() if is_wanted(name)}
        for name, token in there.items():
            if (is_anew and "/" not in name) or known.get(name) != token or not (into / name).is_file():
                _put(into / name, self.read(name) or b"")
        for name in [name for name in known if name not in there and is_wanted(name)]:
            (into / name).unlink(missing_ok=True)
        kept = {name: token for name, token in known.items() if not is_wanted(name)}
        _put(record, json.dumps({**kept, **there}).encode())

    def _probe(self) -> None:
        """Asks for what a listing tells no difference of: a bucket that is not there."""
        bucket = self._path.partition("/")[0]
        if isinstance(self._fs, ArrowFSWrapper) and not self._asked("looked at", lambda: self._fs.exists(bucket)):
            raise StorageError(f"{self.url}: there is no bucket {bucket}; make it first")

    def refuse_unreachable(self) -> None:
        """Raises `StorageError` where the store does not answer in time, refuses, or has no such bucket."""
        answers: list[Any] = []

        def ask() -> None:
            try:
                self._probe()
                answers.append(self.listing())
            except StorageError as error:
                answers.append(error)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(ANSWER_S)
        if not answers:
            raise StorageError(f"{self.url}: the store did not answer within {ANSWER_S:.0f} s; see its address and the network")
        if isinstance(answers[0], StorageError):
            raise answers[0]

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path

    def _asked(self, what: str, ask: Callable[[], T]) -> T:
        """What a store answers. Raises `StorageError` for whatever else it does: libraries of stores raise all kinds of things."""
        try:
            return ask()
        except Exception as error:
            raise StorageError(f"{self.url}: cannot be {what}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if isinstance(error, PermissionError) or any(word in said for word in _DENIED):
        return f"no permission ({said}); see which credentials the store's own tools use here"
    if "NETWORK_CONNECTION" in said or isinstance(error, ConnectionError | TimeoutError):
        return f"nobody answers there ({said}); see its address (for S3 AWS_ENDPOINT_URL) and the network"
    if "NO_SUCH_BUCKET" in said:
        return f"there is no such bucket ({said.partition(' (Request')[0]}); make it first"
    return said


@functools.lru_cache(maxsize=64)
def _opened(url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    if scheme in ("s3", "s3a", "gs", "gcs"):
        return ArrowFSWrapper(_arrow(scheme)), url.partition("://")[2]
    try:
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(url)
        return fs, str(path).rstrip("/")
    except ImportError as error:
        raise StorageError(f"{url}: what speaks to such a store is not installed here ({error})") from None
    except ValueError as error:
        raise StorageError(f"{url}: must begin with a scheme that is known, as s3:// or gs://, got another ({error})") from None


def _arrow(scheme: str) -> Any:
    if scheme.startswith("g"):
        from pyarrow.fs import GcsFileSystem

        return GcsFileSystem()
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return S3FileSystem(endpoint_override=endpoint, connect_timeout=CONNECT_S, allow_delayed_open=True, background_writes=False)


def _token(info: dict[str, Any]) -> str:
    return " ".join(str(info.get(key)) for key in ("size", "ETag", "LastModified", "mtime", "created") if info.get(key) is not None)


def _json(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _put(path: Path, content: bytes) -> None:
    """Writes a file so that processes may race."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    aside.write_bytes(content)
    aside.replace(path)


def place_in_cache(url: str, kind: str) -> Path:
    """Where the cache keeps something of a URL: `run` that is written, `copy` that is read, `data`."""
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    return cache_dir() / "remote" / key / kind / (url.rstrip("/").rpartition("/")[2] or "root")


def local_copy(place: str | Path, *, is_whole: bool = False) -> Path:
    """A path of this machine as it is; of a URL a copy in the cache, brought up to date.

    Args:
        place: a run or study directory.
        is_whole: checkpoints and models, too, and every byte read anew.

    Raises:
        StorageError: nothing is there, or it cannot be read.
    """
    url = url_of(place)
    if url is None:
        return Path(place)
    folder, into = Folder(url), place_in_cache(url, "whole" if is_whole else "copy")
    folder.refuse_unreachable()
    if is_whole:
        shutil.rmtree(into.parent, ignore_errors=True)
    large: Collection[str] = () if is_whole else ("checkpoints", "models")
    folder.fetch(into, lambda name: not any(part in large for part in name.split("/")) and not name.endswith(OWNER), is_anew=True)
    if not into.is_dir():
        raise StorageError(f"{url}: there is nothing there; give the URL that `raykd run` printed last")
    return into
