"""From a plan to a finished run directory: the job that a driver does, wherever it runs."""

from __future__ import annotations

import fcntl
import os
import platform
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raykd.failpoints import failpoint
from raykd.launch import Interrupted, Plan
from raykd.results.checksums import LOCK, LOG, MANIFEST, NAME
from raykd.results.durable import append_line, make_folder, sweep, write_atomically
from raykd.results.writer import RunWriter, create_run_dir, new_manifest
from raykd.scenario.errors import RaykdError, RunFailed
from raykd.scenario.load import dump_scenario
from raykd.scenario.registry import METHODS
from raykd.staging import mirrored
from raykd.storage import Folder
from raykd.watch import Lines

if TYPE_CHECKING:
    from raykd.federation.driver import Driver
    from raykd.federation.protocols import Backend, Progress, Row


def run_plans(plans: Sequence[Plan], backend: Backend, progress: Progress, stop: threading.Event) -> list[Path]:
    """The job of a driver: every plan from prepared data to a finished run directory."""
    for index, plan in enumerate(plans):
        about = {"name": plan.scenario.name, "method": plan.method_label, "settings": plan.settings, "seed": plan.scenario.seed}
        left = [later.method_label for later in plans[index:]]
        progress("run", **about, index=index, number=plan.number, total=plan.num_runs, left=left)
        _run_plan(plan, backend, progress, stop)
    return [plan.run_dir for plan in plans]


def _run_plan(plan: Plan, backend: Backend, progress: Progress, stop: threading.Event) -> None:
    from raykd.federation.checkpoint import Checkpoints
    from raykd.federation.driver import Driver
    from raykd.federation.protocols import Stopped
    from raykd.federation.shelf import Shelf
    from raykd.federation.teacher import with_taught_classes

    scenario = plan.scenario
    writer = RunWriter(
        plan.run_dir, {"run_id": _run_id(plan), "scenario": scenario.name, "method": plan.method_label, "seed": scenario.seed}
    )
    log = RunLog(plan.run_dir / LOG, progress)
    checkpoints = Checkpoints(Shelf(plan.run_dir / "checkpoints"), writer)
    driver = Driver(with_taught_classes(scenario, plan.root), plan.root, backend, writer, log, stop, checkpoints)
    clients = _prepared(plan, driver)
    with _sentences(plan, writer), _place(plan), mirrored(plan) as writer.mirror:
        _go_on(plan, writer, log) if plan.is_resumed else _begin(plan, writer, backend.num_slots)
        log.open()
        try:
            models = driver.run(clients)
            _save_models(plan.run_dir / "models", models, writer)
        except Stopped as stopped:
            writer.end("interrupted", str(stopped))
            raise Interrupted(f"{stopped}; `raykd resume {plan.place}` goes on") from None
        except OSError:
            raise
        except Exception as error:
            failure = _as_failure(error)
            log.add(failure.details)
            writer.end("failed", str(failure))
            where = f", the traceback is in {plan.run_dir / LOG}" if failure.details else ""
            then = f"; once that is mended `raykd resume {plan.place}` goes on" if failure.details or plan.url else ""
            raise RunFailed(f"{failure}; {plan.run_dir} holds what was done{where}{then}") from None
        failpoint("status.before_done")
        writer.end("done")
        failpoint("status.after_done")


def _prepared(plan: Plan, driver: Driver) -> list[Row]:
    """The rows of `clients`, and all data prepared. Raises `DataError`, `RunFailed` and `Interrupted`; nothing is written."""
    from raykd.federation.protocols import Stopped

    try:
        return driver.prepare()
    except Stopped as stopped:
        then = f"`raykd resume {plan.place}` goes on" if plan.is_resumed else "nothing had begun, so run it again"
        raise Interrupted(f"{stopped}; {then}") from None
    except RaykdError:
        raise
    except Exception as error:
        raise _as_failure(error, "preparing the data") from None


def _as_failure(error: Exception, what: str = "the run") -> RunFailed:
    """A sentence about whatever went wrong; with its traceback where nobody has foreseen it."""
    if isinstance(error, RunFailed):
        return error
    if isinstance(error, RaykdError):
        return RunFailed(str(error))
    return RunFailed.unforeseen(what, error, traceback.format_exc())


@contextmanager
def _place(plan: Plan) -> Iterator[None]:
    """The directory of a run, made where it begins, and held against other writers."""
    if not plan.is_resumed:
        failpoint("begin.before_directory")
        if plan.study_record and plan.url:
            Folder(plan.url.rpartition("/")[0]).write("study.yaml", plan.study_record.encode())
        elif plan.study_record:
            make_folder(plan.run_dir.parent)
            write_atomically(plan.run_dir.parent / "study.yaml", plan.study_record.encode())
        create_run_dir(plan.run_dir)
        failpoint("begin.after_directory")
    with only_writer(plan.run_dir):
        if not plan.is_resumed:
            create_run_dir(plan.run_dir)  # again, now that nobody else can begin in it
        yield


