"""Commands that run something."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import typer

from raykd.commands.options import INTERRUPTED, Address, BackendName, Out, Quiet, Scenario, Set, Study, plan_scenario, plan_study

if TYPE_CHECKING:
    from raykd.launch import Plan


def run(
    scenario: Scenario,
    set_: Set = [],  # noqa: B006 (typer reads the default and never changes it)
    out: Out = None,
    backend: BackendName = "ray",
    address: Address = None,
    quiet: Quiet = False,
) -> None:
    """Runs one scenario; the last line printed is the run's directory."""
    from raykd.scenario.errors import RaykdError
    from raykd.scenario.study import is_study

    if is_study(scenario):
        raise RaykdError(f"{scenario} is a study of several runs; use `raykd study {scenario}`")
    plan = plan_scenario(scenario, set_, out)
    _launch([plan], backend, address, quiet)
    typer.echo(str(plan.run_dir))


def study(
    study: Study,
    set_: Set = [],  # noqa: B006
    out: Out = None,
    backend: BackendName = "ray",
    address: Address = None,
    quiet: Quiet = False,
) -> None:
    """Runs every cell of a study (methods x varied keys x seeds); the last line printed is the study's directory."""
    plans, folder = plan_study(study, set_, out)
    _launch(plans, backend, address, quiet)
    typer.echo(str(folder))


def _launch(plans: list[Plan], backend: str, address: str | None, quiet: bool) -> None:
    """Checks, runs and watches. The first Ctrl-C ends after the round in hand, the second at once."""
    from raykd.launch import Interrupted, check_plans, launch, refuse_taken
    from raykd.watch import watch

    refuse_taken(plans)
    check_plans(plans)
    stop = threading.Event()

    def on_signal(number: int, frame: Any) -> None:
        if stop.is_set():
            os._exit(INTERRUPTED)
        typer.echo("stopping after the round in hand; once more to end at once", err=True)
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    try:
        with watch(quiet) as progress:
            launch(plans, backend=backend, address=address, progress=progress, stop=stop)
    except Interrupted as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(INTERRUPTED) from None
