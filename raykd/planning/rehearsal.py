"""A run without its training: the real driver and the real method over stand-ins, so that what crosses the links is what a run
would send, and the work of every client is counted.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raykd.data.federation import ClientData
from raykd.data.heterogeneity.label_budget import Split
from raykd.federation.client import POOLED, SERVER, Client
from raykd.federation.driver import Driver
from raykd.federation.knowledge import payload_hash
from raykd.federation.protocols import EvaluationJob, EvaluationReply, LocalJob, LocalReply, Row, ServerJob
from raykd.federation.teacher import model_seed
from raykd.federation.transport import Envelope, seal
from raykd.federation.worker import Worker
from raykd.methods._base import Method
from raykd.methods._context import KnowledgeRequest
from raykd.models._base import build_network
from raykd.numerics.local_sgd import LocalResult
from raykd.numerics.params import Payload, select, state_of
from raykd.planning.stand_ins import small_shape, stand_in_data
from raykd.runtime.in_process import InProcessBackend
from raykd.scenario.schema import Scenario
from raykd.scenario.sites import Client as Member
from raykd.scenario.sites import Labels, num_training

Task = tuple[Any, ...]
"""A kind of work that has a price: `("fit", role)` a step, `("adapt",)` a step, `("listen", request)` a teacher pass over a
case, `("predict", role)` a case, `("score", has_surface)` a case, `("calibrate",)` a case."""
Holders = Mapping[int, Sequence[Split]]
"""By client, the pooled trainer and the server among them, the cases that are there."""
STEERED = ("batches", "beside", "before_step", "after_step")
"""Options of `fit` by which a method works on the steps themselves: such a fit is rehearsed by one real step."""


@dataclass(frozen=True)
class Work:
    """So many units of a task, done for a client in a round."""

    round_index: int
    client_id: int
    task: Task
    amount: float
    is_evaluation: bool = False


@dataclass
class Rehearsal:
    """What a rehearsal came to.

    Attributes:
        clients: rows of the `clients` table, with the spacing of stand-ins.
        transfers: rows of the `transfers` table, as a run would write them.
        rounds: rows of the `rounds` table, of which `server_s` is real, and `simulated_s` where the clock knows what a step takes.
        events: rows of the `events` table.
        work: in the order in which it was done.
        networks: blocks of the networks that are trained on the repository.
        firsts: by kind of client (or `server`) and task, the first job that holds the task, with its download.
        handed_out: what clients received before the first round.
    """

    clients: list[Row] = field(default_factory=list)
    transfers: list[Row] = field(default_factory=list)
    rounds: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    networks: list[Any] = field(default_factory=list)
    firsts: dict[tuple[Hashable, Task], tuple[Any, Envelope]] = field(default_factory=dict)
    handed_out: Envelope = field(default_factory=dict)

    def write(self, table: str, rows: Sequence[Mapping[str, Any]], part: str) -> None:
        """Keeps the rows that a plan is made of."""
        if table in ("clients", "transfers", "rounds", "events"):
            getattr(self, table).extend(dict(row) for row in rows)


def rehearse(
    scenario: Scenario,
    root: Path,
    splits: Sequence[Split],
    repository: Split,
    kinds: Sequence[Hashable],
    num_slots: int,
) -> Rehearsal:
    """Goes through all rounds of a scenario without training.

    Args:
        scenario, root: what would be run.
        splits: what each client holds.
        repository: what the repository holds, all of it labelled.
        kinds: by client, the same for those whose work costs the same.
        num_slots: clients at once.

    Raises:
        RunFailed: as the run would, where no client has anything to learn from.
    """
    rehearsal = Rehearsal()
    at_server = Split(repository.labelled + repository.unlabelled, (), (), ())
    holders = {SERVER: [at_server], POOLED: list(splits)} | {index: [split] for index, split in enumerate(splits)}
    backend = RehearsalBackend(rehearsal, holders, kinds, num_slots)
    driver = Driver(scenario, root, backend, rehearsal, _silent, threading.Event())
    driver.run(driver.prepare())
    return rehearsal


def _silent(event: str, **values: Any) -> None:
    """Nobody watches."""


class RehearsalBackend(InProcessBackend):
    """One worker that trains nothing, and as many slots as the accounts are to be made for."""

    def __init__(self, rehearsal: Rehearsal, holders: Holders, kinds: Sequence[Hashable], num_slots: int):
        super().__init__(_silent)
        self.num_slots = num_slots
        self._rehearsal, self._stand_in = rehearsal, RehearsalWorker(rehearsal, holders, kinds)

    def worker_for(self, scenario: Scenario) -> Worker:
        return self._stand_in

    def hand_out(self, payload: Envelope) -> None:
        self._rehearsal.handed_out = payload
        super().hand_out(payload)


class StandInWorker(Worker):
    """A worker whose clients hold something else than their cases, and whose method is told something else than the truth."""

    def data_of(self, client_id: int, member: Member) -> tuple[Member, ClientData]:
        """A site with its settings, and what it holds."""
        raise NotImplementedError

    def direct(self, session: Any, client: Client) -> Any:
        """The context that a method sees in place of a client's session."""
        raise NotImplementedError

    def _client(self, client_id: int) -> Client:
        if client_id not in self._clients:
            scenario, members = self._scenario, self._scenario.members()
            member = members[max(client_id, 0)].model_copy(update={"client_id": client_id})
            if client_id == SERVER:
                labels = Labels(classes=scenario.repository.classes)
                group = member.group.model_copy(update={"student": None, "labels": labels})
                member = member.model_copy(update={"group": group, "training": scenario.training})
            member, data = self.data_of(client_id, member)
            method: Any = DirectedMethod(self._method)
            factor = num_training(members) if client_id == POOLED else 1
            client = Client(scenario, method, member, data, proxy=data.labelled[:1] or data.test[:1], steps_factor=factor)
            method.direct = functools.partial(self.direct, client=client)
            self._clients[client_id] = client
        return self._clients[client_id]


