"""The command that says what a run would ask of links, machines and time, before it is run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raykd.commands.options import REFUSED, AsJson, Set, plan_scenario, plan_study, shipped_is_copied
from raykd.commands.tables import aligned, bytes_text, seconds_text, wrapped

if TYPE_CHECKING:
    from raykd.launch import Plan
    from raykd.planning.forecast import Forecast

MEASURED = (
    "Bytes are exact: the run's own rounds were gone through with untrained models (a method that sends less as it learns sends "
    "less).\nSeconds come from a few real steps timed on this machine's CPU; left out are the wait between workers, starting them, "
    "and drawing the report.\nMemory is the peak of this process, which did such steps, plus a worker's prepared cases; Ray's own "
    "is left out."
)


def plan(
    path: Annotated[
        Path,
        typer.Argument(metavar="SCENARIO|STUDY", help="A scenario or a study.", show_default=False, callback=shipped_is_copied),
    ],
    set_: Set = [],  # noqa: B006 (typer reads the default and never changes it)
    address: Annotated[
        str | None, typer.Option("--address", metavar="ADDR", help="A Ray cluster; default: $RAY_ADDRESS, else this machine.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Says what a run would ask for: who holds what, memory, clients at once, bytes, time. Nothing is trained or written, but
    cases that are read stay in the cache.
    """
    from raykd.launch import check_plans
    from raykd.planning.forecast import cell_costs
    from raykd.scenario.study import is_study

    is_many = is_study(path)
    plans = plan_study(path, set_, Path("plan"))[1] if is_many else [plan_scenario(path, set_, Path("plan"))]
    check_plans(plans)
    costs = cell_costs(plans, _nodes(address or os.environ.get("RAY_ADDRESS")))
    if as_json:
        cells = [_as_json(cost) for cost in costs]
        typer.echo(json.dumps({"cells": cells} if is_many else cells[0], indent=2))
    else:
        typer.echo(study_text(plans, costs) if is_many else scenario_text(costs[0]))
    shortfalls = list(dict.fromkeys(sentence for cost in costs for sentence in cost.shortfalls))
    for sentence in shortfalls:
        typer.echo(f"does not fit: {sentence}", err=True)
    if shortfalls:
        raise typer.Exit(REFUSED)


def _nodes(address: str | None) -> list[dict[str, Any]] | None:
    if address is None:
        return None
    from raykd.runtime import ray_session

    with ray_session.ray_session(address):
        return list(ray_session.ray.nodes())


def _as_json(cost: Forecast) -> dict[str, Any]:
    return {
        **asdict(cost),
        "total_s": cost.total_s,
        "bytes_down": cost.bytes_crossing("down"),
        "bytes_up": cost.bytes_crossing("up"),
    }


def scenario_text(cost: Forecast) -> str:
    """The plan of one run as aligned tables."""
    rounds = f"{cost.rounds} round{'s' * (cost.rounds != 1)}"
    head = f"{cost.scenario}: {cost.method}, {len(cost.clients)} clients, {rounds}, seed {cost.seed}"
    return "\n\n".join([head, _clients(cost), _repository(cost), _traffic(cost), _machines(cost), _time(cost), wrapped(MEASURED)])


def _clients(cost: Forecast) -> str:
    header = ["id", "client", "spacing mm", "voxels", "lab", "unl", "val", "test", "network", "parameters", "cases in memory"]
    header += ["down a round", "up a round", "link a round"]
    rows = [
        [
            str(row["client_id"]),
            row["client_name"],
            _spacing(row),
            " x ".join(map(str, row["shape"])),
            *(str(row[f"num_{name}"]) for name in ("labelled", "unlabelled", "validation", "test")),
            row["network"],
            f"{row['num_params']:,}",
            bytes_text(row["bytes_held"]),
            bytes_text(row["bytes_down_per_round"]),
            bytes_text(row["bytes_up_per_round"]),
            seconds_text(row["link_s_per_round"]),
        ]
        for row in cost.clients
    ]
    return aligned([header, *rows], left=(1, 2, 3, 8), num_keys=2)


