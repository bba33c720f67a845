"""Buffered asynchronous rounds. Nguyen et al., AISTATS 2022. https://arxiv.org/abs/2106.06639

Sites train at their own pace, each on the model that it was sent; whenever K updates are in, the server makes its next model of
them, and that is a round. Simulated time alone says who answers first: work is carried out here in batches, as soon as the next
to answer could be one whose time is not known yet, so that what happens depends neither on this machine nor on its workers.
A site trains once on a model; an update that started tau models ago counts (1 + tau)^-a.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

from raykd.failpoints import failpoint
from raykd.federation.accounts import nothing_counts
from raykd.federation.boundary import Boundary
from raykd.federation.checkpoint import State
from raykd.federation.clock import message_rows, seconds_by_client, work_seconds
from raykd.federation.coding import opened_upload, seal_download
from raykd.federation.cohort import Cohort, availability_of, cohort_events, is_dropped, is_present
from raykd.federation.flights import Flight
from raykd.federation.protocols import Backend, Jobs, LocalJob, Row
from raykd.federation.shelf import EMPTY, Place, Shelf, ShelvedPayload
from raykd.federation.transport import Sizes, is_coded, sizes_of
from raykd.methods._base import Method, Upload
from raykd.methods._layout import parameter_keys
from raykd.numerics.params import Payload
from raykd.numerics.rng import numpy_generator
from raykd.numerics.staleness import rebased, staleness_weight

Aggregate = Callable[[int, Payload, Sequence[Upload]], Payload]


@dataclass
class Happened:
    """What happened between two of the server's models, as rows of tables."""

    row: Row = field(default_factory=dict)
    training: list[Row] = field(default_factory=list)
    transfers: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Landed:
    """An update that counts, and where it lies."""

    flight: Flight
    place: Place


