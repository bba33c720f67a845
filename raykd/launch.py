"""From loaded scenarios to run directories: the composition that the command line and the Python interface share."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raykd.scenario.errors import Problem, RaykdError, ResourceError, ScenarioError
from raykd.scenario.registry import METHODS, NETWORKS
from raykd.scenario.schema import Scenario

if TYPE_CHECKING:
    from raykd.federation.protocols import Progress


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
        is_resumed: whether the directory holds a run that goes on.
        url: of the directory in a store that `run_dir` is mirrored to; "": none.
        study_record: the text of study.yaml beside the directories of a study's runs; "" for a run of its own.
        settings: what the study varied for this run, in words for a person; "": nothing.
        number: its place among the runs of the study, from 1.
        num_runs: how many runs the study has, those that are done included.
    """

    run_dir: Path
    method_label: str
    scenario: Scenario
    root: Path
    study_record: str = ""
    is_resumed: bool = False
    url: str = ""
    settings: str = ""
    number: int = 1
    num_runs: int = 1

    @property
    def place(self) -> str:
        """Where a user finds the run."""
        return self.url or str(self.run_dir)


def refuse_taken(plans: Sequence[Plan]) -> None:
    """Raises `RaykdError` where a run's directory holds something already or nothing can be written where it would be."""
    from raykd.results.writer import is_vacant
    from raykd.storage import refuse_unwritable

    for plan in plans:
        refuse_unwritable(plan.run_dir, "give another place with --out")
        if plan.run_dir.exists() and (not plan.run_dir.is_dir() or not is_vacant(plan.run_dir)):
            rule = f"{plan.run_dir}: a new run needs a directory that is empty or not there yet"
            raise RaykdError(f"{rule}{_holds(plan.run_dir)}; give another with --out")


def _holds(folder: Path) -> str:
    """What the user may have meant to do with a run that is there already."""
    try:
        status = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    if status == "done":
        return f", got one with a run that is done (`raykd report {folder}` shows it, `raykd reproduce {folder}` runs it again)"
    return f", got one with a run that is not done ({status}; `raykd resume {folder}` goes on with it)"


def check_plans(plans: Sequence[Plan]) -> None:
    """Refuses what no amount of computing would make right: settings that contradict one another, sources without cases.

    Raises:
        ScenarioError: with every contradiction found.
        DataError: a source that cannot list its cases.
    """
    from raykd.data.federation import list_cases
    from raykd.federation.teacher import with_taught_classes

    _refuse_problems([plan.scenario for plan in plans])
    repositories: dict[tuple[str, Path], Any] = {}
    for plan in plans:
        if (key := (plan.scenario.model_dump_json(exclude={"method"}), plan.root)) not in repositories:
            list_cases(plan.scenario, plan.root)
            repositories[key] = with_taught_classes(plan.scenario, plan.root).repository
        if repositories[key] != plan.scenario.repository:  # its cases lack a class that a method may need
            _refuse_problems([plan.scenario.model_copy(update={"repository": repositories[key]})])


def _refuse_problems(scenarios: Iterable[Scenario]) -> None:
    """Raises `ScenarioError` with every contradiction in the settings."""
    from raykd.federation.evaluation import tolerance_problems
    from raykd.federation.privacy_rules import privacy_problems

    found: dict[tuple[str, str], None] = {}
    for scenario in scenarios:
        method = METHODS.get(scenario.method.name)(scenario.method, scenario)
        own = [("method", sentence) for sentence in method.problems()]
        others = _network_problems(scenario), privacy_problems(method), tolerance_problems(scenario)
        found |= dict.fromkeys([*own, *(problem for problems in others for problem in problems)])
    if found:
        raise ScenarioError(Problem(path, rule) for path, rule in found)


@functools.cache
def _grid_of(network: Any) -> tuple[tuple[str, ...], tuple[int, int, int]]:
    """A network's named layers, and the multiples that the edges of its input must be."""
    built = NETWORKS.get(network.name)(network, 2)
    return tuple(built.layers), built.total_stride


