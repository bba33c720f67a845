"""Workers as Ray actors: plain classes, made remote at the last moment. Ray never restarts one; who lost it starts another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from ray import exceptions as ray_errors

from raykd.runtime.placement import slots_on
from raykd.runtime.quick_start import import_monai
from raykd.scenario.errors import ResourceError
from raykd.scenario.schema import Resources, Scenario

if TYPE_CHECKING:
    from raykd.federation.protocols import Progress
    from raykd.federation.transport import Envelope

START_TIMEOUT_S = 120.0
LOST = (
    ray_errors.RayActorError,
    ray_errors.OutOfMemoryError,
    ray_errors.ObjectLostError,
    ray_errors.WorkerCrashedError,
    ray_errors.NodeDiedError,
    ray_errors.LocalRayletDiedError,
)
"""What Ray raises where the infrastructure failed, not the work."""


class WorkerActor:
    """A process on the device that Ray gave it, with a worker a lane; a share of a GPU is also a limit on its memory.

    Args:
        progress: told of finished steps and clients; must survive serialisation.
        gpus: what it holds of them.
        num_lanes: threads that work side by side.
        num_threads: of each of them in torch.
    """

    def __init__(self, progress: Progress, gpus: float, num_lanes: int, num_threads: int):
        # Here and not in Ray's runtime environment, for which Ray would start a process beside those that it has ready.
        os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(num_threads)))
        import_monai()
        from raykd.federation.worker import Worker
        from raykd.runtime.device import take_up_device

        device = take_up_device(gpus, progress)
        self._lanes = [Worker(progress, device) for _ in range(num_lanes)]

    def is_ready(self) -> bool:
        """Answers once the process has started."""
        return True

    def open(self, scenario: Scenario, root: Path) -> None:
        """Takes up a scenario in every lane."""
        for worker in self._lanes:
            worker.open(scenario, root)

    def receive(self, payload: Envelope) -> None:
        """Keeps what the run hands out, in every lane."""
        for worker in self._lanes:
            worker.receive(payload)

    def carry_out(self, lane: int, work: str, jobs: Sequence[Any], *shared: Any) -> list[tuple[Any, float]]:
        """Does one kind of work for several clients in one lane; a reply and its seconds for each."""
        return self._lanes[lane].carry_out(work, jobs, shared)


class Process(NamedTuple):
    """A started worker process."""

    actor: Any
    num_lanes: int = 1


def start_process(resources: Resources, progress: Progress, num_lanes: int = 1) -> Process:
    """A worker process with the scenario's share of a machine a lane, and its number of threads."""
    options = {
        "num_cpus": resources.cpus_per_client * num_lanes,
        "num_gpus": resources.gpus_per_client * num_lanes,
        "max_restarts": 0,
        "max_task_retries": 0,
        "max_concurrency": num_lanes,
    }
    gpus = resources.gpus_per_client * num_lanes
    made = ray.remote(WorkerActor).options(**options).remote(progress, gpus, num_lanes, resources.threads_per_client)
    return Process(made, num_lanes)


def start_processes(resources: Resources, num_slots: int, progress: Progress) -> list[Process]:
    """The processes of so many slots: one each, or one a node where slots are threads."""
    if resources.workers == "processes":
        return [start_process(resources, progress) for _ in range(num_slots)]
    started, left = [], num_slots
    for node in ray.nodes():
        num_lanes = min(left, slots_on(node["Resources"], resources)) if node["Alive"] else 0
        if num_lanes:
            started.append(start_process(resources, progress, num_lanes))
            left -= num_lanes
    return started


def await_start(processes: Sequence[Process]) -> list[tuple[int, Exception]]:
    """Returns once all have started or died: which died, and what Ray says of it. Raises `ResourceError` where some do neither."""
    asked = [process.actor.is_ready.remote() for process in processes]
    ready, pending = ray.wait(asked, num_returns=len(asked), timeout=START_TIMEOUT_S)
    if pending:
        raise ResourceError(
            f"only {len(ready)} of {len(asked)} workers started within {START_TIMEOUT_S:.0f} s; "
            f"free now: {ray.available_resources()}; set resources.slots lower or free the cluster"
        )
    died: list[tuple[int, Exception]] = []
    for index, answer in enumerate(asked):
        try:
            ray.get(answer)
        except LOST as error:
            died.append((index, error))
    return died


def cause_of(error: ray_errors.RayTaskError) -> BaseException:
    """What a task raised, without Ray's wrapping."""
    cause: BaseException = error
    while isinstance(cause, ray_errors.RayTaskError) and cause.cause is not None and cause.cause is not cause:
        cause = cause.cause
    return cause
