"""How far a run is, from what its directory says: no cluster is asked."""

from __future__ import annotations

import fcntl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raykd.results.reader import Run, open_run

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
