"""From a plan to a finished run directory: the job that a driver does, wherever it runs."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raykd.launch import Interrupted, Plan
from raykd.results.writer import RunWriter, create_run_dir, new_manifest, write_atomically
from raykd.scenario.errors import RaykdError, RunFailed
from raykd.scenario.load import dump_scenario
from raykd.scenario.registry import METHODS
from raykd.scenario.schema import Scenario
from raykd.watch import Lines

if TYPE_CHECKING:
    from raykd.federation.protocols import Backend, Progress


def run_plans(plans: Sequence[Plan], backend: Backend, progress: Progress, stop: threading.Event) -> list[Path]:
    """The job of a driver: every plan from prepared data to a finished run directory."""
    for number, plan in enumerate(plans):
        progress("run", name=plan.scenario.name, method=plan.method_label, seed=plan.scenario.seed, number=number, total=len(plans))
        _run_plan(plan, backend, progress, stop)
    return [plan.run_dir for plan in plans]


def _run_plan(plan: Plan, backend: Backend, progress: Progress, stop: threading.Event) -> None:
    from raykd.federation.checkpoint import Checkpoints
    from raykd.federation.driver import Driver
    from raykd.federation.driver import Interrupted as Stopped
    from raykd.federation.shelf import Shelf

    scenario = plan.scenario
    writer = RunWriter(
        plan.run_dir, {"run_id": _run_id(plan), "scenario": scenario.name, "method": plan.method_label, "seed": scenario.seed}
    )
    log = RunLog(plan.run_dir / "run.log", progress)
    driver = Driver(
        scenario, plan.root, backend, writer, log, stop, Checkpoints(Shelf(plan.run_dir / "checkpoints"), write_atomically)
    )
    clients = driver.prepare()
    if not plan.is_resumed:
        _begin(plan, writer, backend.num_slots)
    with only_writer(plan.run_dir):
        if plan.is_resumed:
            writer.update_manifest(status="running", ended_at=None, reason=None)
        try:
            models = driver.run(clients)
        except Stopped as stopped:
            writer.update_manifest(status="interrupted", reason=str(stopped))
            raise Interrupted(f"{stopped}; `raykd resume {plan.run_dir}` goes on") from None
        except (RaykdError, RunFailed) as error:
            writer.update_manifest(status="failed", reason=str(error))
            raise RunFailed(f"{error}; {plan.run_dir} holds what was done") from None
        _save_models(plan.run_dir / "models", models)
        writer.update_manifest(status="done")


def _begin(plan: Plan, writer: RunWriter, num_slots: int) -> None:
    """Makes the directory of a new run, in which it says what it is."""
    scenario = plan.scenario
    create_run_dir(plan.run_dir)
    if plan.study_record:
        write_atomically(plan.run_dir.parent / "study.yaml", plan.study_record.encode())
    write_atomically(plan.run_dir / "scenario.yaml", dump_scenario(scenario).encode())
    from raykd.data.federation import data_fingerprints

    facts = {
        "method": plan.method_label,
        "deployed": _deployed(scenario),
        "num_slots": num_slots,
        "scenario_root": os.path.relpath(plan.root, plan.run_dir),
        "data": data_fingerprints(scenario, plan.root),
    }
    writer.write_manifest({**new_manifest(scenario.content_hash(), _run_id(plan)), **facts})


class RunLog:
    """Tells a watcher of every event and keeps the lines that last in a file, behind those that it holds.

    Args:
        path: written once its directory is there.
        progress: the watcher.
    """

    def __init__(self, path: Path, progress: Progress):
        self._path, self._progress, self._lines = path, progress, Lines()
        self._kept = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []

    def __call__(self, event: str, **values: Any) -> None:
        if (line := self._lines.permanent(event, values)) is not None:
            self._kept.append(line)
            if self._path.parent.is_dir():
                self._path.write_text("\n".join(self._kept) + "\n", encoding="utf-8")
        self._progress(event, **values)


@contextmanager
def only_writer(run_dir: Path) -> Iterator[None]:
    """A lock on a run directory, gone with the process that holds it. Raises `RaykdError` where another one does."""
    with (run_dir / "run.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RaykdError(f"{run_dir}: a run directory has one writer at a time, and another process writes this one") from None
        yield


def _deployed(scenario: Scenario) -> str:
    """The model that a site would use in the end: global, personal or teacher."""
    method = METHODS.get(scenario.method.name)
    if method.deployed == "global" and scenario.federation.personal_rounds and not method.pools_data:
        return "personal"
    return str(method.deployed)


def _run_id(plan: Plan) -> str:
    """Unique for what is run: name, method, seed and the scenario's hash."""
    scenario = plan.scenario
    return f"{scenario.name}-{plan.method_label}-seed{scenario.seed}-{scenario.content_hash()[:8]}"


def _save_models(folder: Path, models: Iterable[tuple[str, Any]]) -> None:
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    for name, payload in models:
        write_atomically(folder / f"{name}.safetensors", save({key: value.contiguous() for key, value in payload.items()}))
