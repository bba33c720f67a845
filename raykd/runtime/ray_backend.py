"""Clients as Ray actors, rounds in a driver actor. The only module that imports ray.

Plain classes are made remote here at the last moment. A pool of worker actors, as many as the scenario's resources allow,
multiplexes the clients: each client stays with one worker, which keeps its data and student. The driver, not Ray, retries what
an actor lost: a local update is a pure function of its job, so done again elsewhere it gives the same bits.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")

import ray
import torch
from ray import exceptions as ray_errors

from raykd.federation.protocols import Backend, EvaluationJob, EvaluationReply, LocalJob, LocalReply, Progress, Row, ServerJob
from raykd.federation.transport import Envelope
from raykd.federation.worker import Worker
from raykd.runtime.placement import probe_address, slots_that_fit
from raykd.scenario.errors import RaykdError, ResourceError, RunFailed
from raykd.scenario.schema import Scenario

T = TypeVar("T")
Call = tuple[int, str, tuple[Any, ...]]
"""Slot, method of the worker, arguments."""
MAX_ATTEMPTS = 3
"""Tries of one piece of work before the run fails."""
START_TIMEOUT_S = 120.0
POLL_S = 0.25
LOST = (
    ray_errors.RayActorError,
    ray_errors.OutOfMemoryError,
    ray_errors.ObjectLostError,
    ray_errors.WorkerCrashedError,
    ray_errors.NodeDiedError,
    ray_errors.LocalRayletDiedError,
)
"""What Ray raises where the infrastructure failed, not the work."""


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """A connection to the cluster at `address`, at `$RAY_ADDRESS`, or to one started here and ended with the block.

    Raises:
        ResourceError: nothing listens at the address.
    """
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    if ray.is_initialized():
        yield
        return
    probe_address(target)
    try:
        ray.init(address=target, include_dashboard=False if target == "local" else None, log_to_driver=False, logging_level="ERROR")
    except ConnectionError as error:
        raise ResourceError(f"the Ray cluster at {target} was reached but refused the connection: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


class DriverActor:
    """Runs a job beside its backend and lets others watch and stop it: made remote by `run_on_ray`."""

    def __init__(self) -> None:
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._stop = threading.Event()

    def execute(self, job: Callable[[Backend, Progress, threading.Event], T], resources: Any, workers: Sequence[Any]) -> T:
        """The job's result; the backend's workers are gone when it returns."""
        backend = RayBackend(resources, workers, teller(ray.get_runtime_context().current_actor))
        try:
            return job(backend, lambda event, **values: self.note(event, values), self._stop)
        finally:
            backend.close()

    def note(self, event: str, values: dict[str, Any]) -> None:
        """Files what the job or a worker tells."""
        self._events.append((event, values))

    def events_since(self, number: int) -> list[tuple[str, dict[str, Any]]]:
        """Everything told after the first `number` events."""
        return self._events[number:]

    def stop(self) -> None:
        """Asks the job to end after the round in hand."""
        self._stop.set()


def teller(driver: Any) -> Progress:
    """A progress that any process can use to tell a driver actor."""
    return lambda event, **values: driver.note.remote(event, values)


def run_on_ray(
    job: Callable[[Backend, Progress, threading.Event], T],
    resources: Any,
    num_clients: int,
    *,
    address: str | None,
    progress: Progress,
    stop: threading.Event,
) -> T:
    """Runs a job in a driver actor and passes its events on until it ends.

    Args:
        job: given a backend, a progress and a stop event, all of the driver's.
        resources: the scenario's `resources` block.
        num_clients: no more workers are started than this.
        address: of a cluster; None: `$RAY_ADDRESS`, else one of its own.
        progress: told here of every event there.
        stop: set here, the job ends after the round in hand.

    Raises:
        RaykdError, RunFailed, Interrupted: as the job raises them.
    """
    with ray_session(address):
        num_slots = slots_that_fit(ray.nodes(), resources, num_clients)
        driver = ray.remote(DriverActor).options(num_cpus=0, max_concurrency=8).remote()
        # Started here and not by the driver, so that all processes import their libraries at the same time.
        workers = [start_worker(resources, teller(driver)) for _ in range(num_slots)]
        result = driver.execute.remote(job, resources, workers)
        num_seen, is_told, is_done = 0, False, False
        try:
            while not is_done:
                is_done = bool(ray.wait([result], timeout=POLL_S)[0])
                if stop.is_set() and not is_told:
                    driver.stop.remote()
                    is_told = True
                for event, values in ray.get(driver.events_since.remote(num_seen)):
                    progress(event, **values)
                    num_seen += 1
            ended: T = ray.get(result)
        except ray_errors.RayTaskError as error:
            raise _cause(error) from None
        except ray_errors.RayActorError as error:
            raise RunFailed(f"the driver actor died: {error}") from None
        return ended


def _cause(error: ray_errors.RayTaskError) -> BaseException:
    cause: BaseException = error
    while isinstance(cause, ray_errors.RayTaskError) and cause.cause is not None and cause.cause is not cause:
        cause = cause.cause
    return cause


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
                raise _as_failure(_cause(error), calls[index][1]) from None
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


def _as_failure(cause: BaseException, work: str) -> BaseException:
    """A refusal stays a refusal; anything else fails the run with its own words."""
    if isinstance(cause, RaykdError | RunFailed):
        return cause
    return RunFailed(f"{work} failed: {type(cause).__name__}: {cause}")
