"""The rounds: broadcast, local updates, upload, aggregate, evaluate. Everything that happens is written down, one part a round."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event

from raykd.failpoints import failpoint
from raykd.federation.accounts import round_row, round_transfers
from raykd.federation.checkpoint import Checkpoints, State
from raykd.federation.client import POOLED
from raykd.federation.cohort import Cohort, cohort_events, draw_cohort
from raykd.federation.privacy import entries_of, privacy_rows, protected_sum
from raykd.federation.protocols import Backend, EvaluationJob, Jobs, LocalJob, LocalReply, Progress, ResultSink, Row, ServerJob
from raykd.federation.shelf import EMPTY, Shelf, ShelvedPayload, ShelvedUploads, sealed
from raykd.federation.start import BEFORE, first_state, repository_networks
from raykd.federation.transport import Sizes, seal, sizes_of, transfer_rows, unseal
from raykd.methods._base import Method, Upload
from raykd.numerics.params import Payload, rename
from raykd.scenario.errors import RunFailed
from raykd.scenario.registry import METHODS
from raykd.scenario.schema import Scenario


class Interrupted(Exception):
    """The run was asked to stop and did so between two rounds; what it had written stands."""


class Driver:
    """Runs one scenario from the first download to the last evaluation.

    Args:
        scenario: what to run.
        root: folder of its file, where relative paths start.
        backend: where clients run.
        sink: where rows go.
        progress: who watches.
        stop: set to end the run after the round in hand.
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
        self._availability = [member.group.availability for member in self.members]

    def prepare(self) -> list[Row]:
        """Prepares all data on the workers and gives the rows of `clients`; nothing is written. Raises `DataError`."""
        self.backend.open(self.scenario, self.root)
        self.progress("stage", name="preparing data", total=len(self.members))
        return self.backend.prepare([member.client_id for member in self.members], bool(repository_networks(self.method)))

    def run(self, clients: Sequence[Row]) -> Iterator[tuple[str, Payload]]:
        """All rounds that are left, given what `prepare` returned; gives the final models with their names, one at a time.

        Raises:
            RunFailed, Interrupted: what was written stands.
        """
        self.sink.write("clients", clients, "clients")
        state = self._checkpoints.latest()
        try:
            if state is None:
                state = self._start()
            elif state.handed_out:
                self.backend.hand_out(seal(state.handed_out))
            self._rounds(state)
        finally:
            self._shelf.discard()  # of a round that came to nothing
        return self._models(state)

    def _rounds(self, state: State) -> None:
        """All rounds that are left, in place on the state."""
        rounds = self.scenario.federation.rounds if self.method.is_trained else 0
        for round_index in range(state.next_round, rounds):
            if self._stop.is_set():
                raise Interrupted(f"stopped before round {round_index} of {rounds}")
            self._checkpoints.begin(round_index + 1)
            self._round(round_index, state)
            is_final = round_index == rounds - 1
            if is_final or (round_index + 1) % self.scenario.evaluation.every == 0:
                self._evaluate(round_index, state, is_final=is_final)
            state.next_round = round_index + 1
            self._checkpoints.save(state)

    def _start(self) -> State:
        """Trains what starts on the repository, hands it out, and evaluates what sites have before the first round."""
        networks = repository_networks(self.method)
        self.progress("stage", name="training on the repository", total=len(networks))
        trained = dict(zip(networks, self.backend.train_on_repository(list(networks.values())), strict=True))
        for role, (_, curve, reply) in trained.items():
            self.sink.write("teachers", [{"role": role, **row} for row in curve], f"teachers-{role}")
            if role == "teacher":
                for table, rows in (("cases", reply.cases), ("previews", reply.previews), ("records", reply.records)):
                    self._write(table, rows, "repository")
        self._checkpoints.begin(0)
        failpoint("start.after_training")
        state = first_state(self.method, self.backend, trained, self._shelf)
        if state.handed_out:
            self.backend.hand_out(seal(state.handed_out))
            self._write("transfers", self._hand_out(BEFORE, state.handed_out), "before")
        self._evaluate(BEFORE, state, is_final=not self.method.is_trained)
        self._checkpoints.save(state)
        return state

    def _hand_out(self, round_index: int, payload: Payload) -> list[Row]:
        """Rows of what is handed out going down the links of the clients that take part from this round on; those of the first
        round get it before.
        """
        starts = [own.joins if own.joins and self.method.is_trained else BEFORE for own in self._availability]
        joining = [member for member, start in zip(self.members, starts, strict=True) if start == round_index]
        sizes = sizes_of(seal(payload)) if joining else {}
        return [
            row
            for member in joining
            for row in transfer_rows(
                sizes, round_index=round_index, client_id=member.client_id, direction="down", link=member.group.link
            )
        ]

    def _round(self, round_index: int, state: State) -> None:
        """One round, in place on the state. In a personal round every site goes on from its own model; only a site that has none
        yet is sent the last average.
        """
        start = time.perf_counter()
        cohort, is_personal = self._cohort(round_index), self._is_personal(round_index)
        self.progress("round", round=round_index, total=self.scenario.federation.rounds, clients=len(cohort.completed))
        sealed = seal(self.method.broadcast(state.server))
        goes_on = {client_id for client_id in cohort.selected if is_personal and self._personal(client_id, state)}
        extras = {
            client_id: sizes_of(seal(self.method.download(state.server, client_id)))
            for client_id in cohort.selected
            if client_id not in goes_on
        }
        jobs = Jobs(cohort.completed, lambda client_id: self._job(client_id, round_index, state, client_id in goes_on))
        prepared = time.perf_counter()
        failpoint("round.before_dispatch")
        replies, uploaded = self._receive(self.backend.local_updates(jobs, sealed), state)
        failpoint("round.after_replies")
        returned = time.perf_counter()
        uploads = self._uploads(round_index, replies, state)
        server, protected = state.server, None
        if uploads and not is_personal:
            protected = self._with_noise(round_index, server, uploads)
            state.server = self._aggregate(round_index, server, protected)
        aggregated = time.perf_counter()
        failpoint("round.after_aggregate")
        served = Cohort(tuple(c for c in cohort.completed if c not in goes_on), ()) if is_personal else cohort
        crossed = self._hand_out(round_index, state.handed_out)
        if not self.method.pools_data:
            sent = {} if is_personal else uploaded
            crossed += round_transfers(self.members, round_index, served, sizes_of(sealed), extras, sent)
        times = {"wall_s": aggregated - start, "server_s": (prepared - start) + (aggregated - returned)}
        row = round_row(self.members, round_index, cohort, replies, crossed, self.backend.num_slots, **times)
        self._write_round(round_index, row, replies, crossed, cohort)
        spent = privacy_rows(self.scenario, round_index, entries_of(replies, protected), state.released)
        self._write("privacy", spent, f"round-{round_index:05d}")

    def _job(self, client_id: int, round_index: int, state: State, goes_on: bool) -> LocalJob:
        """A client's work in a round, from its own model where it `goes_on`."""
        kept = self._shelf.get(state.clients[client_id])
        own = seal(self._personal(client_id, state)) if goes_on else None
        extra = {} if goes_on else seal(self.method.download(state.server, client_id))
        return LocalJob(client_id, round_index, kept, own, extra or None)

    def _is_personal(self, round_index: int) -> bool:
        federation = self.scenario.federation
        return not self.method.pools_data and round_index >= federation.rounds - federation.personal_rounds

    def _with_noise(self, round_index: int, server: Payload, uploads: Sequence[Upload]) -> Sequence[Upload]:
        """The uploads as the server may use them: with noise where it is the server that adds it."""
        broadcast = self.method.broadcast(server)
        return protected_sum(self.scenario, round_index, uploads, lambda c: broadcast | self.method.download(server, c))

    def _aggregate(self, round_index: int, server: Payload, uploads: Sequence[Upload]) -> Payload:
        """The server's next state, after its own work where the method gives it some."""
        server = self.method.aggregate(server, uploads, round_index)
        if not self.method.serves:
            return server
        return unseal(self.backend.update_server(ServerJob(round_index, seal(server), sealed(uploads))))

    def _receive(self, answers: Iterator[LocalReply], state: State) -> tuple[list[LocalReply], dict[int, Sizes]]:
        """Shelves what comes as it comes. Gives the replies in client order without what was shelved, and the sizes of uploads."""
        replies, uploaded = {}, {}
        for reply in answers:
            uploaded[reply.client_id] = sizes_of(reply.upload)
            if not reply.events:
                state.clients[reply.client_id] = self._shelf.put(reply.state)
                state.uploads[reply.client_id] = self._shelf.put(reply.upload)
            replies[reply.client_id] = replace(reply, state={}, upload={})
        return [replies[client_id] for client_id in sorted(replies)], uploaded

    def _uploads(self, round_index: int, replies: Sequence[LocalReply], state: State) -> ShelvedUploads:
        """The finite uploads in client order."""
        counted = [reply for reply in replies if not reply.events]
        if replies and not counted:
            reasons = "; ".join(sorted({str(event["detail"]) for reply in replies for event in reply.events}))
            raise RunFailed(
                f"round {round_index}: no client's update counts ({reasons}); lower training.learning_rate, set "
                "training.clip_norm, or give sites labels"
            )
        entries = [(r.client_id, state.uploads[r.client_id], r.num_labelled, r.num_unlabelled) for r in counted]
        return ShelvedUploads(self._shelf, entries)

    def _cohort(self, round_index: int) -> Cohort:
        if self.method.pools_data:
            return Cohort((POOLED,), (POOLED,))
        return draw_cohort(self.scenario.federation, self._availability, self.scenario.seed, round_index)

    def _write_round(
        self, round_index: int, row: Row, replies: Sequence[LocalReply], transfers: Sequence[Row], cohort: Cohort
    ) -> None:
        part = f"round-{round_index:05d}"
        events = [event for reply in replies for event in reply.events]
        if not self.method.pools_data:
            events += cohort_events(cohort, self._availability, round_index)
        events += self._incidents(round_index)
        self._write("training", [reply.training for reply in replies], part)
        self._write("transfers", transfers, part)
        self._write("events", events, part)
        self._write("rounds", [row], part)

    def _incidents(self, round_index: int) -> list[Row]:
        return [
            {"round": round_index, "client_id": client_id, "kind": "worker_lost", "detail": sentence}
            for client_id, sentence in self.backend.incidents()
        ]

    def _write(self, table: str, rows: Sequence[Row], part: str) -> None:
        if rows:
            self.sink.write(table, rows, part)

    def _evaluate(self, round_index: int, state: State, *, is_final: bool) -> None:
        surface = self.scenario.evaluation.surface_metrics
        has_surface = surface == "always" or (surface == "final" and is_final)
        shared = {}
        if self.method.is_trained and (model := self.method.global_model(state.server)):
            shared["global"] = seal(model)
        has_own = is_final or "global" not in shared or self._is_personal(round_index)
        if state.teacher and (is_final or round_index == BEFORE):
            shared["teacher"] = seal(state.teacher)
        num_previews = self.scenario.evaluation.previews if is_final else 0

        def job(client_id: int) -> EvaluationJob:
            own = self._personal(client_id, state) if has_own else {}
            return EvaluationJob(
                client_id, round_index, seal(own) if own else None, has_surface, num_previews, round_index == BEFORE
            )

        jobs = Jobs([member.client_id for member in self.members], job)
        self.progress("stage", name="evaluating", total=len(jobs))
        failpoint("round.before_evaluation")
        replies = sorted(self.backend.evaluate(jobs, shared), key=lambda reply: reply.client_id)
        part = "before" if round_index == BEFORE else f"round-{round_index:05d}"
        rows = [row for reply in replies for row in reply.cases]
        self._write("cases", rows, part)
        self._write("previews", [row for reply in replies for row in reply.previews], part)
        self._write("records", [row for reply in replies for row in reply.records], part)
        self._write("events", self._incidents(round_index), f"evaluation-{part}")
        scores = [row["dsc"] for row in rows if row["model"] != "teacher" and row["split"] == "test"]
        if scores:
            self.progress("evaluated", round=round_index, dsc=sum(scores) / len(scores))

    def _personal(self, client_id: int, state: State) -> Payload:
        """A client's own model: what its method keeps, or else what it last uploaded to be averaged."""
        kept = self.method.personal_model(ShelvedPayload(self._shelf, state.clients.get(client_id, EMPTY)))
        if kept is not None:
            return kept
        return self.method.uploaded_model(unseal(self._shelf.get(state.uploads.get(client_id, EMPTY))))

    def _models(self, state: State) -> Iterator[tuple[str, Payload]]:
        """The final models with their names: the global one, the personal ones, and the teacher."""
        if self.method.is_trained and (model := self.method.global_model(state.server)):
            yield "global", model
        for member in self.members:
            if personal := self._personal(member.client_id, state):
                yield f"personal-{member.name}", personal
        if state.teacher:
            yield "teacher", rename(state.teacher, "teacher", "params")
