"""The rounds: broadcast, local updates, upload, aggregate, evaluate. Everything that happens is written down, one part a round."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from raykd.failpoints import failpoint
from raykd.federation.accounts import round_row, round_transfers
from raykd.federation.checkpoint import Checkpoints, State
from raykd.federation.client import POOLED
from raykd.federation.cohort import Cohort, cohort_events, draw_cohort
from raykd.federation.protocols import Backend, EvaluationJob, LocalJob, LocalReply, Progress, ResultSink, Row, ServerJob
from raykd.federation.start import BEFORE, first_state, repository_networks
from raykd.federation.transport import seal, transfer_rows, unseal
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
        checkpoints: where the state is kept after every round; a run that finds some goes on from there. None: nowhere.
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
        self.progress, self._stop, self._checkpoints = progress, stop, checkpoints
        self.method: Method = METHODS.get(scenario.method.name)(scenario.method, scenario)
        self.members = scenario.members()
        self._availability = [member.group.availability for member in self.members]

    def prepare(self) -> list[Row]:
        """Prepares all data on the workers and gives the rows of `clients`; nothing is written. Raises `DataError`."""
        self.backend.open(self.scenario, self.root)
        self.progress("stage", name="preparing data", total=len(self.members))
        return self.backend.prepare([member.client_id for member in self.members], bool(repository_networks(self.method)))

    def run(self, clients: Sequence[Row]) -> dict[str, Payload]:
        """All rounds that are left, given what `prepare` returned; returns the final models by name.

        Raises:
            RunFailed, Interrupted: what was written stands.
        """
        self.sink.write("clients", clients, "clients")
        state = self._checkpoints.latest() if self._checkpoints else None
        if state is None:
            state = self._start()
        elif state.handed_out:
            self.backend.hand_out(seal(state.handed_out))
        rounds = self.scenario.federation.rounds if self.method.is_trained else 0
        for round_index in range(state.next_round, rounds):
            if self._stop.is_set():
                raise Interrupted(f"stopped before round {round_index} of {rounds}")
            trained = self._round(round_index, state)
            is_final = round_index == rounds - 1
            if is_final or (round_index + 1) % self.scenario.evaluation.every == 0:
                self._evaluate(round_index, state, is_final=is_final)
            state.next_round = round_index + 1
            self._keep(state, trained)
        return self._models(state)

    def _keep(self, state: State, changed: Sequence[int]) -> None:
        if self._checkpoints:
            self._checkpoints.save(state, changed)

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
        failpoint("start.after_training")
        state = first_state(self.method, self.backend, trained)
        if state.handed_out:
            self.backend.hand_out(seal(state.handed_out))
            self._write("transfers", self._hand_out(BEFORE, state.handed_out), "before")
        self._evaluate(BEFORE, state, is_final=not self.method.is_trained)
        self._keep(state, list(state.clients))
        return state

    def _hand_out(self, round_index: int, payload: Payload) -> list[Row]:
        """Rows of what is handed out going down the links of the clients that take part from this round on; those of the first
        round get it before.
        """
        starts = [own.joins if own.joins and self.method.is_trained else BEFORE for own in self._availability]
        joining = [member for member, start in zip(self.members, starts, strict=True) if start == round_index]
        envelope = seal(payload) if joining else {}
        return [
            row
            for member in joining
            for row in transfer_rows(
                payload, envelope, round_index=round_index, client_id=member.client_id, direction="down", link=member.group.link
            )
        ]

    def _round(self, round_index: int, state: State) -> list[int]:
        """One round, in place on the state; the clients that took part. In a personal round every site goes on from its own model;
        only a site that has none yet is sent the last average."""
        start = time.perf_counter()
        cohort, is_personal = self._cohort(round_index), self._is_personal(round_index)
        self.progress("round", round=round_index, total=self.scenario.federation.rounds, clients=len(cohort.completed))
        download = self.method.broadcast(state.server)
        sealed = seal(download)
        owns = {client_id: self._personal(client_id, state) if is_personal else {} for client_id in cohort.selected}
        extras = {client_id: self.method.download(state.server, client_id) for client_id, own in owns.items() if not own}
        jobs = [
            _job(client_id, round_index, state.clients[client_id], owns[client_id], extras.get(client_id, {}))
            for client_id in cohort.completed
        ]
        prepared = time.perf_counter()
        failpoint("round.before_dispatch")
        replies = self.backend.local_updates(jobs, sealed)
        failpoint("round.after_replies")
        returned = time.perf_counter()
        uploads = self._receive(round_index, replies, state)
        if uploads and not is_personal:
            state.server = self._aggregate(round_index, state.server, uploads)
        aggregated = time.perf_counter()
        failpoint("round.after_aggregate")
        served = Cohort(tuple(job.client_id for job in jobs if job.own is None), ()) if is_personal else cohort
        crossed = self._hand_out(round_index, state.handed_out)
        if not self.method.pools_data:
            answers = [] if is_personal else replies
            crossed += round_transfers(self.members, round_index, served, download, sealed, extras, answers)
        times = {"wall_s": aggregated - start, "server_s": (prepared - start) + (aggregated - returned)}
        row = round_row(self.members, round_index, cohort, replies, crossed, self.backend.num_slots, **times)
        self._write_round(round_index, row, replies, crossed, cohort)
        return list(cohort.completed)

    def _is_personal(self, round_index: int) -> bool:
        federation = self.scenario.federation
        return not self.method.pools_data and round_index >= federation.rounds - federation.personal_rounds

    def _aggregate(self, round_index: int, server: Payload, uploads: Sequence[Upload]) -> Payload:
        """The server's next state, after its own work where the method gives it some."""
        server = self.method.aggregate(server, uploads, round_index)
        if not self.method.serves:
            return server
        sent = tuple((u.client_id, seal(u.payload), u.num_labelled, u.num_unlabelled) for u in uploads)
        return unseal(self.backend.update_server(ServerJob(round_index, seal(server), sent)))

    def _receive(self, round_index: int, replies: Sequence[LocalReply], state: State) -> list[Upload]:
        """Files what the clients keep, and gives the finite uploads in client order."""
        for reply in replies:
            state.clients[reply.client_id] = unseal(reply.state)
        uploads = [Upload(r.client_id, unseal(r.upload), r.num_labelled, r.num_unlabelled) for r in replies if not r.events]
        if replies and not uploads:
            reasons = "; ".join(sorted({str(event["detail"]) for reply in replies for event in reply.events}))
            raise RunFailed(
                f"round {round_index}: no client's update counts ({reasons}); lower training.learning_rate, set "
                "training.clip_norm, or give sites labels"
            )
        models = {upload.client_id: self.method.uploaded_model(upload.payload) for upload in uploads}
        state.uploads |= {client_id: model for client_id, model in models.items() if model}
        return uploads

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
        events += [
            {"round": round_index, "client_id": client_id, "kind": "worker_lost", "detail": sentence}
            for client_id, sentence in self.backend.incidents()
        ]
        self._write("training", [reply.training for reply in replies], part)
        self._write("transfers", transfers, part)
        self._write("events", events, part)
        self._write("rounds", [row], part)

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
        jobs = []
        for member in self.members:
            personal = self._personal(member.client_id, state) if has_own else {}
            own = seal(personal) if personal else None
            jobs.append(EvaluationJob(member.client_id, round_index, own, has_surface, num_previews, round_index == BEFORE))
        self.progress("stage", name="evaluating", total=len(jobs))
        failpoint("round.before_evaluation")
        replies = self.backend.evaluate(jobs, shared)
        part = "before" if round_index == BEFORE else f"round-{round_index:05d}"
        rows = [row for reply in replies for row in reply.cases]
        self._write("cases", rows, part)
        self._write("previews", [row for reply in replies for row in reply.previews], part)
        self._write("records", [row for reply in replies for row in reply.records], part)
        scores = [row["dsc"] for row in rows if row["model"] != "teacher" and row["split"] == "test"]
        if scores:
            self.progress("evaluated", round=round_index, dsc=sum(scores) / len(scores))

    def _personal(self, client_id: int, state: State) -> Payload:
        """A client's own model: what its method keeps, or else what it last uploaded to be averaged."""
        kept = self.method.personal_model(state.clients.get(client_id, {}))
        return state.uploads.get(client_id, {}) if kept is None else kept

    def _models(self, state: State) -> dict[str, Payload]:
        """The final models by file name: the global one, the personal ones, and the teacher."""
        models = {}
        if self.method.is_trained and (model := self.method.global_model(state.server)):
            models["global"] = model
        for member in self.members:
            personal = self._personal(member.client_id, state)
            if personal:
                models[f"personal-{member.name}"] = personal
        if state.teacher:
            models["teacher"] = rename(state.teacher, "teacher", "params")
        return models


def _job(client_id: int, round_index: int, kept: Payload, own: Payload, extra: Payload) -> LocalJob:
    return LocalJob(client_id, round_index, seal(kept), seal(own) if own else None, seal(extra) if extra else None)
