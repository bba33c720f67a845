"""Commands about runs that go on without a terminal: which there are, how far they are, and how to end them."""

from __future__ import annotations

import json
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from raykd.commands.options import INTERRUPTED, Address, AsJson, Quiet
from raykd.commands.tables import aligned

if TYPE_CHECKING:
    from raykd.launch import Plan

Detach = Annotated[
    bool, typer.Option("--detach", help="On a standing cluster: the run goes on when this terminal closes; see raykd attach.")
]
Driver = Annotated[
    str, typer.Argument(metavar="NAME|RUN_DIR", help="A driver's name, or the directory that it writes.", show_default=False)
]


def carry_out_detached(plans: list[Plan], address: str | None, quiet: bool, name: str) -> None:
    """Checks, starts a driver on a standing cluster, and says how to watch it."""
    from raykd.launch import Interrupted, check_plans, launch_detached, refuse_taken
    from raykd.watch import watch

    refuse_taken([plan for plan in plans if not plan.is_resumed])
    check_plans(plans)
    try:
        with watch(quiet) as progress:
            name = launch_detached(plans, name, address=address, progress=progress)
    except Interrupted as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(INTERRUPTED) from None
    at = f" --address {address}" if address else ""
    typer.echo(f"it goes on as driver {name}; to watch: raykd attach {name}{at}; to end: raykd stop {name}{at}", err=True)


def status(
    run_dirs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN_DIR...", help="Runs or studies; none: the drivers of a cluster.")
    ] = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Says how far runs are: those in directories, or, with none given, the detached ones of a standing cluster."""
    rows = _written_runs(run_dirs) if run_dirs else _detached_runs(address)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    elif not rows:
        typer.echo("the cluster has no detached run", err=True)
    else:
        heads = [key for key in rows[0] if key not in ("run_dir", "rounds", "is_written", "reason")]
        lines = [[key.replace("_", " ").removesuffix(" at") for key in heads] + ["run directory"]]
        lines += [[_word(row, key) for key in heads] + [row["run_dir"]] for row in rows]
        typer.echo(aligned(lines, left=range(len(lines[0]))))
        for row in rows:
            if row.get("reason"):
                typer.echo(f"{row['run_dir']}: {row['reason']}", err=True)
            if row.get("status") == "died":
                typer.echo(f"{row['run_dir']}: its process ended without a word; go on: raykd resume {row['run_dir']}", err=True)


def attach(driver: Driver, address: Address = None, quiet: Quiet = False) -> None:
    """Follows a detached run to its end and ends with its exit code; Ctrl-C leaves it to go on (exit code 130)."""
    from raykd.launch import Interrupted
    from raykd.runtime.ray_detached import find_driver, standing_cluster
    from raykd.runtime.ray_session import follow
    from raykd.scenario.errors import RaykdError
    from raykd.watch import watch

    with standing_cluster(address):
        try:
            actor = find_driver(_here(driver))
        except RaykdError as error:
            _end_as_written(Path(_here(driver)), error)
        for number in (signal.SIGINT, signal.SIGTERM):  # Ray has set its own
            signal.signal(number, signal.default_int_handler)
        try:
            with watch(quiet) as progress:
                written = follow(actor, progress, threading.Event())
        except KeyboardInterrupt:
            typer.echo(f"detached; the run goes on, and `raykd attach {driver}` follows it again", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Interrupted as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(INTERRUPTED) from None
    typer.echo(str(written[0] if len(written) == 1 else written[0].parent))


def stop(driver: Driver, address: Address = None) -> None:
    """Asks a detached run to end; the round in hand is given up, and `raykd resume` goes on with the run."""
    from raykd.runtime.ray_detached import ask_to_stop, find_driver, standing_cluster

    with standing_cluster(address):
        ask_to_stop(find_driver(_here(driver)))
    typer.echo("it ends and gives up the round in hand; `raykd resume` goes on with its directory", err=True)


def _here(driver: str) -> str:
    """A driver's name or directory; of a URL the directory on this machine from which it is mirrored."""
    from raykd.staging import staged
    from raykd.storage import url_of

    url = url_of(driver)
    return str(staged(url)) if url else driver


def _end_as_written(run_dir: Path, error: Exception) -> NoReturn:
    """Ends as a run ended whose driver is gone, by its manifest; raises `error` where there is no run."""
    from raykd.commands.run_state import state_of
    from raykd.scenario.errors import RaykdError, RunFailed

    if not (run_dir / "manifest.json").is_file():
        raise error
    state = state_of(run_dir)
    if state["status"] == "failed":
        raise RunFailed(f"{state['reason']}")
    if state["status"] in ("died", "running"):
        raise RaykdError(
            f"{run_dir}: no driver of this cluster writes it; "
            + ("another process does" if state["is_written"] else f"its own ended without a word; go on: raykd resume {run_dir}")
        )
    if state["status"] == "interrupted":
        typer.echo(f"{state['reason']}; `raykd resume {run_dir}` goes on", err=True)
        raise typer.Exit(INTERRUPTED)
    typer.echo(str(run_dir))
    raise typer.Exit


def _written_runs(run_dirs: list[Path]) -> list[dict[str, Any]]:
    from raykd.commands.run_state import state_at, state_of
    from raykd.results.reader import find_run_dirs
    from raykd.storage import url_of

    rows = list[dict[str, Any]]()
    for place in run_dirs:
        url = url_of(place)
        rows += map(state_at, _runs_at(url)) if url else map(state_of, find_run_dirs([place]))
    return rows


def _runs_at(url: str) -> list[str]:
    """The run in a store, or those of a study."""
    from raykd.staging import outline

    cells = sorted(file.parent.name for file in outline(url).glob("*/manifest.json"))
    return [f"{url}/{cell}" for cell in cells] or [url]


def _detached_runs(address: str | None) -> list[dict[str, Any]]:
    from raykd.runtime.ray_detached import drivers, standing_cluster

    with standing_cluster(address):
        return [_driver_row(told) for told in drivers()]


def _driver_row(told: dict[str, Any]) -> dict[str, Any]:
    """What a driver is doing, by the last that it told."""
    latest, run_dirs = told["latest"], told["run_dirs"]
    number, stage = latest.get("run", {}).get("index", 0), latest.get("stage", {}).get("name", "starting")
    rounds = latest.get("round", {})
    started_s = told["started_at"]
    return {
        "name": told["name"],
        "status": "ended" if told["has_ended"] else "stopping" if told["is_stopping"] else "running" if rounds else stage,
        "run": f"{number + 1} of {len(run_dirs)}",
        "rounds_done": rounds.get("round", 0),
        "rounds": rounds.get("total"),
        "started_at": started_s and datetime.fromtimestamp(started_s, UTC).isoformat(timespec="seconds"),
        "run_dir": run_dirs[number] if number < len(run_dirs) else "",
    }


def _word(row: dict[str, Any], key: str) -> str:
    if key == "rounds_done":
        return f"{row[key]} of {row['rounds']}" if row["rounds"] else "-"
    return "-" if row[key] is None else str(row[key])
