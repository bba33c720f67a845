"""Runs and studies whose directory is a URL: runs are written in this machine's cache and mirrored to the store step by step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from raykd.launch import Plan
from raykd.results.checksums import LOCK, LOG, MANIFEST, NAME
from raykd.results.lease import claim, held
from raykd.results.mirror import Mirror
from raykd.scenario.errors import RaykdError
from raykd.storage import OWNER, Folder, place_in_cache

OUTLINE = ("study.yaml", "scenario.yaml", MANIFEST)
UNBEGUN = {OWNER, NAME, LOG, LOCK, "scenario.yaml"}
"""All that a run may leave in a store that was cut off before its manifest."""


def staged(url: str) -> Path:
    """Where a run is written on this machine."""
    return place_in_cache(url, "run")


def to_begin(plan: Plan, url: str) -> Plan:
    """The plan of a new run whose directory is a URL, claimed for this machine.

    Raises:
        StorageError: nothing can be read or written there.
        RaykdError: the directory is taken, somebody writes it, or a run that did not reach it waits here.
    """
    folder, run_dir = Folder(url), staged(url)
    folder.refuse_unreachable()
    _refuse_taken(folder)
    if _status(run_dir) in ("running", "failed", "interrupted"):
        raise RaykdError(
            f"{url}: a run that has not reached it is in {run_dir}; go on with it: raykd resume {url}, or remove that directory"
        )
    shutil.rmtree(run_dir, ignore_errors=True)
    _claim(folder, run_dir)
    for name in folder.listing().keys() & (UNBEGUN - {OWNER}):
        folder.remove(name)
    return replace(plan, run_dir=run_dir, url=url)


def check_out(url: str) -> Path:
    """A run of a store, claimed for this machine, as the directory here in which it goes on.

    Where this machine wrote it last, what is here counts: it is as far as the store or further.

    Raises:
        StorageError: it cannot be read or written there.
        RaykdError: somebody writes it.
    """
    folder, run_dir = Folder(url), staged(url)
    folder.refuse_unreachable()
    was_ours = _name_in(run_dir)
    name = _claim(folder, run_dir)
    never_there = folder.read(MANIFEST) is None and _status(run_dir) != ""
    if not never_there and (name != was_ours or _status(run_dir) == ""):
        shutil.rmtree(run_dir, ignore_errors=True)
        run_dir.with_name(f".{run_dir.name}.fetched").unlink(missing_ok=True)
        folder.fetch(run_dir, lambda name: name not in (OWNER, LOCK))
    return run_dir


def outline(url: str) -> Path:
    """What a study in a store says of itself and of its cells, fetched anew; a path that does not exist where nothing is there.

    Raises:
        StorageError: it cannot be read.
    """
    folder, into = Folder(url), place_in_cache(url, "outline")
    folder.refuse_unreachable()
    shutil.rmtree(into.parent, ignore_errors=True)
    folder.fetch(into, lambda name: name.rpartition("/")[2] in OUTLINE)
    return into


@contextmanager
def mirrored(plan: Plan) -> Iterator[Mirror | None]:
    """The mirror of a run, held against other writers until the block ends; None where its directory is none of a store."""
    if not plan.url:
        yield None
        return
    folder = Folder(plan.url)
    with held(folder, _name_in(plan.run_dir) or "") as lease:
        yield Mirror(folder, plan.run_dir, lease)


def _claim(folder: Folder, run_dir: Path) -> str:
    name = claim(folder, _name_in(run_dir))
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    _file_of(run_dir).write_text(name, encoding="utf-8")
    return name


def _name_in(run_dir: Path) -> str | None:
    file = _file_of(run_dir)
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _file_of(run_dir: Path) -> Path:
    return run_dir.with_name(f".{run_dir.name}.owner")


def _status(run_dir: Path) -> str:
    try:
        return str(json.loads((run_dir / MANIFEST).read_text(encoding="utf-8"))["status"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def has_begun(url: str) -> bool:
    """Whether a store holds a run that can be gone on with, or that is done. Raises `StorageError`."""
    folder = Folder(url)
    folder.refuse_unreachable()
    return folder.read(MANIFEST) is not None or _status(staged(url)) != ""


def _refuse_taken(folder: Folder) -> None:
    names = folder.listing().keys()
    if names <= UNBEGUN:
        return
    rule = f"{folder.url}: a new run needs a directory that is empty or not there yet"
    try:
        status = json.loads(folder.read(MANIFEST) or b"")["status"]
    except (ValueError, KeyError, TypeError):
        raise RaykdError(f"{rule}, got one that holds {min(names)}; give another with --out") from None
    then = f"`raykd report {folder.url}` shows it" if status == "done" else f"`raykd resume {folder.url}` goes on with it"
    raise RaykdError(f"{rule}, got one with a run ({status}; {then}); give another with --out")
