"""Before the first round: what is trained on the repository, and the states that a federation starts from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from raykd.federation.checkpoint import State
from raykd.federation.client import POOLED
from raykd.federation.coding import seal_download
from raykd.federation.protocols import Backend, EvaluationReply, Row, ServerJob
from raykd.federation.shelf import Shelf
from raykd.federation.teacher import model_seed
from raykd.federation.transport import Envelope, seal, unseal
from raykd.federation.weak_start import weak_start
from raykd.methods._base import Method, ServerStart
from raykd.models._base import build_network
from raykd.numerics.params import Payload, rename, select, state_of

BEFORE = -1
"""The round of what happens before the first."""

Trained = dict[str, tuple[Envelope, list[Row], EvaluationReply]]
"""By role, a model of the repository, rows of `teachers`, and what it scores on the cases held out there."""


def repository_networks(method: Method) -> dict[str, Any]:
    """By role, the networks to train on the repository: the teacher, and a student where the method starts warm with another
    network.
    """
    teacher, networks = method.scenario.repository.teacher.network, {}
    if method.needs_teacher or method.keeps_teacher or (method.is_warm and method.student_network() == teacher):
        networks["teacher"] = teacher
    if method.is_warm and method.student_network() != teacher:
        networks["student"] = method.student_network()
    return networks


def unused_blocks(method: Method) -> tuple[str, ...]:
    """The blocks of a scenario, and of its groups of sites, that change nothing under a method."""
    reads_repository = repository_networks(method) or method.serves or method.learns_from_repository
    blocks = {
        "repository": not reads_repository,
        **dict.fromkeys(("training", "federation", "student", "labels"), not method.is_trained),
    }
    return tuple(name for name, is_unused in blocks.items() if is_unused)


def trained_rows(trained: Trained) -> Iterator[tuple[str, Sequence[Row], str]]:
    """What tables say of the models of the repository: table, rows and part."""
    for role, (_, curve, reply) in trained.items():
        yield "teachers", [{"role": role, **row} for row in curve], f"teachers-{role}"
        if role == "teacher":
            for table in ("cases", "calibration", "previews", "records"):
                yield table, getattr(reply, table), "repository"
        yield "events", weak_start(role, reply.cases), f"{role}-before"


def first_state(method: Method, backend: Backend, trained: Trained, shelf: Shelf) -> State:
    """The states of server and clients before the first round, the clients' on the shelf, and what is handed out; the server works
    where its method makes it.
    """
    teacher = rename(unseal(trained["teacher"][0]), "params", "teacher") if "teacher" in trained else {}
    student = unseal(trained[_warm_role(method)][0]) if method.is_warm else _cold_student(method)
    server = method.init_server(ServerStart(student, teacher))
    if method.serves:
        server = unseal(backend.update_server(ServerJob(BEFORE, seal(server))))
    handed_out = {
        **(teacher if method.needs_teacher else {}),
        **(student if method.hands_out_student and method.is_warm else {}),
        **method.hand_out(server),
    }
    client_ids = [POOLED] if method.pools_data else [member.client_id for member in method.scenario.members()]
    clients = {client_id: shelf.put(seal(method.init_client(student))) for client_id in client_ids}
    if method.needs_teacher and method.scenario.traffic.down.teacher:
        teacher = select(unseal(seal_download(method.scenario, handed_out)), "teacher")
    return State(server, clients, teacher=teacher, handed_out=handed_out)


def _warm_role(method: Method) -> str:
    return "teacher" if method.student_network() == method.scenario.repository.teacher.network else "student"


def _cold_student(method: Method) -> Payload:
    scenario = method.scenario
    return state_of(build_network(method.student_network(), len(scenario.classes) + 1, model_seed(scenario, "student")))