def _spacing(row: dict[str, Any]) -> str:
    return " x ".join(f"{row[f'spacing_{axis}_mm']:.2f}" for axis in "ijk")


def _repository(cost: Forecast) -> str:
    own = cost.repository
    cases = f"{own['num_train']} training and {own['num_validation']} validation cases of {_spacing(own)} mm"
    trained = ", ".join(f"{network} for {own['num_steps']} steps" for network in own["networks"]) or "nothing"
    return wrapped(f"Repository: {cases}; trains {trained}", "  ")


def _traffic(cost: Forecast) -> str:
    rows = [["Traffic", "", "kind", "codec", "a message", "messages", "in all"]]
    for row in cost.traffic:
        sizes = " to ".join(dict.fromkeys(bytes_text(row[name]) for name in ("bytes_min", "bytes_max")))
        words = [row["stage"], row["direction"], row["kind"], row["codec"], sizes]
        rows.append([*words, str(row["num_messages"]), bytes_text(row["bytes_total"])])
    rows += [["all", direction, "", "", "", "", bytes_text(cost.bytes_crossing(direction))] for direction in ("down", "up")]
    return aligned(rows, left=(0, 1, 2, 3), num_keys=3)


def _machines(cost: Forecast) -> str:
    lines = [
        f"{node['name']}: {node['cpus']:g} CPU, {node['gpus']:g} GPU, {bytes_text(node['bytes'])} of memory" for node in cost.nodes
    ]
    at_once = f"{cost.num_slots} client{'s' * (cost.num_slots > 1)} at once, each worker with about {bytes_text(cost.worker_bytes)}"
    return "\n".join(["Machines", *(wrapped(f"  {line}", "    ") for line in [*lines, at_once])])


def _time(cost: Forecast) -> str:
    known = {
        "prepare": f"{cost.num_cases} cases to prepare",
        "repository": f"{cost.num_models} of {len(cost.repository['networks'])} models to train",
        "rounds": "local updates and aggregation",
        "evaluation": "of all models on all held-out cases",
    }
    rows = [["Time (estimated)", "", ""]]
    rows += [[f"  {stage}", seconds_text(seconds), known[stage]] for stage, seconds in cost.seconds.items()]
    rows.append(["  all, here", seconds_text(cost.total_s), ""])
    how = "from measured steps" if cost.step_s is None else f"exact, {cost.step_s:g} s a step"
    rows.append(["  all, at the sites", seconds_text(cost.simulated_s), f"with own links and machines ({how})"])
    text = aligned(rows, left=(0, 2))
    return f"{text}\n\n{wrapped(f'Ends early: {cost.ends}')}" if cost.ends else text


def study_text(plans: Sequence[Plan], costs: Sequence[Forecast]) -> str:
    """A line for each cell that differs by more than its seed, and the totals."""
    cells: dict[str, list[tuple[Plan, Forecast]]] = {}
    for plan, cost in zip(plans, costs, strict=True):
        content = plan.scenario.model_copy(update={"seed": 0}).content_hash()
        cells.setdefault(f"{plan.method_label} {content}", []).append((plan, cost))
    rows = [["cell", "runs", "new cases", "new models", "down", "up", "slots", "a worker", "time"]]
    for runs in cells.values():
        name = runs[0][0].run_dir.name.rpartition("--seed")[0] or runs[0][0].run_dir.name
        rows.append([name, *_sums([cost for _, cost in runs])])
    rows.append(["all", *_sums(costs)])
    note = "A case or model that several cells need counts for the first alone; the later ones find it in the cache."
    return "\n\n".join([aligned(rows, left=(0,)), wrapped(note), wrapped(MEASURED)])


def _sums(costs: Sequence[Forecast]) -> list[str]:
    return [
        str(len(costs)),
        str(sum(cost.num_cases for cost in costs)),
        str(sum(cost.num_models for cost in costs)),
        *(bytes_text(sum(cost.bytes_crossing(direction) for cost in costs)) for direction in ("down", "up")),
        str(max(cost.num_slots for cost in costs)),
        bytes_text(max(cost.worker_bytes for cost in costs)),
        seconds_text(sum(cost.total_s for cost in costs)),
    ]
