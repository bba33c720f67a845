"""The rounds: broadcast, local updates, upload, aggregate, evaluate. Everything that happens is written down, one part a round."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event

from raykd.failpoints import failpoint
from raykd.federation.accounts import nothing_counts, round_row, round_transfers, training_rows
from raykd.federation.behind import Behind
from raykd.federation.boundary import boundary_of
from raykd.federation.budget import reached, spend, spent
from raykd.federation.buffered import BufferedRound
from raykd.federation.checkpoint import Checkpoints, State
from raykd.federation.client import POOLED, SERVER
from raykd.federation.clock import STRAGGLER, Deadline, message_rows, seconds_by_client
from raykd.federation.coding import opened_upload, seal_download
from raykd.federation.cohort import Cohort, availability_of, cohort_events, draw_cohort
from raykd.federation.judge import Judge, is_personal_round
from raykd.federation.ledger import Ledger
from raykd.federation.privacy import entries_of, privacy_rows, protected_sum
from raykd.federation.protocols import Backend, Jobs, LocalJob, LocalReply, Progress, ResultSink, Row, ServerJob, Stopped
from raykd.federation.shelf import Shelf, ShelvedUploads, sealed_uploads
from raykd.federation.start import BEFORE, first_state, repository_networks, trained_rows
from raykd.federation.transport import Envelope, Sizes, seal, sizes_of, unseal
from raykd.methods._base import Method, Upload
from raykd.numerics.params import Payload
from raykd.scenario.registry import METHODS
from raykd.scenario.schema import Scenario


class Driver:
    """Runs one scenario from the first download to the last evaluation.

    Args:
        scenario: what to run.
        root: folder of its file, where relative paths start.
        backend: where clients run.
        sink: where rows go.
        progress: who watches.
        stop: set to end the run; the round in hand is given up where the backend, too, knows of it.
        checkpoints: where the state is kept after every round; a run that finds some goes on from there. None: nothing outlasts
            this object.
    """

    def __init__(
        self,
        scenario: Scenario,
        root: Path,
        backend: Backend,
        sink: ResultSink,
        progress: Progress,
        stop: Event,
        checkpoints: Checkpoints | None = None,
    ):
        self.scenario, self.root, self.backend, self.sink = scenario, root, backend, sink
        self.progress, self._stop = progress, stop
        self._checkpoints = checkpoints or Checkpoints(Shelf(None))
        self._shelf = self._checkpoints.shelf
        self.method: Method = METHODS.get(scenario.method.name)(scenario.method, scenario)
        self.members = scenario.members()
        self._availability = availability_of(self.members, scenario.federation.rounds)
        self._boundary, self._ledger = boundary_of(self.method), Ledger(sink, backend)
        self._judge = Judge(self.method, backend, self._shelf, self._ledger, progress)
        self._behind = Behind()

    def prepare(self) -> list[Row]:
        """Prepares all data on the workers and gives the rows of `clients`; nothing is written. Raises `DataError`."""
        self.backend.open(self.scenario, self.root)
        self.progress("stage", name="preparing data", total=len(self.members))
        try:
            return self.backend.prepare([member.client_id for member in self.members], bool(repository_networks(self.method)))
        except Stopped:
            raise Stopped("stopped while data were prepared") from None

    def run(self, clients: Sequence[Row]) -> Iterator[tuple[str, Payload]]:
        """All rounds that are left, given what `prepare` returned; gives the final models with their names, one at a time.

        Raises:
            RunFailed, Stopped, OSError: what was written stands, and nothing was of the round in hand.
        """
        self.sink.write("clients", clients, "clients")
        state = self._checkpoints.latest()
        try:
            if state is None:
                state = self._start()
            elif state.handed_out:
                self.backend.hand_out(seal_download(self.scenario, state.handed_out))
            self._rounds(state)
        except Stopped as stopped:
            raise Stopped(str(stopped) or "stopped before the first round") from None
        finally:
            self._behind.close(self._shelf.discard)  # of a round that came to nothing
        return self._judge.models(state)

    def _rounds(self, state: State) -> None:
        """All rounds that are left, in place on the state."""
        rounds = self.scenario.federation.rounds if self.method.is_trained else 0
        for round_index in range(state.next_round, rounds):
            if state.has_ended:
                return
            if self._stop.is_set():
                raise Stopped(f"stopped after {round_index} of {rounds} rounds")
            self._checkpoints.begin(round_index + 1)
            is_buffered = self.scenario.federation.schedule.name == "buffered"
            try:
                (self._buffered_round if is_buffered else self._round)(round_index, state)
                state.has_ended = self._closes(round_index, state, is_last=round_index == rounds - 1)
            except Stopped:
                raise Stopped(f"stopped in round {round_index + 1} of {rounds}, which is given up") from None
            state.next_round = round_index + 1
            self._keep(state)

    def _keep(self, state: State) -> None:
        """Writes the rows of what ended well, then the checkpoint, while the next round runs; what is given up leaves nothing."""
        self._behind.wait()
        self._behind.do(self._ledger.writing(), self._checkpoints.saving(state))

    def _closes(self, round_index: int, state: State, *, is_last: bool) -> bool:
        """Evaluates where it is time to, and says whether a budget ends the run before its last round."""
        stop, is_due = self.scenario.federation.stop, (round_index + 1) % self.scenario.evaluation.every == 0
        why = "" if is_last else spent(stop, state.totals)
        if not (is_last or why) and is_due:
            rows = self._judge.evaluate(round_index, state, is_final=False)
            why = reached(stop, rows, self.method.deployed_model)
        if is_last or why:
            self._judge.evaluate(round_index, state, is_final=True)
        if why:
            detail = f"{why} after {round_index + 1} of {self.scenario.federation.rounds} rounds"
            event = {"round": round_index, "client_id": SERVER, "kind": "stopped", "detail": detail}
            self._ledger.add("events", [event], f"stopped-round-{round_index:05d}")
            self.progress("stopped", round=round_index, detail=detail)
        return bool(why)

    def _start(self) -> State:
        """Trains what starts on the repository, hands it out, and evaluates what sites have before the first round."""
        networks = repository_networks(self.method)
        trained = dict(zip(networks, self.backend.train_on_repository(list(networks.values())), strict=True))
        for table, rows, part in trained_rows(trained):
            self._ledger.add(table, rows, part)
            for event in rows if table == "events" else ():
                self.progress("weak_start", detail=event["detail"])
        self._checkpoints.begin(0)
        failpoint("start.after_training")
        state = first_state(self.method, self.backend, trained, self._shelf)
        if state.handed_out:
            self.backend.hand_out(seal_download(self.scenario, state.handed_out))
            handed = self._hand_out(BEFORE, state.handed_out)
            self._ledger.add("transfers", handed, "before")
            self._ledger.add("crossings", self._boundary.rows(BEFORE), "before")
            spend(state.totals, handed, max(seconds_by_client(handed).values(), default=0.0))
        self._judge.evaluate(BEFORE, state, is_final=not self.method.is_trained)
        self._keep(state)
        return state

    def _hand_out(self, round_index: int, payload: Payload) -> list[Row]:
        """Rows of what is handed out going down the links of the clients that take part from this round on; those of the first
        round get it before.
        """
        starts = [own.joins if own.joins and self.method.is_trained else BEFORE for own in self._availability]
        joining = [client_id for client_id, start in enumerate(starts) if start == round_index]
        sealed, seed = seal_download(self.scenario, payload) if joining else {}, self.scenario.seed
        sizes = self._boundary.crossing(sealed, "down", len(joining), is_handed_out=True)
        return [row for client in joining for row in message_rows(self.members, seed, "hand-out", sizes, round_index, client)]

    def _buffered_round(self, round_index: int, state: State) -> None:
        """From one model of the server to the next where sites work at their own pace, in place on the state."""
        words = self.scenario.federation
        self.progress("round", round=round_index, total=words.rounds, clients=words.schedule.buffer_size)
        handed = self._hand_out(round_index, state.handed_out)
        own = BufferedRound(self.method, self.backend, self._shelf, self._boundary, round_index, state, seconds_by_client(handed))
        happened = own.run(self._aggregate)
        crossed = handed + happened.transfers
        self._write_round(round_index, state, happened.row, happened.training, crossed, happened.events)

    def _round(self, round_index: int, state: State) -> None:
        """One round, in place on the state. In a personal round every site goes on from its own model; only a site that has none
        yet is sent the last average.
        """
        start = time.perf_counter()
        cohort, is_personal = self._cohort(round_index), is_personal_round(self.method, round_index)
        self.progress("round", round=round_index, total=self.scenario.federation.rounds, clients=len(cohort.completed))
        sealed = seal_download(self.scenario, self.method.broadcast(state.server))
        goes_on = {client_id for client_id in cohort.selected if is_personal and self._judge.personal(client_id, state)}
        served = self._served(cohort, goes_on, is_personal)
        download = self._boundary.crossing(sealed, "down", len(served.selected))
        extras = {own: self._boundary.crossing(self._extra(state.server, own), "down", 1) for own in served.selected}
        jobs = Jobs(cohort.completed, lambda client_id: self._job(client_id, round_index, state, client_id in goes_on))
        crossed = self._hand_out(round_index, state.handed_out)
        deadline = self._deadline(round_index, served, download, extras, crossed, is_personal)
        prepared = time.perf_counter()
        failpoint("round.before_dispatch")
        replies, uploaded = self._receive(self.backend.local_updates(jobs, sealed), state, sealed, deadline, is_personal)
        failpoint("round.after_replies")
        returned = time.perf_counter()
        uploads = self._uploads(round_index, replies, state)
        server, protected = state.server, None
        if uploads and not is_personal:
            protected = self._with_noise(round_index, server, uploads)
            state.server = self._aggregate(round_index, server, protected)
        aggregated = time.perf_counter()
        failpoint("round.after_aggregate")
        crossed += round_transfers(self.members, round_index, served, download, extras, uploaded, self.scenario.seed)
        times = {"wall_s": aggregated - start, "server_s": (prepared - start) + (aggregated - returned)}
        clock, limit_s, slots = self.scenario.clock, deadline.limit_s, self.backend.num_slots
        row = round_row(self.members, round_index, cohort, replies, crossed, slots, **times, clock=clock, limit_s=limit_s)
        events = [event for reply in replies for event in reply.events]
        if not self.method.pools_data:
            events += cohort_events(cohort, self._availability, round_index)
        training = training_rows(self.members, clock, replies)
        self._write_round(round_index, state, row, training, crossed, events)
        released = privacy_rows(self.scenario, round_index, entries_of(replies, protected), state.released)
        self._ledger.add("privacy", released, f"round-{round_index:05d}")

    def _served(self, cohort: Cohort, goes_on: set[int], is_personal: bool) -> Cohort:
        """To whom something is sent in a round: to nobody where one trainer holds all data."""
        if self.method.pools_data:
            return Cohort((), ())
        return Cohort(tuple(c for c in cohort.completed if c not in goes_on), ()) if is_personal else cohort

    def _deadline(
        self, index: int, served: Cohort, download: Sizes, extras: dict[int, Sizes], handed: list[Row], is_personal: bool
    ) -> Deadline:
        """Until when a round waits: a personal one for all."""
        limit_s, seed = None if is_personal else self.scenario.federation.schedule.deadline_s, self.scenario.seed
        sent = [] if limit_s is None else round_transfers(self.members, index, served, download, extras, {}, seed)
        return Deadline(self.members, seed, self.scenario.clock, limit_s, seconds_by_client([*handed, *sent]))

    def _job(self, client_id: int, round_index: int, state: State, goes_on: bool) -> LocalJob:
        """A client's work in a round, from its own model where it `goes_on`."""
        kept = self._shelf.get(state.clients[client_id])
        own = seal(self._judge.personal(client_id, state)) if goes_on else None
        extra = {} if goes_on else self._extra(state.server, client_id)
        return LocalJob(client_id, round_index, kept, own, extra or None)

    def _extra(self, server: Payload, client_id: int) -> Envelope:
        """What a client alone is sent beside the broadcast."""
        own = self.method.download(server, client_id)
        return seal_download(self.scenario, own) if own else {}

    def _with_noise(self, round_index: int, server: Payload, uploads: Sequence[Upload]) -> Sequence[Upload]:
        """The uploads as the server may use them: with noise where it is the server that adds it."""
        broadcast = self.method.broadcast(server)
        return protected_sum(self.scenario, round_index, uploads, lambda c: broadcast | self.method.download(server, c))

    def _aggregate(self, round_index: int, server: Payload, uploads: Sequence[Upload]) -> Payload:
        """The server's next state, after its own work where the method gives it some."""
        server = self.method.aggregate(server, uploads, round_index)
        if not self.method.serves:
            return server
        return unseal(self.backend.update_server(ServerJob(round_index, seal(server), sealed_uploads(uploads))))

    def _receive(
        self, answers: Iterator[LocalReply], state: State, sealed: Envelope, deadline: Deadline, is_personal: bool
    ) -> tuple[list[LocalReply], dict[int, Sizes]]:
        """Shelves what comes in time, read beside what was `sealed` for all. Gives the replies in client order without what was
        shelved, and the sizes of what crossed of uploads: nothing where a round is personal.
        """
        replies, uploaded = {}, {}
        for answer in answers:
            reply, uploaded[answer.client_id] = deadline.judge(answer, sizes_of(answer.upload))
            if not reply.events:
                whose = "" if reply.client_id == POOLED else self.members[reply.client_id].name
                self._boundary.crossing(reply.upload, "up", int(not is_personal), whose=whose)
                state.clients[reply.client_id] = self._shelf.put(reply.state)
                opened = opened_upload(reply.upload, sealed, self._extra(state.server, reply.client_id))
                state.uploads[reply.client_id] = self._shelf.put(opened)
            replies[reply.client_id] = replace(reply, state={}, upload={})
        return [replies[client_id] for client_id in sorted(replies)], {} if is_personal else uploaded

    def _uploads(self, round_index: int, replies: Sequence[LocalReply], state: State) -> ShelvedUploads:
        """The finite uploads in client order."""
        counted = [reply for reply in replies if not reply.events]
        events = [event for reply in replies for event in reply.events]
        if replies and not counted and all(event["kind"] != STRAGGLER for event in events):
            raise nothing_counts(round_index, events)
        entries = [(r.client_id, state.uploads[r.client_id], r.num_labelled, r.num_unlabelled) for r in counted]
        return ShelvedUploads(self._shelf, entries)

    def _cohort(self, round_index: int) -> Cohort:
        if self.method.pools_data:
            return Cohort((POOLED,), (POOLED,))
        return draw_cohort(self.scenario.federation, self._availability, self.scenario.seed, round_index)

    def _write_round(
        self, round_index: int, state: State, row: Row, training: Sequence[Row], transfers: Sequence[Row], events: Sequence[Row]
    ) -> None:
        spend(state.totals, transfers, row["simulated_s"])
        part = f"round-{round_index:05d}"
        self._ledger.add("training", training, part)
        self._ledger.add("transfers", transfers, part)
        self._ledger.add("crossings", self._boundary.rows(round_index), part)
        self._ledger.add("events", [*events, *self._ledger.incidents(round_index)], part)
        self._ledger.add("rounds", [row], part)
