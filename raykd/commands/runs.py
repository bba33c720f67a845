"""Commands that run something."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raykd.commands.drivers import Detach, carry_out_detached
from raykd.commands.options import (
    INTERRUPTED,
    SIGNALLED,
    Address,
    BackendName,
    Out,
    Quiet,
    ScenarioPath,
    Set,
    plan_scenario,
    reach,
)

if TYPE_CHECKING:
    from raykd.launch import Plan

Continue = Annotated[
    bool, typer.Option("--continue", help="Goes on with the run in the directory that --out names; begins it where there is none.")
]


def run(
    scenario: ScenarioPath,
    set_: Set = [],  # noqa: B006 (typer reads the default and never changes it)
    out: Out = None,
    continue_: Continue = False,
    backend: BackendName = "ray",
    address: Address = None,
    detach: Detach = False,
    quiet: Quiet = False,
) -> None:
    """Runs one scenario; the last line printed is the run's directory."""
    from raykd.commands.study_record import continued
    from raykd.scenario.errors import RaykdError
    from raykd.scenario.study import is_study

    if is_study(scenario):
        raise RaykdError(f"{scenario} is a study of several runs; use `raykd study {scenario}`")
    if continue_ and out is None:
        raise RaykdError("--continue goes on in a run's directory; name it with --out")
    reach(backend, address, detach)
    plan = plan_scenario(scenario, set_, out, may_have_begun=continue_)
    left = continued(plan) if continue_ else plan
    if left and detach:
        carry_out_detached([left], address, quiet, plan.run_dir.name)
    elif left:
        carry_out([left], backend, address, quiet)
        tell_outcome(plan.run_dir, plan.place, quiet)
    typer.echo(plan.place)


def resume(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The directory of a run, or its URL.", show_default=False)],
    backend: BackendName = "ray",
    address: Address = None,
    detach: Detach = False,
    quiet: Quiet = False,
) -> None:
    """Goes on with a run that ended early, from its last checkpoint; the last line printed is its directory."""
    from raykd.resume import resume_plan
    from raykd.runtime.quick_start import import_monai

    reach(backend, address, detach)
    import_monai()
    plan = resume_plan(run_dir)
    if detach:
        carry_out_detached([plan], address, quiet, run_dir.absolute().name)
    else:
        carry_out([plan], backend, address, quiet)
        tell_outcome(plan.run_dir, plan.place, quiet)
    typer.echo(plan.place)


def tell_outcome(folder: Path, place: str, quiet: bool) -> None:
    """Says on stderr what the runs below a directory came to, and what to do next."""
    from raykd.commands.outcome import outcome

    if not quiet and (text := outcome(folder, place)):
        typer.echo(text, err=True)


def carry_out(plans: list[Plan], backend: str, address: str | None, quiet: bool, how_to_go_on: str = "") -> None:
    """Checks, runs and watches. The first Ctrl-C or SIGTERM gives up the round in hand and ends, the second ends at once.

    Args:
        plans, backend, address: what runs and where.
        quiet: whether nothing is shown of it.
        how_to_go_on: a clause for those whose runs end early.
    """
    from raykd.launch import Interrupted, check_plans, launch, refuse_taken
    from raykd.runtime.descendants import end_descendants
    from raykd.scenario.errors import RunFailed
    from raykd.watch import watch

    refuse_taken([plan for plan in plans if not plan.is_resumed])
    check_plans(plans)
    stop, numbers = threading.Event(), list[int]()

    def on_signal(number: int, frame: Any) -> None:
        numbers.append(number)
        if stop.is_set():
            os.write(2, b"ended at once; what was written stands, and `raykd resume` goes on from the last round\n")
            end_descendants()
            os._exit(SIGNALLED + number)
        os.write(2, b"stopping: the round in hand is given up, what was before it stands; once more to end at once\n")
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    try:
        with watch(quiet) as progress:
            launch(plans, backend=backend, address=address, progress=progress, stop=stop)
    except Interrupted as error:
        typer.echo(f"{error}{how_to_go_on}", err=True)
        raise typer.Exit(SIGNALLED + numbers[0] if numbers else INTERRUPTED) from None
    except RunFailed as error:
        raise RunFailed(f"{error}{how_to_go_on}") from None
