"""Drivers that outlive the process that started them: named actors of a standing cluster, found again by name or run directory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import exceptions as ray_errors

from raykd.federation.protocols import Progress
from raykd.runtime.address import LOCAL, chosen_address
from raykd.runtime.placement import slots_that_fit
from raykd.runtime.ray_nodes import refuse_hidden
from raykd.runtime.ray_session import Job, as_raised, follow, ray_session, start_driver
from raykd.scenario.errors import RaykdError, ResourceError, did_you_mean

NAMESPACE = "raykd"
MAX_ALIKE = 100
"""Drivers of one name that a cluster may have."""
ANSWER_TIMEOUT_S = 10.0


@contextmanager
def standing_cluster(address: str | None) -> Iterator[None]:
    """A connection to a cluster that was there before. Raises `ResourceError` where none is named or none answers."""
    if chosen_address(address) == LOCAL and not ray.is_initialized():
        raise ResourceError(
            "a standing cluster must be named, got none: give --address HOST:PORT or set RAY_ADDRESS; `ray start --head` starts one"
        )
    with ray_session(address):
        yield


def start_detached(
    job: Job[Any],
    resources: Any,
    num_clients: int,
    *,
    address: str | None,
    name: str,
    run_dirs: Sequence[Path],
    folders: Sequence[Path],
    progress: Progress,
    has_begun: Callable[[], bool],
) -> str:
    """Starts a driver that goes on without this process, and the workers with it.

    Args:
        job, resources, num_clients, address, folders: as for `run_on_ray`.
        name: wished for; a number is added where another run has it.
        run_dirs: absolute, in the order in which the job writes them.
        progress: told of events until the job has begun.
        has_begun: whether what could be refused has not been.

    Returns:
        The driver's name.

    Raises:
        ResourceError, RaykdError, RunFailed: nothing was started, or what was started has ended by itself.
    """
    with standing_cluster(address):
        for known in drivers():
            if taken := set(known["run_dirs"]) & {str(run_dir) for run_dir in run_dirs}:
                raise RaykdError(f"{min(taken)}: driver {known['name']} writes it already; follow it: raykd attach {known['name']}")
        num_slots = slots_that_fit(ray.nodes(), resources, num_clients)
        refuse_hidden(folders)
        about = {"run_dirs": [str(run_dir) for run_dir in run_dirs], "started_at": time.time()}
        driver, name = _named_driver(about, name)
        try:
            with as_raised():
                ray.get(driver.begin.remote(job, resources, num_slots))
        except BaseException:
            ray.kill(driver)
            raise
        follow(driver, progress, threading.Event(), has_begun)
        return name


def _named_driver(about: dict[str, Any], name: str) -> tuple[Any, str]:
    for number in range(1, MAX_ALIKE + 1):
        free = name if number == 1 else f"{name}-{number}"
        try:
            return start_driver({**about, "name": free}, free, NAMESPACE), free
        except ValueError:  # taken
            continue
    raise RaykdError(f"the cluster has {MAX_ALIKE} drivers named {name}; name the run's directory otherwise with --out")


def drivers() -> list[dict[str, Any]]:
    """What every detached driver of the connected cluster says of itself, by name; see `DriverActor.describe`."""
    names = sorted(actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True) if actor["namespace"] == NAMESPACE)
    found = []
    for name in names:
        try:
            told = ray.get(ray.get_actor(name, NAMESPACE).describe.remote(), timeout=ANSWER_TIMEOUT_S)
            found.append({**told, "name": name})
        except (ValueError, ray_errors.RayActorError):  # ended meanwhile
            continue
        except ray_errors.GetTimeoutError:
            found.append({"name": name, "run_dirs": [], "started_at": None, "latest": {}, "is_stopping": False, "has_ended": False})
    return found


def find_driver(word: str) -> Any:
    """The driver of a name or of a run's or study's directory.

    Raises:
        RaykdError: there is none, with those that are there.
    """
    known, folder = drivers(), str(Path(word).absolute())
    for told in known:
        if word == told["name"] or folder in told["run_dirs"] or folder in (str(Path(d).parent) for d in told["run_dirs"]):
            return ray.get_actor(told["name"], NAMESPACE)
    names = [told["name"] for told in known]
    raise RaykdError(f"the cluster has no driver {word}; {did_you_mean(word, names) or 'it has none at all'}")


def ask_to_stop(driver: Any) -> list[str]:
    """Has a driver end, and gives the directories that it writes."""
    with as_raised():
        ray.get(driver.stop.remote())
        run_dirs: list[str] = ray.get(driver.describe.remote())["run_dirs"]
        return run_dirs
