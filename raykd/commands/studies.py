"""The command that runs studies."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raykd.commands.drivers import Detach, carry_out_detached
from raykd.commands.options import Address, AsJson, BackendName, Out, Quiet, Set, StudyPath, reach
from raykd.commands.runs import carry_out, tell_outcome
from raykd.commands.tables import aligned, bytes_text, seconds_text

if TYPE_CHECKING:
    from raykd.launch import Plan
    from raykd.scenario.schema import Scenario
    from raykd.scenario.study import Study

Continue = Annotated[bool, typer.Option("--continue", help="Goes on in the directory that --out names: what is done there stays.")]
Costs = Annotated[bool, typer.Option("--costs", help="With --dry-run: bytes and time of the cells left, from steps timed here.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Lists the cells and runs nothing.")]


def study(
    study: StudyPath,
    set_: Set = [],  # noqa: B006 (typer reads the default and never changes it)
    out: Out = None,
    continue_: Continue = False,
    dry_run: DryRun = False,
    costs: Costs = False,
    backend: BackendName = "ray",
    address: Address = None,
    detach: Detach = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Runs every cell of a study (methods x varied keys x seeds); the last line printed is the study's directory."""
    from raykd.commands.study_plans import prepare_study
    from raykd.scenario.errors import RaykdError
    from raykd.scenario.study import is_scenario
    from raykd.storage import url_of

    if is_scenario(study):
        raise RaykdError(f"{study} is a scenario of one run; use `raykd run {study}`")
    if continue_ and out is None:
        raise RaykdError("--continue goes on in a study's directory; name it with --out")
    if (as_json or costs) and not dry_run:
        raise RaykdError("--json and --costs belong to --dry-run")
    if not dry_run:
        reach(backend, address, detach)

    def how_to_go_on(place: str) -> str:
        command = ["raykd", "study", str(study), *(word for text in set_ for word in ("--set", text))]
        command += ["--out", place, "--continue", *([] if backend == "ray" else ["--backend", backend])]
        return shlex.join([*command, *(["--address", address] if address else [])])

    wanted = prepare_study(study, set_, out, how_to_go_on, is_continued=continue_)
    if dry_run:
        _tell(wanted.study, wanted.states, _costs(wanted.left) if costs else {}, as_json)
        return
    left = wanted.claimed()
    if left and detach:
        carry_out_detached(left, address, quiet, wanted.folder.absolute().name)
    elif left:
        carry_out(left, backend, address, quiet, f"; to go on: {how_to_go_on(wanted.place)}")
    if not (detach or url_of(wanted.folder)):
        tell_outcome(wanted.folder, wanted.place, quiet)
    typer.echo(wanted.place)


def _costs(plans: Sequence[Plan]) -> dict[str, dict[str, float]]:
    """What the runs that are left would come to, by cell; what several need counts for the first."""
    from raykd.planning.forecast import cell_costs

    forecasts = zip(plans, cell_costs(plans), strict=True)
    return {
        plan.run_dir.name: {
            "bytes_down": cost.bytes_crossing("down"),
            "bytes_up": cost.bytes_crossing("up"),
            "total_s": cost.total_s,
        }
        for plan, cost in forecasts
    }


def _tell(study: Study, states: Mapping[str, str], costs: Mapping[str, Mapping[str, float]], as_json: bool) -> None:
    """Prints what every cell is."""
    rows = [
        {
            "cell": cell.cell_id,
            "method": cell.method_label,
            "varied": dict(cell.varied),
            "seed": cell.loaded.scenario.seed,
            "clients": len(cell.loaded.scenario.members()),
            "rounds": cell.loaded.scenario.federation.rounds,
            "student_bytes": _student_bytes(cell.loaded.scenario),
            "state": states[cell.cell_id],
            **costs.get(cell.cell_id, {}),
        }
        for cell in study.cells
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    keys = list(dict.fromkeys(key for cell in study.cells for key in cell.varied))
    heads = ["cell", "state", "method", *keys, "seed", "clients", "rounds", "student", *(["down", "up", "time"] if costs else [])]
    typer.echo(aligned([heads, *(_words(row, keys, bool(costs)) for row in rows)], left=(0, 1, 2)))
    counts = Counter(states.values())
    typer.echo(f"{len(rows)} cell{'s' * (len(rows) > 1)}: {', '.join(f'{count} {state}' for state, count in counts.items())}")


def _words(row: Mapping[str, Any], keys: Sequence[str], has_costs: bool) -> list[str]:
    words = [row["cell"], row["state"], row["method"], *(json.dumps(row["varied"][key]) for key in keys)]
    words += [*(str(row[key]) for key in ("seed", "clients", "rounds")), bytes_text(row["student_bytes"])]
    if has_costs and "total_s" in row:
        words += [bytes_text(row["bytes_down"]), bytes_text(row["bytes_up"]), seconds_text(row["total_s"])]
    return words + ["-"] * (3 if has_costs and "total_s" not in row else 0)


def _student_bytes(scenario: Scenario) -> int:
    """Bytes of the parameters of the federation's student, as they cross a link uncompressed."""
    from raykd.scenario.registry import NETWORKS

    block = scenario.student.network
    network = NETWORKS.get(block.name)(block, len(scenario.classes) + 1)
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
