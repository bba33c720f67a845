"""Clients on Ray: a pool of worker processes, as many as the scenario's resources allow, that multiplexes them.

What a client keeps between rounds comes with its work, so that any worker can do it; data and networks stay with the worker that
had it last. The driver, not Ray, does again what a worker lost: a local update is a pure function of its job, so done elsewhere it
gives the same bits.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import ray
import torch
from ray import exceptions as ray_errors

from raykd.federation.client import SERVER
from raykd.federation.protocols import EvaluationJob, EvaluationReply, Jobs, LocalJob, LocalReply, Progress, Row, ServerJob, Stopped
from raykd.federation.transport import Envelope
from raykd.runtime.dispatch import Costs, Queues
from raykd.runtime.placement import deadline_s, slots_on
from raykd.runtime.ray_workers import LOST, Process, await_start, cause_of, start_process
from raykd.scenario.errors import RaykdError, ResourceError, RunFailed
from raykd.scenario.schema import Resources, Scenario

MAX_ATTEMPTS = 3
"""Tries of one client's work before the run fails."""
LOOK_UP_S = 0.5
"""So often a wait for workers is broken off to see whether to stop."""
FULL = (ray_errors.ObjectStoreFullError, ray_errors.OutOfDiskError)
STORE_IS_FULL = "Ray's object store is full, and the disk that it spills to; free room there, or start Ray with another --temp-dir"
LARGER_SHARE = "Give a client a larger share of a GPU, or smaller patches or batches"
MOVING_FACTOR = 4.0
"""A client is moved where that saves so many times what preparing its cases took: it pays for one round, and costs are guesses."""
MOVING = ("describe", "local_update")
"""Work after whose cost clients are given homes; other work goes to where they are."""


@dataclass
class Call:
    """Work that a worker has in hand."""

    slot: int
    process: Process
    client_ids: list[int]
    due_s: float
    is_overdue: bool = False