class RehearsalWorker(StandInWorker):
    """Clients with as many cases as they would have, all the same small one; training is counted and left out."""

    def __init__(self, rehearsal: Rehearsal, holders: Holders, kinds: Sequence[Hashable]):
        super().__init__(_silent)
        self._rehearsal, self._holders, self._kinds = rehearsal, holders, kinds
        self._known: dict[int, dict[str, Any]] = {}

    def prepare_repository(self) -> None:
        """The repository's cases are not needed."""

    def train_on_repository(self, network: Any) -> tuple[Envelope, list[Row], EvaluationReply]:
        self._rehearsal.networks.append(network)
        model = build_network(network, len(self._scenario.classes) + 1, model_seed(self._scenario, "repository"))
        return seal(state_of(model)), [], EvaluationReply(SERVER, ())

    def local_update(self, job: LocalJob, download: Envelope) -> LocalReply:
        start = len(self._rehearsal.work)
        reply = super().local_update(job, download)
        self._remember(self._kinds[max(job.client_id, 0)], start, (job, download))
        return reply

    def update_server(self, job: ServerJob) -> Envelope:
        start = len(self._rehearsal.work)
        server = super().update_server(job)
        self._remember("server", start, (job, {}))
        return server

    def _remember(self, kind: Hashable, start: int, job: tuple[Any, Envelope]) -> None:
        for work in self._rehearsal.work[start:]:
            self._rehearsal.firsts.setdefault((kind, work.task), job)

    def evaluate(self, job: EvaluationJob, shared: Mapping[str, Envelope]) -> EvaluationReply:
        (split,) = self._holders[job.client_id]
        num_cases = len(split.validation) + len(split.test)
        for role in [*shared, *([] if job.own is None else ["personal"])]:
            network = "teacher" if role == "teacher" else "student"
            tasks: list[Task] = [
                ("predict", network),
                ("score", job.has_surface),
                *([("calibrate",)] if job.has_calibration else []),
            ]
            for task in tasks:
                self._rehearsal.work.append(Work(job.round_index, job.client_id, task, num_cases, is_evaluation=True))
        return EvaluationReply(job.client_id, ())

    def data_of(self, client_id: int, member: Member) -> tuple[Member, ClientData]:
        shape = small_shape(member.training.patch_shape)
        training = member.training.model_copy(update={"patch_shape": shape})
        return member.model_copy(update={"training": training}), stand_in_data(self._scenario, self._holders[client_id], shape)

    def direct(self, session: Any, client: Client) -> Any:
        known = self._known.setdefault(client.member.client_id, {})
        return RehearsedSession(session, client, self._rehearsal.work.append, known)


class DirectedMethod:
    """A method that is given other contexts; all else is its own.

    Attributes:
        direct: makes a context from the real one.
    """

    direct: Callable[[Any], Any]

    def __init__(self, method: Method):
        self._method = method

    def __getattr__(self, name: str) -> Any:
        known = getattr(self._method, name)
        if name in ("local_update", "start_server", "update_server"):
            return lambda context, *arguments: known(self.direct(context), *arguments)
        return known


class RehearsedSession:
    """A client's session in which training is counted and left out; what it does not name is done, on stand-ins.

    Args:
        session: the real one.
        client: whose it is.
        note: told of work.
        known: what the client remembers between rounds: the model last listened to, and the teacher last scored.
    """

    def __init__(self, session: Any, client: Client, note: Callable[[Work], None], known: dict[str, Any]):
        self._session, self._client, self._note, self._known = session, client, note, known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def fit(self, start: Payload, loss: Any, **options: Any) -> tuple[Payload, LocalResult]:
        num_steps = options.get("num_steps") or self._client.num_steps
        if not (self.num_labelled or (self.num_unlabelled and options.get("num_unlabelled")) or options.get("batches")):
            num_steps = 0
        self._count(("fit", options.get("role", "student")), num_steps)
        if any(options.get(name) is not None for name in STEERED):
            taken = self._session.num_steps_taken
            fitted: tuple[Payload, LocalResult] = self._session.fit(start, loss, **{**options, "num_steps": 1})
            self._session.num_steps_taken = taken + num_steps
            return fitted
        self._session.num_steps_taken += num_steps
        return select(start, "params"), LocalResult(num_steps, {})

    def adapt(self, teacher: Payload, num_steps: int) -> Payload:
        self._count(("adapt",), num_steps)
        self._session.num_steps_taken += num_steps
        return dict(teacher)

    def learn_from(self, teacher: Payload, request: KnowledgeRequest) -> None:
        if self._is_news("heard", (payload_hash(teacher), request)):
            self._count(("listen", request), num_passes(request) * (self.num_labelled + self.num_unlabelled))

    def support_scores(self, model: Payload, role: str, known: tuple[int, ...] | None = None) -> list[tuple[float, int]]:
        if role == "student" or self._is_news("scored", payload_hash(model)):
            self._count(("predict", role), self.num_labelled)
            self._count(("score", False), self.num_labelled)
        return [(0.5 * self.num_labelled, self.num_labelled)] * (self.num_classes - 1)

    def _is_news(self, name: str, value: Any) -> bool:
        is_news = self._known.get(name) != value
        self._known[name] = value
        return is_news

    def _count(self, task: Task, amount: float) -> None:
        if amount:
            self._note(Work(self.round_index, self.client_id, task, amount))


def num_passes(request: KnowledgeRequest) -> int:
    """Times that a case goes through a teacher that is asked for this."""
    return max(1, request.num_passes) + bool(request.layers)
