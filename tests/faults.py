"""Running the tiny scenario in processes that may be killed: forked from a server that has imported everything, to start fast."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PRELOADED = ["raykd.execution", "raykd.resume", "raykd.runtime.in_process", "raykd.federation.driver", "torch._dynamo"]


def context() -> Any:
    """A context whose processes are forked from a server."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    return found


def go_on(scenario: Any, folder: Path, ledger: Path, failpoints: str, cache: str) -> None:
    """In a process of its own: begins a run, or resumes the one that is there; every piece of work is a line of the ledger."""
    os.environ["RAYKD_CACHE"] = cache
    from raykd import failpoints as points
    from raykd.execution import run_plans
    from raykd.launch import Plan, check_plans, refuse_taken
    from raykd.results.writer import is_vacant
    from raykd.resume import resume_plan
    from raykd.runtime.in_process import InProcessBackend
    from raykd.scenario.errors import RunFailed

    def note(event: str, **values: Any) -> None:
        if event == "client":
            with ledger.open("a") as file:
                file.write(f"{values['round']} {values['client_id']}\n")

    points.arm(failpoints)
    if folder.exists() and not is_vacant(folder):
        plan = resume_plan(folder)
    else:
        plan = Plan(folder, scenario.method.name, scenario, ROOT)
        refuse_taken([plan])
    check_plans([plan])
    try:
        run_plans([plan], InProcessBackend(note), note, threading.Event())
    except RunFailed as failure:
        (ledger.parent / "failure").write_text(str(failure))
        os._exit(3)


def start(context: Any, scenario: Any, folder: Path, failpoints: str = "") -> Any:
    """A process that runs or resumes; its work is noted beside the run directory."""
    arguments = (scenario, folder, folder.parent / "work", failpoints, os.environ["RAYKD_CACHE"])
    process = context.Process(target=go_on, args=arguments)
    process.start()
    return process


def status(folder: Path) -> str:
    """What a run's manifest says; "" where there is none yet."""
    file = folder / "manifest.json"
    return str(json.loads(file.read_text())["status"]) if file.is_file() else ""


def work(folder: Path) -> list[str]:
    """Every local update that was finished, as often as it was."""
    file = folder.parent / "work"
    return file.read_text().splitlines() if file.is_file() else []


def finish(context: Any, scenario: Any, folder: Path) -> None:
    """Runs or resumes to the end."""
    if status(folder) != "done":
        process = start(context, scenario, folder)
        process.join()
        assert process.exitcode == 0


def wait_for(condition: Any, timeout_s: float) -> bool:
    """Whether a condition came true in time."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
