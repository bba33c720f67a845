"""A connection to Ray, and the driver actor in which rounds run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from ray import exceptions as ray_errors
from ray._raylet import Config  # type: ignore[attr-defined]
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raykd.runtime.address import LOCAL, ready_address
from raykd.runtime.placement import slots_that_fit
from raykd.runtime.quick_start import import_monai
from raykd.runtime.ray_nodes import refuse_hidden
from raykd.runtime.ray_own import own_cluster
from raykd.runtime.ray_workers import Process, cause_of, start_processes
from raykd.runtime.shipping import runtime_env
from raykd.runtime.signals import kept_handlers
from raykd.scenario.errors import ResourceError, RunFailed

if TYPE_CHECKING:
    from raykd.federation.protocols import Backend, Progress

T = TypeVar("T")
Job = Callable[["Backend", "Progress", threading.Event], T]
"""What a driver does, given its backend, a progress and an event that is set to stop it."""
POLL_S = 0.25
NUM_KEPT = 5000
"""Events that a driver remembers for whoever begins to follow it, or twice as many."""
PAUSE_S = 0.2
"""Between two clients of which a worker tells that they are done."""
LINGER_S = 3.0
"""How long a detached driver stays after its job, so that those who follow it hear the end."""


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """A connection to the cluster at `address`, at `$RAY_ADDRESS`, or to one started here and ended with the block.

    Raises:
        ResourceError: no cluster answers there, or it refuses this process; within seconds.
    """
    if ray.is_initialized():
        yield
        return
    target = ready_address(address)
    with own_cluster() if target == LOCAL else nullcontext(target) as there:
        try:
            Config.initialize("")  # Ray has read the environment when it was imported, perhaps before the token's mode was set
            with kept_handlers():
                ray.init(address=there, log_to_driver=False, logging_level="ERROR", runtime_env=runtime_env(target) or None)
        except (ConnectionError, ray_errors.AuthenticationError) as error:
            raise ResourceError(f"the Ray cluster at {target} was reached but refused the connection: {error}") from None
        try:
            yield
        finally:
            ray.shutdown()


class DriverActor:
    """Runs a job beside its backend and lets others watch and stop it: made remote by `start_driver`.

    Args:
        about: what others are told of it, as plain data.
        is_detached: whether it ends itself after its job, since nobody may be there to do so.
    """

    def __init__(self, about: Mapping[str, Any], is_detached: bool) -> None:
        import_monai()
        self._about, self._is_detached = dict(about), is_detached
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._num_forgotten, self._latest = 0, dict[str, dict[str, Any]]()
        self._noting = threading.Lock()
        self._stop, self._ended = threading.Event(), threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None

    def begin(self, job: Job[Any], resources: Any, num_slots: int, processes: Sequence[Process] = ()) -> None:
        """Starts the job and returns; the driver starts its own workers where it is given none."""
        me = ray.get_runtime_context().current_actor
        threading.Thread(target=self._execute, args=(me, job, resources, num_slots, processes), daemon=True).start()

    def _execute(self, me: Any, job: Job[Any], resources: Any, num_slots: int, processes: Sequence[Process]) -> None:
        tell = teller(me)
        try:
            from raykd.runtime.ray_backend import RayBackend

            backend = RayBackend(resources, processes or start_processes(resources, num_slots, tell), tell, self._stop)
            try:
                self._result = job(backend, lambda event, **values: self.note(event, values), self._stop)
            finally:
                backend.close()
        except BaseException as error:  # told to whoever asks for the result
            self._error = error
        self._ended.set()
        if self._is_detached:
            time.sleep(LINGER_S)
            ray.kill(me)

    def note(self, event: str, values: dict[str, Any]) -> None:
        """Files what the job or a worker tells."""
        with self._noting:
            self._events.append((event, values))
            self._latest[event] = values
            if len(self._events) > 2 * NUM_KEPT:
                self._num_forgotten += len(self._events) - NUM_KEPT
                del self._events[:-NUM_KEPT]

    def poll(self, number: int) -> tuple[list[tuple[str, dict[str, Any]]], int, bool]:
        """What was told after the first `number` events and is still known, their number in all, and whether the job has ended,
        for which it waits a moment.
        """
        has_ended = self._ended.wait(POLL_S)
        with self._noting:
            events = self._events[max(number - self._num_forgotten, 0) :]
            return events, self._num_forgotten + len(self._events), has_ended

    def describe(self) -> dict[str, Any]:
        """What it is about, and the last of each kind of event."""
        latest = {event: self._latest[event] for event in ("run", "stage", "round") if event in self._latest}
        return {**self._about, "latest": latest, "is_stopping": self._stop.is_set(), "has_ended": self._ended.is_set()}

    def result(self) -> Any:
        """What the job returned; raises what it raised. Asked once it has ended."""
        if self._error is not None:
            raise self._error
        return self._result

    def stop(self) -> None:
        """Asks the job to end; the round in hand is given up."""
        self._stop.set()


def teller(driver: Any) -> Progress:
    """A progress that any process can use to tell a driver actor; of clients that are done, only so many a second."""
    told_s = -PAUSE_S

    def tell(event: str, **values: Any) -> None:
        nonlocal told_s
        if event == "client":
            if time.monotonic() - told_s < PAUSE_S:
                return
            told_s = time.monotonic()
        driver.note.remote(event, values)

    return tell


def start_driver(about: Mapping[str, Any], name: str | None = None, namespace: str | None = None) -> Any:
    """A driver actor on this node, where the paths of a run mean what they mean here; one with a name outlives its maker.

    Raises:
        ValueError: the name is taken.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    named = {"name": name, "namespace": namespace, "lifetime": "detached"} if name else {}
    options = {"num_cpus": 0, "max_concurrency": 8, "scheduling_strategy": here, **named}
    return ray.remote(DriverActor).options(**options).remote(about, name is not None)