def _network_problems(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Key path and rule of every named layer that a network does not have, and of every patch that its strides do not divide."""
    teacher = scenario.repository.teacher
    patches = {("repository.teacher.patch_shape", teacher.network, teacher.patch_shape): None}
    method = METHODS.get(scenario.method.name)(scenario.method, scenario)
    for member in scenario.members():
        network = member.group.student.network if member.group.student else method.student_network()
        patches |= {("training.patch_shape", network, member.training.patch_shape): None}
    for path, network, shape in patches:
        _, multiples = _grid_of(network)
        if any(edge % multiple for edge, multiple in zip(shape, multiples, strict=True)):
            yield path, f"must have edges that are multiples of {list(multiples)} for network {network.name}, got {list(shape)}"
    wanted = scenario.method.named_layers() if callable(getattr(scenario.method, "named_layers", None)) else ()
    for role, network in {"teacher": teacher.network, "student": scenario.student.network}.items():
        known, _ = _grid_of(network)
        for name in wanted:
            if name not in known:
                yield "method", f"feature layer {name!r} must be one of the {role}'s: {', '.join(known)}"


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
        stop: set to end; the round in hand is given up and nothing of it is kept.

    Raises:
        DataError, ResourceError: nothing was started, or nothing of the run in hand was written.
        RunFailed: a run could not be finished; its manifest says `failed`.
        Interrupted: `stop` was set; the manifest of the run in hand says `interrupted`.
    """
    watch = progress or (lambda event, **values: None)
    event = stop or threading.Event()
    from raykd.execution import run_plans
    from raykd.failpoints import VARIABLE, arm

    arm(os.environ.get(VARIABLE, ""))

    if backend == "in-process":
        from raykd.runtime.in_process import InProcessBackend

        return run_plans(plans, InProcessBackend(watch, event), watch, event)
    if backend != "ray":
        raise RaykdError(f"backend must be ray or in-process, got {backend!r}")
    from raykd.runtime.ray_session import run_on_ray

    plans, folders = _for_cluster(plans, address)
    resources, num_clients = _shared_resources(plans)
    job = functools.partial(run_plans, plans)
    return run_on_ray(job, resources, num_clients, address=address, progress=watch, stop=event, folders=folders)


def launch_detached(plans: Sequence[Plan], name: str, *, address: str | None = None, progress: Progress | None = None) -> str:
    """Has a standing cluster run the plans without this process, and returns the name of the driver there.

    Args:
        plans: checked.
        name: wished for the driver; a number is added where it is taken.
        address: of the cluster; None: `$RAY_ADDRESS`.
        progress: told of what happens until the first run's directory is there: then its data have not been refused.

    Raises:
        DataError, ResourceError, RaykdError: nothing was started, or there is no standing cluster.
        RunFailed: it had started and failed at once.
    """
    from raykd.execution import run_plans
    from raykd.runtime.ray_detached import start_detached

    plans, folders = _for_cluster(plans, address)
    resources, num_clients = _shared_resources(plans)
    return start_detached(
        functools.partial(run_plans, plans),
        resources,
        num_clients,
        address=address,
        name=name,
        run_dirs=[plan.run_dir for plan in plans],
        folders=folders,
        progress=progress or (lambda event, **values: None),
        has_begun=(plans[0].run_dir / "manifest.json").is_file,
    )


def _shared_resources(plans: Sequence[Plan]) -> tuple[Any, int]:
    """The `resources` block of all plans, and the most clients that one of them has."""
    resources = plans[0].scenario.resources
    if any(plan.scenario.resources != resources for plan in plans):
        raise ResourceError("all cells of a study must ask for the same resources; run them as studies of their own")
    return resources, max(len(plan.scenario.members()) for plan in plans)


def _for_cluster(plans: Sequence[Plan], address: str | None) -> tuple[list[Plan], list[Path]]:
    """Plans whose directories mean the same in any process, and the folders that the nodes of a standing cluster must see."""
    from raykd.runtime.address import LOCAL, chosen_address

    if chosen_address(address) == LOCAL:
        return list(plans), []
    from raykd.data.folders import source_folders

    placed = [dataclasses.replace(plan, run_dir=plan.run_dir.absolute()) for plan in plans]
    return placed, list(dict.fromkeys(folder for plan in plans for folder in source_folders(plan.scenario, plan.root)))
