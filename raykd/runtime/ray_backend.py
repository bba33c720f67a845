"""Clients as Ray actors.

Plain classes are made remote here at the last moment. A pool of worker actors, as many as the scenario's resources allow,
multiplexes the clients: each client stays with one worker, which keeps its data and student. The driver, not Ray, retries what
an actor lost: a local update is a pure function of its job, so done again elsewhere it gives the same bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from ray import exceptions as ray_errors

from raykd.federation.protocols import EvaluationJob, EvaluationReply, LocalJob, LocalReply, Progress, Row, ServerJob
from raykd.federation.transport import Envelope
from raykd.federation.worker import Worker
from raykd.scenario.errors import RaykdError, ResourceError, RunFailed
from raykd.scenario.schema import Scenario

Call = tuple[int, str, tuple[Any, ...]]
"""Slot, method of the worker, arguments."""
MAX_ATTEMPTS = 3
"""Tries of one piece of work before the run fails."""
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


class WorkerActor(Worker):
    """A worker on the device that Ray gave it; a share of a GPU is also a limit on its memory."""

    def __init__(self, progress: Progress, gpus: float):
        given = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        device = "cuda" if given and torch.cuda.is_available() else "cpu"
        if device == "cuda" and gpus < 1:
            torch.cuda.set_per_process_memory_fraction(gpus)
        super().__init__(progress, device)

    def is_ready(self) -> bool:
        """Answers once the process has started."""
        return True


def start_worker(resources: Any, progress: Progress) -> Any:
    """A worker actor with the scenario's share of a machine and its number of threads; Ray never restarts it."""
    threads = str(resources.threads_per_client)
    options = {
        "num_cpus": resources.cpus_per_client,
        "num_gpus": resources.gpus_per_client,
        "max_restarts": 0,
        "max_task_retries": 0,
        "runtime_env": {"env_vars": {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}},
    }
    return ray.remote(WorkerActor).options(**options).remote(progress, resources.gpus_per_client)


class RayBackend:
    """A pool of worker actors.

    Args:
        resources: the scenario's `resources` block.
        workers: from `start_worker`, as many as there are slots; ended with the backend.
        progress: told by workers that replace lost ones; must survive serialisation.
    """

    def __init__(self, resources: Any, workers: Sequence[Any], progress: Progress):
        self.num_slots = len(workers)
        self._resources, self._progress = resources, progress
        self._opened: tuple[Scenario, Path] | None = None
        self._handed_out: Any = None
        self._incidents: list[tuple[int, str]] = []
        self._workers = list(workers)
        self._await_start()

    def _await_start(self) -> None:
        ready, pending = ray.wait([w.is_ready.remote() for w in self._workers], num_returns=self.num_slots, timeout=START_TIMEOUT_S)
        if pending:
            raise ResourceError(
                f"only {len(ready)} of {self.num_slots} workers started within {START_TIMEOUT_S:.0f} s; "
                f"free now: {ray.available_resources()}; set resources.slots lower or free the cluster"
            )
        ray.get(ready)

    def open(self, scenario: Scenario, root: Path) -> None:
        self._opened, self._handed_out = (scenario, root), None
        ray.get([worker.open.remote(scenario, root) for worker in self._workers])

    def prepare(self, client_ids: Sequence[int], with_repository: bool) -> list[Row]:
        calls: list[Call] = [(self._slot(client_id), "describe", (client_id,)) for client_id in client_ids]
        if with_repository:
            calls.append((self.num_slots - 1, "prepare_repository", ()))
        return self._map(calls)[: len(client_ids)]

    def train_on_repository(self, networks: Sequence[Any]) -> list[tuple[Envelope, list[Row], EvaluationReply]]:
        return self._map([(index % self.num_slots, "train_on_repository", (network,)) for index, network in enumerate(networks)])

    def hand_out(self, payload: Envelope) -> None:
        self._handed_out = ray.put(payload)
        ray.get([worker.receive.remote(self._handed_out) for worker in self._workers])

    def local_updates(self, jobs: Sequence[LocalJob], download: Envelope) -> list[LocalReply]:
        sealed = ray.put(download)
        return self._map([(self._slot(job.client_id), "local_update", (job, sealed)) for job in jobs])

    def update_server(self, job: ServerJob) -> Envelope:
        reply: Envelope = self._map([(self.num_slots - 1, "update_server", (job,))])[0]
        return reply

    def evaluate(self, jobs: Sequence[EvaluationJob], shared: Mapping[str, Envelope]) -> list[EvaluationReply]:
        sealed = ray.put(dict(shared))
        return self._map([(self._slot(job.client_id), "evaluate", (job, sealed)) for job in jobs])

    def incidents(self) -> list[tuple[int, str]]:
        told, self._incidents = self._incidents, []
        return told

    def close(self) -> None:
        for worker in self._workers:
            ray.kill(worker)

    def _slot(self, client_id: int) -> int:
        return client_id % self.num_slots

    def _map(self, calls: Sequence[Call]) -> list[Any]:
        """The results of calls (slot, method, arguments) in their order: one call in flight a worker, a lost worker replaced."""
        queues = [deque(i for i, call in enumerate(calls) if call[0] == slot) for slot in range(self.num_slots)]
        attempts, results = [0] * len(calls), [None] * len(calls)
        in_flight: dict[Any, int] = {}
        while True:
            for slot, queue in enumerate(queues):
                if queue and slot not in in_flight.values():
                    index = queue[0]
                    attempts[index] += 1
                    in_flight[getattr(self._workers[slot], calls[index][1]).remote(*calls[index][2])] = slot
            if not in_flight:
                return results
            done, _ = ray.wait(list(in_flight), num_returns=1)
            slot = in_flight.pop(done[0])
            index = queues[slot][0]
            try:
                results[index] = ray.get(done[0])
                queues[slot].popleft()
            except ray_errors.RayTaskError as error:
                raise _as_failure(cause_of(error), calls[index][1]) from None
            except LOST as error:
                self._replace(slot, attempts[index], calls[index], error)

    def _replace(self, slot: int, attempt: int, call: Call, error: Exception) -> None:
        """A new worker in the slot of a lost one, unless the work was lost too often."""
        _, work, arguments = call
        client_id = getattr(arguments[0], "client_id", arguments[0]) if arguments else -1
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        self._incidents.append((client_id if isinstance(client_id, int) else -1, f"{work}, attempt {attempt}: {reason}"))
        self._progress("worker_lost", slot=slot, work=work, attempt=attempt, reason=reason)
        if attempt >= MAX_ATTEMPTS:
            raise RunFailed(f"{work} was lost {attempt} times with its worker, last by {reason}")
        self._workers[slot] = start_worker(self._resources, self._progress)
        if self._opened is not None:
            ray.get(self._workers[slot].open.remote(*self._opened))
        if self._handed_out is not None:
            ray.get(self._workers[slot].receive.remote(self._handed_out))


def cause_of(error: ray_errors.RayTaskError) -> BaseException:
    """What a task raised, without Ray's wrapping."""
    cause: BaseException = error
    while isinstance(cause, ray_errors.RayTaskError) and cause.cause is not None and cause.cause is not cause:
        cause = cause.cause
    return cause


def _as_failure(cause: BaseException, work: str) -> BaseException:
    """A refusal stays a refusal; anything else fails the run with its own words."""
    if isinstance(cause, RaykdError | RunFailed):
        return cause
    return RunFailed(f"{work} failed: {type(cause).__name__}: {cause}")