@contextmanager
def as_raised() -> Iterator[None]:
    """Raises what an actor raised as that, and the loss of the driver as `RunFailed`."""
    try:
        yield
    except ray_errors.RayTaskError as error:
        raise cause_of(error) from None
    except ray_errors.RayActorError as error:
        reason = str(error).splitlines()[0]
        raise RunFailed(f"the driver was lost ({reason}); `raykd resume` goes on with a run from its last round") from None


def follow(driver: Any, progress: Progress, stop: threading.Event, is_enough: Callable[[], bool] = lambda: False) -> Any:
    """Passes a driver's events on until its job ends, and returns or raises what that did; None once `is_enough`.

    Raises:
        RaykdError, RunFailed, Interrupted: as the job raises them.
        RunFailed: the driver is gone.
    """
    num_seen, is_told, has_ended = 0, False, False
    with as_raised():
        while not has_ended:
            if stop.is_set() and not is_told:
                driver.stop.remote()
                is_told = True
            events, num_told, has_ended = ray.get(driver.poll.remote(num_seen))
            for event, values in events:
                progress(event, **values)
            num_seen = num_told
            if not has_ended and is_enough():
                return None
        return ray.get(driver.result.remote())


def run_on_ray(
    job: Job[T],
    resources: Any,
    num_clients: int,
    *,
    address: str | None,
    progress: Progress,
    stop: threading.Event,
    folders: Sequence[Path] = (),
) -> T:
    """Runs a job in a driver actor and passes its events on until it ends.

    Args:
        job: given a backend, a progress and a stop event, all of the driver's.
        resources: the scenario's `resources` block.
        num_clients: no more workers are started than this.
        address: of a cluster; None: `$RAY_ADDRESS`, else one of its own.
        progress: told here of every event there.
        stop: set here, the job ends, and gives up the round in hand.
        folders: which every node must see.

    Raises:
        ResourceError: no cluster answers, the workers do not fit, or a node lacks a folder.
        RaykdError, RunFailed, Interrupted: as the job raises them.
    """
    with ray_session(address):
        num_slots = slots_that_fit(ray.nodes(), resources, num_clients)
        refuse_hidden(folders)
        driver = start_driver({})
        # Started here and not by the driver, so that all processes import their libraries at the same time.
        processes = start_processes(resources, num_slots, teller(driver))
        try:
            with as_raised():
                ray.get(driver.begin.remote(job, resources, num_slots, processes))
            ended: T = follow(driver, progress, stop)
        finally:
            ray.kill(driver)
        return ended
