"""The rounds: broadcast, local updates, upload, aggregate, evaluate. Everything that happens is written down, one part a round."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

from raykd.federation.accounts import round_row, round_transfers
from raykd.federation.client import POOLED
from raykd.federation.cohort import Cohort, draw_cohort
from raykd.federation.protocols import Backend, EvaluationJob, LocalJob, LocalReply, Progress, ResultSink, Row
from raykd.federation.teacher import model_seed
from raykd.federation.transport import Envelope, seal, transfer_rows, unseal
from raykd.methods._base import Method, ServerStart, Upload
from raykd.models._base import build_network
from raykd.numerics.params import Payload, rename, select, state_of
from raykd.scenario.errors import RunFailed
from raykd.scenario.registry import METHODS
from raykd.scenario.schema import Scenario

BEFORE = -1
"""The round of what happens before the first."""


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
    """

    def __init__(self, scenario: Scenario, root: Path, backend: Backend, sink: ResultSink, progress: Progress, stop: Event):
        self.scenario, self.root, self.backend, self.sink = scenario, root, backend, sink
        self.progress, self._stop = progress, stop
        self.method: Method = METHODS.get(scenario.method.name)(scenario.method, scenario)
        self.members = scenario.members()
        self._client_ids = [POOLED] if self.method.pools_data else [member.client_id for member in self.members]
        self._teacher: Envelope | None = None
        self._last_upload: dict[int, Payload] = {}

    def prepare(self) -> list[Row]:
        """Prepares all data on the workers and gives the rows of `clients`; nothing is written. Raises `DataError`."""
        self.backend.open(self.scenario, self.root)
        self.progress("stage", name="preparing data", total=len(self.members))
        return self.backend.prepare([member.client_id for member in self.members], bool(self._repository_networks()))

    def run(self, clients: Sequence[Row]) -> dict[str, Payload]:
        """All rounds, given what `prepare` returned; returns the final models by name. Raises `RunFailed` or `Interrupted`."""
        self.sink.write("clients", clients, "clients")
        server, states = self._start()
        self._evaluate(BEFORE, server, states, is_final=not self.method.is_trained)
        rounds = self.scenario.federation.rounds if self.method.is_trained else 0
        for round_index in range(rounds):
            if self._stop.is_set():
                raise Interrupted(f"stopped before round {round_index} of {rounds}")
            server = self._round(round_index, server, states)
            is_final = round_index == rounds - 1
            if is_final or (round_index + 1) % self.scenario.evaluation.every == 0:
                self._evaluate(round_index, server, states, is_final=is_final)
        return self._models(server, states)

    def _start(self) -> tuple[Payload, dict[int, Payload]]:
        """Trains what starts on the repository, hands it out, and gives server and clients their first states."""
        networks = self._repository_networks()
        self.progress("stage", name="training on the repository", total=len(networks))
        trained = dict(zip(networks, self.backend.train_on_repository(list(networks.values())), strict=True))
        for role, (_, curve, rows) in trained.items():
            self.sink.write("teachers", [{"role": role, **row} for row in curve], f"teachers-{role}")
            if role == "teacher":
                self._write("cases", rows, "repository")
        transfers: list[Row] = []
        teacher: Payload = {}
        if "teacher" in trained:
            teacher = rename(unseal(trained["teacher"][0]), "params", "teacher")
            self._teacher = seal(teacher)
            if self.method.needs_teacher:
                self.backend.hand_out(self._teacher)
                transfers += self._hand_out(teacher, self._teacher)
        student = unseal(trained[self._warm_role()][0]) if self.method.is_warm else self._cold_student()
        if self.method.hands_out_student and self.method.is_warm:
            transfers += self._hand_out(student, seal(student))
        self._write("transfers", transfers, "before")
        server = self.method.init_server(ServerStart(student, teacher))
        return server, {client_id: self.method.init_client(student) for client_id in self._client_ids}

    def _repository_networks(self) -> dict[str, Any]:
        """By role, the networks to train on the repository: the teacher, and a student where the method starts warm with
        another network.
        """
        teacher, networks = self.scenario.repository.teacher.network, {}
        if self.method.needs_teacher or (self.method.is_warm and self.method.student_network() == teacher):
            networks["teacher"] = teacher
        if self.method.is_warm and self.method.student_network() != teacher:
            networks["student"] = self.method.student_network()
        return networks

    def _warm_role(self) -> str:
        return "teacher" if self.method.student_network() == self.scenario.repository.teacher.network else "student"

    def _cold_student(self) -> Payload:
        return state_of(
            build_network(self.method.student_network(), len(self.scenario.classes) + 1, model_seed(self.scenario, "student"))
        )

    def _hand_out(self, payload: Payload, envelope: Envelope) -> list[Row]:
        """Rows of one payload going down every client's link before the first round."""
        return [
            row
            for member in self.members
            for row in transfer_rows(
                payload, envelope, round_index=BEFORE, client_id=member.client_id, direction="down", link=member.group.link
            )
        ]

    def _round(self, round_index: int, server: Payload, states: dict[int, Payload]) -> Payload:
        """One round; the server's next state. In a personal round every site goes on from its own model; only a site that has none
        yet is sent the last average."""
        start = time.perf_counter()
        cohort, is_personal = self._cohort(round_index), self._is_personal(round_index)
        self.progress("round", round=round_index, total=self.scenario.federation.rounds, clients=len(cohort.completed))
        download = self.method.broadcast(server)
        sealed = seal(download)
        jobs = [self._job(client_id, round_index, states, is_personal=is_personal) for client_id in cohort.completed]
        prepared = time.perf_counter()
        replies = self.backend.local_updates(jobs, sealed)
        returned = time.perf_counter()
        uploads = self._receive(round_index, replies, states)
        if uploads and not is_personal:
            server = self.method.aggregate(server, uploads)
        aggregated = time.perf_counter()
        if is_personal:
            fresh = Cohort(tuple(job.client_id for job in jobs if job.own is None), ())
            crossed = round_transfers(self.members, round_index, fresh, download, sealed, [])
        else:
            crossed = (
                [] if self.method.pools_data else round_transfers(self.members, round_index, cohort, download, sealed, replies)
            )
        times = {"wall_s": aggregated - start, "server_s": (prepared - start) + (aggregated - returned)}
        row = round_row(self.members, round_index, cohort, replies, crossed, self.backend.num_slots, **times)
        self._write_round(round_index, row, replies, crossed, cohort)
        return server

    def _is_personal(self, round_index: int) -> bool:
        federation = self.scenario.federation
        return not self.method.pools_data and round_index >= federation.rounds - federation.personal_rounds

    def _job(self, client_id: int, round_index: int, states: dict[int, Payload], *, is_personal: bool) -> LocalJob:
        own = seal(self._last_upload[client_id]) if is_personal and client_id in self._last_upload else None
        return LocalJob(client_id, round_index, seal(states[client_id]), own)

    def _receive(self, round_index: int, replies: Sequence[LocalReply], states: dict[int, Payload]) -> list[Upload]:
        """Files what the clients keep, and gives the finite uploads in client order."""
        for reply in replies:
            states[reply.client_id] = unseal(reply.state)
        uploads = [Upload(r.client_id, unseal(r.upload), r.num_labelled, r.num_unlabelled) for r in replies if not r.events]
        if replies and not uploads:
            reasons = "; ".join(sorted({str(event["detail"]) for reply in replies for event in reply.events}))
            raise RunFailed(
                f"round {round_index}: no client's update counts ({reasons}); lower training.learning_rate, set "
                "training.clip_norm, or give sites labels"
            )
        self._last_upload |= {upload.client_id: select(upload.payload, "params") for upload in uploads}
        return uploads

    def _cohort(self, round_index: int) -> Cohort:
        if self.method.pools_data:
            return Cohort((POOLED,), (POOLED,))
        return draw_cohort(self.scenario.federation, len(self.members), self.scenario.seed, round_index)

    def _write_round(
        self, round_index: int, row: Row, replies: Sequence[LocalReply], transfers: Sequence[Row], cohort: Cohort
    ) -> None:
        part = f"round-{round_index:05d}"
        events = [event for reply in replies for event in reply.events]
        events += [
            {"round": round_index, "client_id": client_id, "kind": "dropout", "detail": "drawn with federation.client_dropout"}
            for client_id in cohort.dropped
        ]
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

    def _evaluate(self, round_index: int, server: Payload, states: dict[int, Payload], *, is_final: bool) -> None:
        surface = self.scenario.evaluation.surface_metrics
        has_surface = surface == "always" or (surface == "final" and is_final)
        shared = {}
        if self.method.is_trained and (broadcast := self.method.broadcast(server)):
            shared["global"] = seal(broadcast)
        has_own = is_final or "global" not in shared or self._is_personal(round_index)
        if self._teacher is not None and (is_final or round_index == BEFORE):
            shared["teacher"] = self._teacher
        num_previews = self.scenario.evaluation.previews if is_final else 0
        jobs = []
        for member in self.members:
            personal = self._personal(member.client_id, states) if has_own else {}
            own = seal(personal) if personal else None
            jobs.append(EvaluationJob(member.client_id, round_index, own, has_surface, num_previews))
        self.progress("stage", name="evaluating", total=len(jobs))
        replies = self.backend.evaluate(jobs, shared)
        part = "before" if round_index == BEFORE else f"round-{round_index:05d}"
        rows = [row for reply in replies for row in reply.cases]
        self._write("cases", rows, part)
        self._write("previews", [row for reply in replies for row in reply.previews], part)
        scores = [row["dsc"] for row in rows if row["model"] != "teacher" and row["split"] == "test"]
        if scores:
            self.progress("evaluated", round=round_index, dsc=sum(scores) / len(scores))

    def _personal(self, client_id: int, states: dict[int, Payload]) -> Payload:
        """A client's own model: what its method keeps, or else what it last uploaded to be averaged."""
        kept = self.method.personal_model(states.get(client_id, {}))
        return self._last_upload.get(client_id, {}) if kept is None else kept

    def _models(self, server: Payload, states: dict[int, Payload]) -> dict[str, Payload]:
        """The final models by file name: the global one, the personal ones, and the teacher."""
        models = {}
        if self.method.is_trained and self.method.broadcast(server):
            models["global"] = self.method.broadcast(server)
        for member in self.members:
            personal = self._personal(member.client_id, states)
            if personal:
                models[f"personal-{member.name}"] = personal
        if self._teacher is not None:
            models["teacher"] = rename(unseal(self._teacher), "teacher", "params")
        return models
