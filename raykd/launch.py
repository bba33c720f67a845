"""From loaded scenarios to run directories: the composition that the command line and the Python interface share."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raykd.results.writer import RunWriter, create_run_dir, new_manifest, write_atomically
from raykd.scenario.errors import Problem, RaykdError, ResourceError, RunFailed, ScenarioError
from raykd.scenario.load import dump_scenario
from raykd.scenario.registry import METHODS, NETWORKS
from raykd.scenario.schema import Scenario
from raykd.watch import Lines

if TYPE_CHECKING:
    from raykd.federation.protocols import Backend, Progress


class Interrupted(Exception):
    """The user asked to stop; what was written stands."""


@dataclass(frozen=True)
class Plan:
    """One run to be done.

    Attributes:
        run_dir: where it goes; made only once all data is known to be sound.
        method_label: what tables call the method.
        scenario: what to run.
        root: where relative paths in it start.
    """

    run_dir: Path
    method_label: str
    scenario: Scenario
    root: Path


def refuse_taken(plans: Sequence[Plan]) -> None:
    """Raises `RaykdError` where a run's directory holds something already or nothing can be written where it would be."""
    for plan in plans:
        if plan.run_dir.exists() and (not plan.run_dir.is_dir() or any(plan.run_dir.iterdir())):
            raise RaykdError(f"{plan.run_dir}: a new run needs a directory that is empty or not there yet; give another with --out")
        parent = next(folder for folder in plan.run_dir.absolute().parents if folder.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise RaykdError(f"{plan.run_dir}: nothing can be written in {parent}; give another place with --out")


def check_plans(plans: Sequence[Plan]) -> None:
    """Refuses what no amount of computing would make right: settings that contradict one another, sources without cases.

    Raises:
        ScenarioError: with every contradiction found.
        DataError: a source that cannot list its cases.
    """
    found: dict[str, None] = {}
    for plan in plans:
        method = METHODS.get(plan.scenario.method.name)(plan.scenario.method, plan.scenario)
        found |= dict.fromkeys([*method.problems(), *_layer_problems(plan.scenario)])
    if found:
        raise ScenarioError(Problem("method", sentence) for sentence in found)
    from raykd.data.federation import list_cases

    seen = set()
    for plan in plans:
        if (key := (plan.scenario.model_dump_json(exclude={"method"}), plan.root)) not in seen:
            seen.add(key)
            list_cases(plan.scenario, plan.root)


def _layer_problems(scenario: Scenario) -> list[str]:
    """A sentence for each named feature layer that a network does not have."""
    layers = getattr(scenario.method, "layers", None)
    if not callable(layers) or not (wanted := layers()):
        return []
    networks = {"teacher": scenario.repository.teacher.network, "student": scenario.student.network}
    found = []
    for role, block in networks.items():
        known = NETWORKS.get(block.name)(block, 2).layers
        found += [f"feature layer {name!r} must be one of the {role}'s: {', '.join(known)}" for name in wanted if name not in known]
    return found


def launch(
    plans: Sequence[Plan],
    *,
    backend: str = "ray",
    address: str | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> list[Path]:
    """Runs the plans one after the other, on workers that outlive each of them, and returns their directories.

    Args:
        plans: checked.
        backend: `ray`, or `in-process` for the reference that runs here, one client after the other.
        address: of a Ray cluster; None: `$RAY_ADDRESS`, else one started here.
        progress: told of what happens.
        stop: set to end after the round in hand.

    Raises:
        DataError, ResourceError: nothing was started, or nothing of the run in hand was written.
        RunFailed: a run could not be finished; its manifest says `failed`.
        Interrupted: `stop` was set; the manifest of the run in hand says `interrupted`.
    """
    watch = progress or (lambda event, **values: None)
    event = stop or threading.Event()
    job = functools.partial(run_plans, plans)
    if backend == "in-process":
        from raykd.runtime.in_process import InProcessBackend

        return job(InProcessBackend(watch), watch, event)
    if backend != "ray":
        raise RaykdError(f"backend must be ray or in-process, got {backend!r}")
    from raykd.runtime.ray_backend import run_on_ray

    num_clients = max(len(plan.scenario.members()) for plan in plans)
    resources = plans[0].scenario.resources
    if any(plan.scenario.resources != resources for plan in plans):
        raise ResourceError("all cells of a study must ask for the same resources; run them as studies of their own")
    return run_on_ray(job, resources, num_clients, address=address, progress=watch, stop=event)


def run_plans(plans: Sequence[Plan], backend: Backend, progress: Progress, stop: threading.Event) -> list[Path]:
    """The job of a driver: every plan from prepared data to a finished run directory."""
    for number, plan in enumerate(plans):
        progress("run", name=plan.scenario.name, method=plan.method_label, seed=plan.scenario.seed, number=number, total=len(plans))
        _run_plan(plan, backend, progress, stop)
    return [plan.run_dir for plan in plans]


def _run_plan(plan: Plan, backend: Backend, progress: Progress, stop: threading.Event) -> None:
    from raykd.federation.driver import Driver
    from raykd.federation.driver import Interrupted as Stopped

    scenario = plan.scenario
    writer = RunWriter(
        plan.run_dir, {"run_id": _run_id(plan), "scenario": scenario.name, "method": plan.method_label, "seed": scenario.seed}
    )
    lines, kept = Lines(), []

    def note(event: str, **values: Any) -> None:
        if (line := lines.permanent(event, values)) is not None:
            kept.append(line)
            if plan.run_dir.is_dir():
                (plan.run_dir / "run.log").write_text("\n".join(kept) + "\n", encoding="utf-8")
        progress(event, **values)

    driver = Driver(scenario, plan.root, backend, writer, note, stop)
    clients = driver.prepare()
    create_run_dir(plan.run_dir)
    write_atomically(plan.run_dir / "scenario.yaml", dump_scenario(scenario).encode())
    facts = {
        "method": plan.method_label,
        "deployed": _deployed(scenario),
        "num_slots": backend.num_slots,
        "scenario_root": os.path.relpath(plan.root, plan.run_dir),
    }
    writer.write_manifest({**new_manifest(scenario.content_hash(), _run_id(plan)), **facts})
    try:
        models = driver.run(clients)
    except Stopped as stopped:
        writer.update_manifest(status="interrupted", reason=str(stopped))
        raise Interrupted(f"{stopped}; {plan.run_dir} holds what was done") from None
    except (RaykdError, RunFailed) as error:
        writer.update_manifest(status="failed", reason=str(error))
        raise RunFailed(f"{error}; {plan.run_dir} holds what was done") from None
    _save_models(plan.run_dir / "models", models)
    writer.update_manifest(status="done")


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


def _save_models(folder: Path, models: dict[str, Any]) -> None:
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    for name, payload in models.items():
        write_atomically(folder / f"{name}.safetensors", save({key: value.contiguous() for key, value in payload.items()}))
