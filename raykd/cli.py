"""The `raykd` command: what a user types, what is printed, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from raykd.launch import Plan

REFUSED, FAILED, INTERRUPTED = 2, 3, 130

app = typer.Typer(
    name="raykd",
    help="Design, stress and judge federations of hospitals with few labels and unlike scanners, simulated on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Scenario = Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario's YAML file.", show_default=False)]
Study = Annotated[Path, typer.Argument(metavar="STUDY", help="A study's YAML file.", show_default=False)]
Set = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Replaces a key of the scenario; repeatable.", show_default=False)
]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where to write; default: a new directory under runs/.")]
BackendName = Annotated[str, typer.Option("--backend", metavar="ray|in-process", help="Where clients run.")]
Address = Annotated[
    str | None, typer.Option("--address", metavar="ADDR", help="A Ray cluster; default: $RAY_ADDRESS, else one started here.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Prints JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Shows no progress.")]


def main() -> NoReturn:
    """The entry point: refusals are sentences on stderr, never tracebacks."""
    from raykd.scenario.errors import RaykdError, RunFailed

    try:
        app()
    except RaykdError as error:
        _end(str(error), REFUSED)
    except RunFailed as error:
        _end(f"the run failed: {error}", FAILED)
    sys.exit(0)


def _end(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(code)


def _say(line: str) -> None:
    typer.echo(line)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Prints the version.")] = False) -> None:
    if version:
        import raykd

        _say(raykd.__version__)
        raise typer.Exit


@app.command()
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
    _say(str(plan.run_dir))


@app.command()
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
    _say(str(folder))


@app.command()
def check(
    scenarios: Annotated[list[Path], typer.Argument(metavar="SCENARIO...", help="Scenarios or studies.", show_default=False)],
    set_: Set = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Says everything that is wrong with scenarios or studies, or that nothing is, without running them."""
    from raykd.data.federation import check_cases
    from raykd.launch import check_plans
    from raykd.scenario.errors import RaykdError, ScenarioError
    from raykd.scenario.study import is_study

    found: list[dict[str, Any]] = []
    for path in scenarios:
        try:
            plans = plan_study(path, set_, Path())[0] if is_study(path) else [plan_scenario(path, set_, Path())]
            check_plans(plans)
            for plan in {plan.scenario.model_dump_json(exclude={"method", "seed"}): plan for plan in plans}.values():
                check_cases(plan.scenario, plan.root)
            sites = len(plans[0].scenario.members())
            if not as_json:
                _say(f"{path}: fine, {len(plans)} run{'s' * (len(plans) > 1)} of {sites} client{'s' * (sites > 1)}")
        except ScenarioError as error:
            found += [vars(problem) | {"message": str(problem)} for problem in error.problems]
        except RaykdError as error:
            found.append({"file": str(path), "message": str(error)})
    if as_json:
        _say(json.dumps(found, indent=2))
    if found:
        if not as_json:
            for problem in found:
                typer.echo(problem["message"], err=True)
        raise typer.Exit(REFUSED)


@app.command()
def report(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Directories of runs or studies.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The HTML file; default: report.html in the first directory.")
    ] = None,
) -> None:
    """Writes one self-contained HTML page about runs; the last line printed is its path."""
    from raykd.report import build_report

    _say(str(build_report(directories, out or directories[0] / "report.html")))


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="methods, networks, sources or shifts.")],
    as_json: AsJson = False,
) -> None:
    """Lists what can be named in a scenario: methods, networks, sources, shifts."""
    from raykd.scenario.errors import RaykdError, did_you_mean
    from raykd.scenario.registry import REGISTRIES

    registries = {f"{name}s": registry for name, registry in REGISTRIES.items()}
    if kind not in registries:
        raise RaykdError(f"KIND must be one of the known words, got {kind!r}; {did_you_mean(kind, registries)}")
    registry = registries[kind]
    rows = []
    for name in registry.names():
        cls = registry.get(name)
        settings = {key: field.description or "" for key, field in cls.Settings.model_fields.items() if key != "name"}
        rows.append({"name": name, "summary": (cls.__doc__ or "").strip().splitlines()[0], "settings": settings})
    if as_json:
        _say(json.dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        _say(f"{row['name']:<{width}}  {row['summary']}")


@app.command()
def schema(study: Annotated[bool, typer.Option("--study", help="That of a study instead.")] = False) -> None:
    """Prints the JSON Schema of a scenario, for editors that complete keys."""
    from raykd.scenario.json_schema import json_schema, study_schema

    _say(json.dumps(study_schema() if study else json_schema(), indent=2))


def plan_scenario(path: Path, overrides: list[str], out: Path | None) -> Plan:
    """The run that a scenario's file asks for."""
    from raykd.launch import Plan
    from raykd.scenario.load import load_scenario

    loaded = load_scenario(path, overrides)
    run_dir = out or new_directory(loaded.scenario.name)
    return Plan(run_dir, loaded.scenario.method.name, loaded.scenario, loaded.root)


def plan_study(path: Path, overrides: list[str], out: Path | None) -> tuple[list[Plan], Path]:
    """The runs that a study's file asks for, and the directory that holds theirs."""
    from raykd.launch import Plan
    from raykd.scenario.study import load_study

    loaded = load_study(path, overrides)
    folder = out or new_directory(loaded.name)
    plans = [Plan(folder / cell.cell_id, cell.method_label, cell.loaded.scenario, cell.loaded.root) for cell in loaded.cells]
    return plans, folder


def new_directory(name: str) -> Path:
    """The first of runs/NAME, runs/NAME-2, ... that does not exist."""
    folder, number = Path("runs") / name, 2
    while folder.exists():
        folder, number = Path("runs") / f"{name}-{number}", number + 1
    return folder


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
        _end(str(error), INTERRUPTED)


if __name__ == "__main__":
    main()
