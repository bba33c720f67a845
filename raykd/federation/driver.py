"""The rounds: broadcast, local updates, upload, aggregate, evaluate. Everything that happens is written down, one part a round."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

from raykd.federation.client import POOLED
from raykd.federation.cohort import Cohort, draw_cohort
from raykd.federation.protocols import Backend, EvaluationJob, LocalJob, LocalReply, Progress, ResultSink, Row
from raykd.federation.teacher import model_seed
from raykd.federation.transport import Envelope, seal, transfer_rows, unseal
from raykd.methods._base import Method, ServerStart, Upload
from raykd.models._base import build_network
from raykd.numerics.params import Payload, rename, state_of
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
                self.sink.write("cases", rows, "repository")
        transfers: list[Row] = []
        teacher: Payload = {}
        if "teacher" in trained:
            teacher = rename(unseal(trained["teacher"][0]), "params", "teacher")
            self._teacher = seal(teacher)
            if self.method.needs_teacher:
                transfers += self._hand_out(teacher, self._teacher)
        student = unseal(trained[self._warm_role()][0]) if self.method.is_warm else self._cold_student()
        if self.method.hands_out_student and self.method.is_warm:
            transfers += self._hand_out(student, seal(student))
        self.sink.write("transfers", transfers, "before")
        server = self.method.init_server(ServerStart(student, teacher))
        return server, {client_id: self.method.init_client(student) for client_id in self._client_ids}

    def _repository_networks(self) -> dict[str, Any]:
        """By role, the networks to train on the repository: the teacher, and a student where the method starts warm with another network."""
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
        start = time.perf_counter()
        cohort = self._cohort(round_index)
        self.progress("round", round=round_index, total=self.scenario.federation.rounds, clients=len(cohort.completed))
        download = self.method.broadcast(server)
        sealed = seal(download)
        teacher = self._teacher if self.method.needs_teacher else None
        jobs = [LocalJob(client_id, round_index, seal(states[client_id]), teacher) for client_id in cohort.completed]
        prepared = time.perf_counter()
        replies = self.backend.local_updates(jobs, sealed)
        returned = time.perf_counter()
        for reply in replies:
            states[reply.client_id] = unseal(reply.state)
        uploads = [Upload(r.client_id, unseal(r.upload), r.num_labelled, r.num_unlabelled) for r in replies if not r.events]
        if not uploads and replies:
            raise RunFailed(
                f"round {round_index}: no client sent a finite upload; lower training.learning_rate or set training.clip_norm"
            )
        if uploads:
            server = self.method.aggregate(server, uploads)
        aggregated = time.perf_counter()
        transfers = self._transfers(round_index, cohort, download, sealed, replies)
        server_s = (prepared - start) + (aggregated - returned)
        row = self._round_row(round_index, cohort, replies, transfers, wall_s=aggregated - start, server_s=server_s)
        self._write_round(round_index, row, replies, transfers, cohort)
        return server

    def _cohort(self, round_index: int) -> Cohort:
        if self.method.pools_data:
            return Cohort((POOLED,), (POOLED,))
        return draw_cohort(self.scenario.federation, len(self.members), self.scenario.seed, round_index)

    def _transfers(
        self, round_index: int, cohort: Cohort, download: Payload, sealed: Envelope, replies: Sequence[LocalReply]
    ) -> list[Row]:
        """What crossed the links of one round: a client that dropped out was sent the model and answered nothing."""
        if self.method.pools_data:
            return []
        rows = []
        uploads = {reply.client_id: reply.upload for reply in replies}
        for client_id in cohort.selected:
            link = self.members[client_id].group.link
            rows += transfer_rows(download, sealed, round_index=round_index, client_id=client_id, direction="down", link=link)
            if client_id in uploads:
                up = uploads[client_id]
                rows += transfer_rows(unseal(up), up, round_index=round_index, client_id=client_id, direction="up", link=link)
        return rows

    def _round_row(
        self,
        round_index: int,
        cohort: Cohort,
        replies: Sequence[LocalReply],
        transfers: Sequence[Row],
        *,
        wall_s: float,
        server_s: float,
    ) -> Row:
        """Times of one round. A site's simulated time is its download, its measured training on its own machine, and its upload; the round
        ends with the slowest site."""
        train = {reply.client_id: float(reply.training["train_s"]) for reply in replies}
        sites = []
        for client_id, train_s in train.items():
            factor = 1.0 if client_id == POOLED else self.members[client_id].group.compute_factor
            sites.append(train_s / factor + sum(row["simulated_s"] for row in transfers if row["client_id"] == client_id))
        busy = sum(train.values()) / max(1, min(self.backend.num_slots, len(train)))
        return {
            "round": round_index,
            "num_selected": len(cohort.selected),
            "num_completed": sum(1 for reply in replies if not reply.events),
            "num_dropped": len(cohort.dropped),
            "wall_s": wall_s,
            "simulated_s": max(sites, default=0.0) + server_s,
            "engine_s": max(0.0, wall_s - server_s - busy),
            "server_s": server_s,
        }

    def _write_round(
        self, round_index: int, row: Row, replies: Sequence[LocalReply], transfers: Sequence[Row], cohort: Cohort
    ) -> None:
        part = f"round-{round_index:05d}"
        events = [event for reply in replies for event in reply.events]
        events += [
            {"round": round_index, "client_id": client_id, "kind": "dropout", "detail": "drawn with federation.client_dropout"}
            for client_id in cohort.dropped
        ]
        self.sink.write("training", [reply.training for reply in replies], part)
        self.sink.write("transfers", transfers, part)
        self.sink.write("events", events, part)
        self.sink.write("rounds", [row], part)

    def _evaluate(self, round_index: int, server: Payload, states: dict[int, Payload], *, is_final: bool) -> None:
        surface = self.scenario.evaluation.surface_metrics
        has_surface = surface == "always" or (surface == "final" and is_final)
        with_teacher = self._teacher is not None and (is_final or round_index == BEFORE)
        broadcast = seal(self.method.broadcast(server)) if self.method.is_trained else {}
        jobs = []
        for member in self.members:
            models: dict[str, Envelope] = {}
            personal = self.method.personal_model(states.get(member.client_id, {}))
            if personal:
                models["personal"] = seal(personal)
            elif broadcast:
                models["global"] = broadcast
            if with_teacher and self._teacher is not None:
                models["teacher"] = self._teacher
            previews = self.scenario.evaluation.previews if is_final else 0
            jobs.append(EvaluationJob(member.client_id, round_index, models, has_surface, previews))
        self.progress("stage", name="evaluating", total=len(jobs))
        replies = self.backend.evaluate(jobs)
        part = "before" if round_index == BEFORE else f"round-{round_index:05d}"
        rows = [row for reply in replies for row in reply.cases]
        self.sink.write("cases", rows, part)
        self.sink.write("previews", [row for reply in replies for row in reply.previews], part)
        scores = [row["dsc"] for row in rows if row["model"] != "teacher" and row["split"] == "test"]
        if scores:
            self.progress("evaluated", round=round_index, dsc=sum(scores) / len(scores))

    def _models(self, server: Payload, states: dict[int, Payload]) -> dict[str, Payload]:
        """The final models by file name: the global one, the personal ones, and the teacher."""
        models = {}
        if self.method.is_trained and self.method.broadcast(server):
            models["global"] = self.method.broadcast(server)
        for member in self.members:
            personal = self.method.personal_model(states.get(member.client_id, {}))
            if personal:
                models[f"personal-{member.name}"] = personal
        if self._teacher is not None:
            models["teacher"] = rename(unseal(self._teacher), "teacher", "params")
        return models
