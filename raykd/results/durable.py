"""Files that are there wholly or not at all, whatever ends the process or the machine."""

from __future__ import annotations

import os
from pathlib import Path

from raykd.failpoints import failpoint

ASIDE = ".{}.aside"
ASIDES = ".*.aside"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file aside, flush it to the disk and rename it; what cannot be written wholly leaves no trace."""
    aside = path.with_name(ASIDE.format(path.name))
    failpoint("write.before_aside")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            failpoint("write.before_fsync")
            os.fsync(file.fileno())
        failpoint("write.before_rename")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    failpoint("write.after_rename")
    _flush(path.parent)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file and flush it to the disk, on a line of its own even if the one before it was cut off."""
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
        file.write((b"\n" if size and file.read(1) != b"\n" else b"") + f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def make_folder(folder: Path) -> None:
    """Make a directory and its parents where they are missing, each flushed to the disk."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for part in missing:
        _flush(part.parent)


def sweep(folder: Path) -> None:
    """Remove what a process that died had written aside, at any depth."""
    for path in folder.rglob(ASIDES):
        path.unlink()


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