class RayBackend:
    """A pool of worker processes.

    Args:
        resources: the scenario's `resources` block.
        processes: as started; ended with the backend.
        progress: told by workers that replace lost ones; must survive serialisation.
        stop: set to give up what is in hand.
    """

    def __init__(self, resources: Resources, processes: Sequence[Process], progress: Progress, stop: Event | None = None):
        self._resources, self._progress, self._stop = resources, progress, stop or Event()
        self._processes = list(processes)
        self._slots = [(index, lane) for index, process in enumerate(processes) for lane in range(process.num_lanes)]
        self.num_slots = len(self._slots)
        self._active = set(range(self.num_slots))
        self._opened: tuple[Scenario, Path] | None = None
        self._handed_out: Any = None
        self._incidents: list[tuple[int, str]] = []
        self._costs, self._homes = Costs(), dict[int, int]()
        for index, error in await_start(self._processes):
            self._incidents.append((SERVER, f"a worker that had just been started: {_reason(error)}"))
            if not self._replace(index, can_go_on=len(processes) > 1):
                self._retire(index)

    def open(self, scenario: Scenario, root: Path) -> None:
        self._opened, self._handed_out = (scenario, root), None
        self._costs, self._homes = Costs(), {}
        self._tell("open", scenario, root)

    def prepare(self, client_ids: Sequence[int], with_repository: bool) -> list[Row]:
        wanted = [*client_ids, *([SERVER] if with_repository else [])]
        found = dict(self._each("describe", Jobs(wanted, lambda client_id: client_id)))
        return [found[client_id] for client_id in client_ids]

    def train_on_repository(self, networks: Sequence[Any]) -> list[tuple[Envelope, list[Row], EvaluationReply]]:
        found = dict(self._each("train_on_repository", Jobs(range(len(networks)), networks.__getitem__)))
        return [found[index] for index in range(len(networks))]

    def hand_out(self, payload: Envelope) -> None:
        self._handed_out = _shared(payload)
        self._tell("receive", self._handed_out)

    def local_updates(self, jobs: Jobs[LocalJob], download: Envelope) -> Iterator[LocalReply]:
        return (reply for _, reply in self._each("local_update", jobs, _shared(download)))

    def update_server(self, job: ServerJob) -> Envelope:
        ((_, server),) = self._each("update_server", Jobs([SERVER], lambda _: job))
        found: Envelope = server
        return found

    def evaluate(self, jobs: Jobs[EvaluationJob], shared: Mapping[str, Envelope]) -> Iterator[EvaluationReply]:
        return (reply for _, reply in self._each("evaluate", jobs, _shared(dict(shared))))

    def incidents(self) -> list[tuple[int, str]]:
        told, self._incidents = self._incidents, []
        return told

    def close(self) -> None:
        for process in self._processes:
            ray.kill(process.actor)

    def _tell(self, what: str, *values: Any) -> None:
        """Calls every process; one that is lost meanwhile is replaced, and its successor knows what it did."""
        indices = sorted({self._slots[slot][0] for slot in self._active})
        asked = {index: getattr(self._processes[index].actor, what).remote(*values) for index in indices}
        for index, answer in asked.items():
            try:
                ray.get(answer)
            except LOST as error:
                self._incidents.append((SERVER, f"{what}: {_reason(error)}"))
                if not self._replace(index, can_go_on=len(indices) > 1):
                    self._retire(index)

    def _each(self, work: str, jobs: Jobs[Any], *shared: Any) -> Iterator[tuple[int, Any]]:
        """Client and reply of every job as they come: one call in flight a slot, lost work done again, a lost worker replaced."""
        homes = self._homes if work in MOVING else dict(self._homes)
        prepared_s = {} if work == "describe" else self._costs.expected("describe", jobs.client_ids)
        moving = {client_id: MOVING_FACTOR * seconds for client_id, seconds in prepared_s.items()}
        queues = Queues(self._costs.expected(work, jobs.client_ids), homes, self._active, moving)
        attempts: Counter[int] = Counter()
        in_flight: dict[Any, Call] = {}
        self._feed(work, jobs, shared, queues, in_flight)
        while in_flight:
            if self._stop.is_set():
                raise Stopped
            left_s = min(call.due_s for call in in_flight.values()) - time.monotonic()
            done, _ = ray.wait(list(in_flight), num_returns=1, timeout=min(max(left_s, 0.0), LOOK_UP_S))
            if not done:
                _give_up(in_flight.values())
                continue
            call, answers = in_flight.pop(done[0]), []
            try:
                answers = ray.get(done[0])
            except ray_errors.RayTaskError as error:
                raise _as_failure(error, work) from None
            except LOST as error:
                self._make_good(work, call, error, attempts, queues)
            self._feed(work, jobs, shared, queues, in_flight)
            for client_id, (reply, seconds) in zip(call.client_ids, answers, strict=False):
                self._costs.note(work, client_id, seconds)
                yield client_id, reply

    def _feed(self, work: str, jobs: Jobs[Any], shared: Sequence[Any], queues: Queues, in_flight: dict[Any, Call]) -> None:
        """Gives every idle slot its next clients."""
        busy = {call.slot for call in in_flight.values()}
        for slot in sorted(self._active - busy):
            if client_ids := queues.take(slot):
                index, lane = self._slots[slot]
                process = self._processes[index]
                due_s = time.monotonic() + sum(
                    deadline_s(self._resources.deadline_s, work, self._costs.of(work, client_id)) for client_id in client_ids
                )
                call = Call(slot, process, client_ids, due_s)
                made = [jobs.of(client_id) for client_id in client_ids]
                in_flight[process.actor.carry_out.remote(lane, work, made, *shared)] = call

    def _make_good(self, work: str, call: Call, error: Exception, attempts: Counter[int], queues: Queues) -> None:
        """Files a loss, puts its work back, and gets another worker; or fewer, where there was no room for so many."""
        attempts.update(call.client_ids)
        worst = max(call.client_ids, key=lambda client_id: (attempts[client_id], -client_id))
        reason = _reason(error)
        if call.is_overdue:
            reason = "it had not answered by its deadline (resources.deadline_s) and was given up"
        self._incidents.append((worst, f"{_named(work, call.client_ids)}, attempt {attempts[worst]}: {reason}"))
        self._progress("worker_lost", slot=call.slot, work=work, attempt=attempts[worst], reason=reason)
        if attempts[worst] >= MAX_ATTEMPTS:
            raise RunFailed(f"{_named(work, [worst])} was lost {MAX_ATTEMPTS} times with its worker, last by {reason}")
        index, _ = self._slots[call.slot]
        if self._processes[index] is call.process:  # another lane may have seen to it already
            num_lanes = call.process.num_lanes
            others = {slot for slot in self._active if self._slots[slot][0] != index}
            is_crowded = isinstance(error, ray_errors.OutOfMemoryError) or _room(self._resources) < len(others) + num_lanes
            if (others and is_crowded) or not self._replace(index, can_go_on=bool(others)):
                for slot in self._active - others:
                    queues.retire(slot)
                self._retire(index)
        queues.put_back(call.client_ids)

    def _retire(self, index: int) -> None:
        """Goes on without a process."""
        num_before = len(self._active)
        self._active = {slot for slot in self._active if self._slots[slot][0] != index}
        fewer = num_before - len(self._active)
        self._incidents.append((SERVER, f"{fewer} fewer run at once from now on, {len(self._active)} in all"))

    def _replace(self, index: int, *, can_go_on: bool) -> bool:
        """A new process in the place of a lost one; false: there is none to be had, and others go on without.

        Raises:
            RunFailed: nor are there others.
        """
        for _ in range(MAX_ATTEMPTS):
            try:
                self._processes[index] = self._successor(self._processes[index].num_lanes)
                return True
            except LOST as error:  # it died before it could do anything
                self._incidents.append((SERVER, f"a worker that was to replace a lost one: {_reason(error)}"))
            except ResourceError as error:
                if not can_go_on:
                    raise RunFailed(f"the last worker was lost and no other could be started: {error}") from None
                return False
        if not can_go_on:
            raise RunFailed(f"the last worker was lost, and {MAX_ATTEMPTS} after it before they could do anything")
        return False

    def _successor(self, num_lanes: int) -> Process:
        """A process that knows what all were told. Raises `ResourceError` where none starts, and what Ray does where it dies."""
        process = start_process(self._resources, self._progress, num_lanes)
        try:
            for _, error in await_start([process]):
                raise error
            if self._opened is not None:
                ray.get(process.actor.open.remote(*self._opened))
            if self._handed_out is not None:
                ray.get(process.actor.receive.remote(self._handed_out))
        except (ResourceError, *LOST):
            ray.kill(process.actor)
            raise
        return process


