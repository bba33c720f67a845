"""How far a run is, from what its directory says: no cluster is asked."""

from __future__ import annotations

import fcntl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raykd.results.lease import DEAD_S, is_dead_here, owner_of
from raykd.results.reader import Run, open_run
from raykd.scenario.errors import RaykdError
from raykd.storage import Folder, local_copy

KEPT = ("manifest.json", "run.log", "tables", "checkpoints", "models")
"""What changes while a run goes on."""


def state_of(run_dir: Path) -> dict[str, Any]:
    """Status, rounds done and in all, when it started and last changed (ISO 8601, UTC), and whether a process writes it.

    `status` is the manifest's, but `died` where that says running and no process holds the run's lock.

    Raises:
        RaykdError: the directory holds no run that can be read.
    """
    run = open_run(run_dir)
    is_written = is_locked(run_dir)
    status = str(run.manifest["status"])
    return {
        "run_dir": str(run_dir),
        "name": run.scenario.get("name"),
        "status": "died" if status == "running" and not is_written else status,
        "is_written": is_written,
        "rounds_done": _rounds_done(run),
        "rounds": run.scenario.get("federation", {}).get("rounds"),
        "started_at": run.manifest.get("started_at"),
        "changed_at": _changed_at(run_dir),
        "reason": run.manifest.get("reason"),
    }


def state_at(url: str) -> dict[str, Any]:
    """As `state_of`, of a run in a store. Raises `RaykdError` where none can be read."""
    state, owner = state_of(local_copy(url)), owner_of(Folder(url)) or {}
    is_written, status = _is_held(owner), state["status"]
    if "at_s" in owner:
        state["changed_at"] = datetime.fromtimestamp(owner["at_s"], UTC).isoformat(timespec="seconds")
    if status in ("died", "running"):
        status = "running" if is_written else "died"
    return {**state, "run_dir": url, "status": status, "is_written": is_written}


def _is_held(owner: dict[str, Any]) -> bool:
    """Whether a process has said of late that it writes a run in a store."""
    return bool(owner.get("is_held")) and not is_dead_here(owner) and time.time() - float(owner.get("at_s", 0.0)) < DEAD_S


def refuse_remote_written_now(url: str) -> None:
    """Raises `RaykdError` while a process writes a run in a store."""
    Folder(url).refuse_unreachable()
    if _is_held(owner_of(Folder(url)) or {}):
        raise RaykdError(f"{url}: a process writes it; wait until it has ended")


def is_locked(run_dir: Path) -> bool:
    """Whether a process writes the run in a directory, on this machine or on another that locks files together with it."""
    try:
        with (run_dir / "run.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _rounds_done(run: Run) -> int:
    rounds = run.rounds["round"]
    return 0 if rounds.empty else int(rounds.max()) + 1


def _changed_at(run_dir: Path) -> str:
    files = [path for name in KEPT for path in ((run_dir / name), *(run_dir / name).rglob("*"))]
    last_s = max(path.stat().st_mtime for path in files if path.exists())
    return datetime.fromtimestamp(last_s, UTC).isoformat(timespec="seconds")