@contextmanager
def _sentences(plan: Plan, writer: RunWriter) -> Iterator[None]:
    """A full disk, or one that fails, ends a run as a failed one, if the disk still takes that much; it can be resumed."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename or plan.run_dir} cannot be written or read ({error.strerror or error})"
        with suppress(OSError, ValueError):
            writer.end("failed", what)
        has_begun = (plan.run_dir / MANIFEST).is_file()
        then = f"`raykd resume {plan.place}` goes on" if has_begun else f"run it again into {plan.place}: it had not begun"
        raise RunFailed(f"{what}; nothing written before is harmed: make room or mend the disk, then {then}") from None


def _begin(plan: Plan, writer: RunWriter, num_slots: int) -> None:
    """Writes into the directory of a new run what it is; from the manifest on it can be resumed."""
    from raykd.data.federation import data_fingerprints
    from raykd.federation.start import unused_blocks
    from raykd.federation.teacher import with_taught_classes

    scenario = plan.scenario
    method = METHODS.get(scenario.method.name)(scenario.method, scenario)
    sweep(plan.run_dir)
    (plan.run_dir / NAME).unlink(missing_ok=True)
    writer.put(plan.run_dir / "scenario.yaml", dump_scenario(scenario).encode())
    failpoint("begin.after_scenario")
    facts = {
        "method": plan.method_label,
        "deployed": method.deployed_model,
        "unused": list(unused_blocks(method)),
        "num_slots": num_slots,
        "scenario": scenario.model_dump(mode="json"),
        "scenario_root": str(plan.root.absolute()) if plan.url else os.path.relpath(plan.root, plan.run_dir),
        "data": data_fingerprints(scenario, plan.root),
        "repository_classes": with_taught_classes(scenario, plan.root).repository.classes,
    }
    writer.write_manifest({**new_manifest(scenario.content_hash(), _run_id(plan)), **facts})
    failpoint("begin.after_manifest")


def _go_on(plan: Plan, writer: RunWriter, log: RunLog) -> None:
    """Clears up after a run that ended early."""
    for path in writer.take_up():
        log("damaged_checkpoint", path=path)
    writer.update_manifest(status="running", ended_at=None, reason=None)


class RunLog:
    """Tells a watcher of every event and adds the lines that last to a file.

    Args:
        path: nothing is written there before `open`.
        progress: the watcher.
    """

    def __init__(self, path: Path, progress: Progress):
        self._path, self._progress, self._lines = path, progress, Lines()
        self._held: list[str] | None = []

    def open(self) -> None:
        """Writes the lines held so far and from now on every line at once."""
        held, self._held = self._held or [], None
        if held:
            append_line(self._path, "\n".join(held))

    def add(self, text: str) -> None:
        """Writes what no watcher is told of."""
        if text:
            append_line(self._path, text.rstrip())

    def __call__(self, event: str, **values: Any) -> None:
        if (line := self._lines.permanent(event, values)) is not None:
            if self._held is None:
                append_line(self._path, line)
            else:
                self._held.append(line)
        self._progress(event, **values)


@contextmanager
def only_writer(run_dir: Path) -> Iterator[None]:
    """A lock on a run directory, gone with the process that holds it. Raises `RaykdError` where another one does."""
    with (run_dir / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise RaykdError(f"{run_dir}: a run directory has one writer at a time, and {holder} writes this one") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} of {platform.node()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def refuse_written_now(run_dir: Path) -> None:
    """Raises `RaykdError` while another process writes a run directory."""
    if (run_dir / LOCK).is_file():
        with (run_dir / LOCK).open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                raise RaykdError(
                    f"{run_dir}: {file.read().strip() or 'another process'} writes it; wait until it has ended"
                ) from None


def _run_id(plan: Plan) -> str:
    """Unique for what is run: name, method, seed and the scenario's hash."""
    scenario = plan.scenario
    return f"{scenario.name}-{plan.method_label}-seed{scenario.seed}-{scenario.content_hash()[:8]}"


def _save_models(folder: Path, models: Iterable[tuple[str, Any]], writer: RunWriter) -> None:
    from safetensors.torch import save

    make_folder(folder)
    for name, payload in models:
        failpoint("models.before_write")
        writer.put(folder / f"{name}.safetensors", save({key: value.contiguous() for key, value in payload.items()}))
    failpoint("models.after_write")