def _room(resources: Resources) -> int:
    """Slots that the nodes which are alive could hold."""
    return sum(slots_on(node["Resources"], resources) for node in ray.nodes() if node["Alive"])


def _give_up(calls: Any) -> None:
    """Ends the workers whose time is up; their calls then come back as lost."""
    for call in calls:
        if call.due_s <= time.monotonic() and not call.is_overdue:
            call.is_overdue, call.due_s = True, float("inf")
            ray.kill(call.process.actor)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0]}"


def _named(work: str, client_ids: Sequence[int]) -> str:
    if work in ("train_on_repository", "update_server"):
        return work
    return f"{work} of client{'s' * (len(client_ids) > 1)} {', '.join(map(str, client_ids))}"


def _as_failure(error: ray_errors.RayTaskError, work: str) -> BaseException:
    """A refusal stays a refusal; anything else fails the run with its own words."""
    cause = cause_of(error)
    if isinstance(cause, RaykdError | RunFailed):
        return cause
    if isinstance(cause, FULL):
        return RunFailed(f"{work}: {STORE_IS_FULL}")
    if isinstance(cause, torch.OutOfMemoryError):
        return RunFailed(
            f"{work}: a client needs more than resources.gpus_per_client allows: {str(cause).splitlines()[0]} {LARGER_SHARE}"
        )
    return RunFailed.unforeseen(work, cause, str(error))


def _shared(value: Any) -> Any:
    """A value in Ray's object store. Raises `RunFailed` where that has no room left."""
    try:
        return ray.put(value)
    except FULL:
        raise RunFailed(f"what all clients receive: {STORE_IS_FULL}") from None
