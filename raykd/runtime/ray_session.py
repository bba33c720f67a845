"""A connection to Ray, and the driver actor in which rounds run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray import exceptions as ray_errors

from raykd.federation.protocols import Backend, Progress
from raykd.runtime.placement import probe_address, slots_that_fit
from raykd.runtime.ray_backend import RayBackend, cause_of, start_worker
from raykd.runtime.signals import kept_handlers
from raykd.scenario.errors import ResourceError, RunFailed

T = TypeVar("T")
POLL_S = 0.25


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
        with kept_handlers():
            ray.init(
                address=target, include_dashboard=False if target == "local" else None, log_to_driver=False, logging_level="ERROR"
            )
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
            raise cause_of(error) from None
        except ray_errors.RayActorError as error:
            raise RunFailed(f"the driver actor died: {error}") from None
        return ended