class BufferedRound:
    """From one model of the server to the next, in place on a state.

    Args:
        method, backend, shelf, boundary: of the run.
        round_index: server updates before this one.
        state: of the run.
        handed_s: by client, the seconds of what it is handed out because it joins in this round.
    """

    def __init__(
        self,
        method: Method,
        backend: Backend,
        shelf: Shelf,
        boundary: Boundary,
        round_index: int,
        state: State,
        handed_s: Mapping[int, float],
    ):
        scenario = method.scenario
        self._method, self._backend, self._shelf, self._boundary, self._scenario = method, backend, shelf, boundary, scenario
        self._words, self._clock, self._members = scenario.federation.schedule, scenario.clock, scenario.members()
        self._availability = availability_of(self._members, scenario.federation.rounds)
        self._round, self._state, self._air, self._handed_s = round_index, state, state.air, handed_s
        self._sealed = seal_download(scenario, method.broadcast(state.server))
        self._air.versions[round_index] = shelf.put(self._sealed)
        self._started: list[int] = []
        self._dropped: list[int] = []
        self._train_s, self._happened = 0.0, Happened()

    def run(self, aggregate: Aggregate) -> Happened:
        """Waits for a buffer of updates and makes the next model of them; of fewer where no more will come.

        Raises:
            RunFailed: none of the updates that came counts.
        """
        start, began_s, landed = time.perf_counter(), self._air.now_s, list[Landed]()
        failpoint("round.before_dispatch")
        self._ground()
        self._send_out()
        while len(landed) < int(self._words.buffer_size or 1) and (flight := self._next()):
            landed += self._land(flight)
            if len(landed) < int(self._words.buffer_size or 1):
                self._send_out()
        returned = time.perf_counter()
        if landed:
            self._state.server = aggregate(self._round, self._state.server, self._uploads(landed))
            self._air.now_s += self._clock.server_s
        elif self._happened.events:
            raise nothing_counts(self._round, self._happened.events)
        failpoint("round.after_aggregate")
        in_use = {flight.version for flight in self._air.flights}
        self._air.versions = {version: place for version, place in self._air.versions.items() if version in in_use}
        times = {"wall_s": time.perf_counter() - start, "server_s": time.perf_counter() - returned}
        return self._account(len(landed), self._air.now_s - began_s, **times)

    def _account(self, num_landed: int, simulated_s: float, *, wall_s: float, server_s: float) -> Happened:
        started = sorted(self._started)
        cohort = Cohort(tuple(started), tuple(client_id for client_id in started if client_id not in self._dropped))
        self._happened.events += cohort_events(cohort, self._availability, self._round)
        busy = self._train_s / self._backend.num_slots
        self._happened.row = {
            "round": self._round,
            "num_selected": len(started),
            "num_completed": num_landed,
            "num_dropped": len(self._dropped),
            "wall_s": wall_s,
            "simulated_s": simulated_s,
            "engine_s": max(0.0, wall_s - server_s - busy),
            "server_s": server_s,
        }
        return self._happened

    def _ground(self) -> None:
        """Lets go of the work of clients that have left."""
        left = [f.client_id for f in self._air.flights if not is_present(self._availability[f.client_id], self._round)]
        self._air.flights = [flight for flight in self._air.flights if flight.client_id not in left]
        for client_id in left:
            self._air.uploads.pop(client_id, None)
            self._air.states.pop(client_id, None)

    def _send_out(self) -> None:
        """Sends the model to clients that are free, as many as there are places for; who drops out takes none."""
        places = self._words.concurrency or len(self._members)
        while (num_free := places - len(self._air.flights)) > 0 and (free := self._free()):
            rng = numpy_generator(self._scenario.seed, "start", self._round, len(self._started))
            chosen = free if len(free) <= num_free else sorted(rng.choice(free, size=num_free, replace=False).tolist())
            for client_id in chosen:
                self._send(client_id)

    def _free(self) -> list[int]:
        """Who is there, not at work, and has not been sent this model."""
        busy = {*self._started, *(flight.client_id for flight in self._air.flights)}
        return [c for c, own in enumerate(self._availability) if is_present(own, self._round) and c not in busy]

    def _send(self, client_id: int) -> None:
        rows = self._rows("download", client_id, self._round, self._boundary.crossing(self._sealed, "down", 1))
        self._started.append(client_id)
        self._happened.transfers += rows
        if is_dropped(self._scenario.federation, self._availability, self._scenario.seed, self._round, client_id):
            self._dropped.append(client_id)
            return
        now_s = self._air.now_s
        received_s = now_s + self._handed_s.get(client_id, 0.0) + seconds_by_client(rows).get(client_id, 0.0)
        self._air.flights.append(Flight(client_id, self._round, now_s, received_s))

    def _rows(self, message: str, client_id: int, version: int, sizes: Sizes) -> list[Row]:
        rows = message_rows(self._members, self._scenario.seed, message, sizes, version, client_id)
        return [row | {"round": self._round} for row in rows]

    def _next(self) -> Flight | None:
        """The next client to answer; None: nobody is at work."""
        while self._air.flights:
            waiting = [flight for flight in self._air.flights if flight.finish_s is None]
            known = [(flight.finish_s, flight.client_id, flight) for flight in self._air.flights if flight.finish_s is not None]
            first = min(known, key=lambda item: item[:2], default=None)
            if first and all(first[0] < self._earliest_s(flight) for flight in waiting):
                self._air.flights.remove(first[2])
                return first[2]
            self._carry_out(waiting)
        return None

    def _earliest_s(self, flight: Flight) -> float:
        """Before this a client cannot answer: methods that may be buffered take all steps of the scenario, or none."""
        steps = {"num_steps_taken": self._members[flight.client_id].training.num_local_steps}
        return flight.received_s + work_seconds(self._members, self._clock, flight.client_id, steps)

    def _carry_out(self, waiting: Sequence[Flight]) -> None:
        """Does the work of these clients here, all that started from one model at once."""
        for version, group in groupby(sorted(waiting, key=lambda flight: (flight.version, flight.client_id)), lambda f: f.version):
            flights = {flight.client_id: flight for flight in group}
            jobs = Jobs(list(flights), partial(self._job, version))
            for reply in self._backend.local_updates(jobs, self._shelf.get(self._air.versions[version])):
                flight, client_id = flights[reply.client_id], reply.client_id
                work_s = work_seconds(self._members, self._clock, client_id, reply.training)
                uploaded_s = seconds_by_client(self._rows("upload", client_id, version, sizes_of(reply.upload))).get(client_id, 0.0)
                flight.finish_s = max(flight.received_s + work_s, self._earliest_s(flight)) + uploaded_s
                flight.training, flight.events = reply.training | {"simulated_s": work_s}, list(reply.events)
                flight.num_labelled, flight.num_unlabelled = reply.num_labelled, reply.num_unlabelled
                self._train_s += float(reply.training["train_s"])
                if not reply.events:
                    self._air.uploads[client_id] = self._shelf.put(reply.upload)
                    self._air.states[client_id] = self._shelf.put(reply.state)

    def _job(self, version: int, client_id: int) -> LocalJob:
        return LocalJob(client_id, version, self._shelf.get(self._state.clients.get(client_id, EMPTY)))

    def _land(self, flight: Flight) -> list[Landed]:
        """Takes in one client's answer."""
        client_id, state = flight.client_id, self._state
        self._air.now_s = max(self._air.now_s, float(flight.finish_s or 0.0))
        self._happened.training.append(flight.training | {"staleness": self._round - flight.version})
        self._happened.events += flight.events
        if flight.events:
            return []
        state.clients[client_id], place = self._air.states.pop(client_id), self._air.uploads.pop(client_id)
        sent = self._shelf.get(place)
        sizes = self._boundary.crossing(sent, "up", 1, whose=self._members[client_id].name)
        self._happened.transfers += self._rows("upload", client_id, flight.version, sizes)
        if is_coded(sent):
            place = self._shelf.put(opened_upload(sent, self._shelf.get(self._air.versions[flight.version]), {}))
        state.uploads[client_id] = place
        return [Landed(flight, place)]

    def _uploads(self, landed: Sequence[Landed]) -> Sequence[Upload]:
        """In client order, each as if it had started from the server's model."""
        ordered = sorted(landed, key=lambda one: (one.flight.client_id, one.flight.version))
        return RebasedUploads(self._method, self._shelf, self._state, self._round, ordered)


class RebasedUploads(Sequence[Upload]):
    """The uploads of a buffer, each read and moved to the server's model when it is asked for."""

    def __init__(self, method: Method, shelf: Shelf, state: State, round_index: int, landed: Sequence[Landed]):
        self._method, self._shelf, self._round, self._landed = method, shelf, round_index, landed
        self._now, self._trainable = method.broadcast(state.server), frozenset(parameter_keys(method))
        versions = {one.flight.version for one in landed} - {round_index}
        self._versions = {version: ShelvedPayload(shelf, state.air.versions[version]) for version in versions}

    def __len__(self) -> int:
        return len(self._landed)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        flight, words = self._landed[index].flight, self._method.scenario.federation.schedule
        payload: Mapping[str, Any] = ShelvedPayload(self._shelf, self._landed[index].place)
        exponent = 0.5 if words.staleness_exponent is None else words.staleness_exponent
        weight, rate = staleness_weight(self._round - flight.version, exponent), words.server_learning_rate or 1.0
        if flight.version != self._round or rate != 1.0:
            start = self._versions.get(flight.version, self._now)
            payload = rebased(self._now, start, payload, self._trainable, weight=weight, learning_rate=rate)
        return Upload(flight.client_id, payload, flight.num_labelled, flight.num_unlabelled)
