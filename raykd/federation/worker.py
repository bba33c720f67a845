"""A place where clients run, one after the other: the part of a backend that does the work, in this process or in an actor."""

from __future__ import annotations

import ctypes
import functools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from raykd.data.federation import build_repository_data
from raykd.data.pools import Pools
from raykd.federation.client import POOLED, SERVER, Client, Networks
from raykd.federation.description import describe_network, record_rows
from raykd.federation.evaluation import calibration_rows, case_rows, check_tolerance
from raykd.federation.previews import preview_rows
from raykd.federation.privacy import check_delta
from raykd.federation.protocols import EvaluationJob, EvaluationReply, LocalJob, LocalReply, Progress, Row, ServerJob
from raykd.federation.segmenter import repository_reading, segment
from raykd.federation.teacher import repository_model
from raykd.federation.transport import Envelope, seal, unseal
from raykd.methods._base import Method, Upload
from raykd.models._base import SegmentationNetwork, build_network
from raykd.numerics.params import Payload, load_state
from raykd.scenario.registry import METHODS
from raykd.scenario.schema import Scenario

PROGRESS_STEPS = 20
"""Steps of training on the repository between two notes of progress."""
CLIENTS_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (2 * (os.cpu_count() or 1))
"""What the prepared clients of one worker may hold: half of the machine's memory, divided by its cores."""
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


@functools.cache
def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory for the next step: page faults cost up to a third of a step of a small network."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_TOP_PAD, 64 * 2**20)


class Worker:
    """Holds the clients that it has run, prepared, until another scenario is opened.

    Args:
        progress: told of finished steps and clients.
        device: where networks run.
    """

    def __init__(self, progress: Progress, device: str = "cpu"):
        keep_freed_memory()
        self._progress, self._device = progress, device
        self._clients: dict[int, Client] = {}
        self._sizes: dict[int, int] = {}
        self._networks: Networks = {}
        self._opened_last: list[tuple[Envelope, Payload, float]] = []

    def open(self, scenario: Scenario, root: Path) -> None:
        """Forgets all clients and takes up a scenario, with its number of threads."""
        self._scenario, self._root = scenario, root
        self._method: Method = METHODS.get(scenario.method.name)(scenario.method, scenario)
        self._clients, self._sizes, self._networks, self._opened_last = {}, {}, {}, []
        self._members, self._pools = scenario.members(), Pools(scenario, root)
        self._handed_out: Payload = {}
        torch.set_num_threads(scenario.resources.threads_per_client)

    def carry_out(self, work: str, jobs: Sequence[Any], shared: Sequence[Any] = ()) -> list[tuple[Any, float]]:
        """Does one kind of work for several clients, one after the other, and says how many seconds each took.

        Args:
            work: `describe`, `train_on_repository`, `local_update`, `update_server` or `evaluate`.
            jobs: what it takes, by client.
            shared: what it takes besides.
        """
        done, start = [], time.perf_counter()
        for job in jobs:
            reply, end = getattr(self, work)(job, *shared), time.perf_counter()
            done.append((reply, end - start))
            start = end
        return done

    def receive(self, payload: Envelope) -> None:
        """Keeps what the run hands out."""
        self._handed_out = unseal(payload)

    def prepare_repository(self) -> None:
        """Prepares the repository's cases, which stay in the cache. Raises `DataError`."""
        data = build_repository_data(self._scenario, self._root)
        check_tolerance(self._scenario, "repository", data.validation)

    def describe(self, client_id: int) -> Row:
        """Prepares a client and describes it; of the server, the repository's cases. Raises `DataError`."""
        if client_id == SERVER:
            self.prepare_repository()
            return {}
        client = self._client(client_id)
        check_delta(self._scenario, client.member.name, client.data.labelled)
        check_tolerance(self._scenario, client.member.name, (*client.data.validation, *client.data.test))
        return client.describe()

    def train_on_repository(self, network: Any) -> tuple[Envelope, list[Row], EvaluationReply]:
        """A network trained on the repository: its parameters, its training curve, its scores on held-out cases at their own
        spacing, slices of the first of these, and what was drawn for each case.
        """
        scenario = self._scenario
        torch.set_num_threads(scenario.resources.threads_teacher)

        def note(step: int, loss: float) -> None:
            if step == 1:
                self._progress("stage", name=f"training {describe_network(network)} on the repository", total=1)
            if step % PROGRESS_STEPS == 0:
                self._progress(
                    "teacher_step",
                    network=describe_network(network),
                    step=step,
                    total=scenario.repository.teacher.num_steps,
                    loss=loss,
                )

        model = repository_model(scenario, network, self._root, self._device, note)
        torch.set_num_threads(scenario.resources.threads_per_client)
        curve: list[Row] = [{"step": step, "loss": loss, "train_s": model.train_s} for step, loss in model.curve]
        module = build_network(network, len(scenario.classes) + 1, 0).to(self._device)
        load_state(module, model.params)
        return seal(model.params), curve, self._on_held_out_cases(module)

    def _on_held_out_cases(self, teacher: SegmentationNetwork) -> EvaluationReply:
        """What a teacher scores on the cases that the repository holds out, and slices of the first of them."""
        scenario, how = self._scenario, repository_reading(self._scenario)
        data = build_repository_data(scenario, self._root)
        rows, calibration, previews = list[Row](), list[Row](), list[Row]()
        of: dict[str, Any] = {"split": "validation", "model": "teacher", "round_index": -1, "client_id": SERVER}
        for case in data.validation:
            said = segment(teacher, case.image_CIJK, how)
            rows += case_rows(scenario, case, said.labels_IJK, has_surface=True, classes=how.known, **of)
            if scenario.evaluation.calibration == "final":
                calibration += calibration_rows(case, said, **of)
            if not previews and scenario.evaluation.previews:
                previews = preview_rows(case, {"teacher": said.labels_IJK}, round_index=-1, client_id=SERVER)
        records = record_rows(SERVER, {"labelled": data.train, "validation": data.validation})
        return EvaluationReply(SERVER, tuple(rows), tuple(previews), tuple(records), tuple(calibration))

    def local_update(self, job: LocalJob, download: Envelope) -> LocalReply:
        """One client's local update."""
        received, shared_s = self._opened(download) if job.own is None else (unseal(job.own), 0.0)
        start = time.perf_counter()
        received = received | unseal(job.extra or {})
        read_s = shared_s + time.perf_counter() - start
        reply = self._client(job.client_id).local_update(job, received, self._handed_out)
        reply.training["coding_s"] += read_s
        self._used(job.client_id)
        self._progress("client", client_id=job.client_id, round=job.round_index, loss=reply.training["loss_total"])
        return reply

    def update_server(self, job: ServerJob) -> Envelope:
        """The server's own work in a round."""
        uploads = [Upload(client_id, unseal(upload), *counts) for client_id, upload, *counts in job.uploads]
        return seal(self._client(SERVER).update_server(job.round_index, unseal(job.server), uploads))

    def evaluate(self, job: EvaluationJob, shared: Mapping[str, Envelope]) -> EvaluationReply:
        """Scores the shared models and the client's own on its cases."""
        own = {} if job.own is None else {"personal": job.own}
        models = {role: self._opened(envelope)[0] for role, envelope in shared.items()}
        models |= {role: unseal(envelope) for role, envelope in own.items()}
        return self._client(job.client_id).evaluate(job, models)

    def _opened(self, envelope: Envelope) -> tuple[Payload, float]:
        """What was sent to many clients, opened once for those that come one after the other, and how many seconds that took."""
        if not any(envelope is known for known, *_ in self._opened_last):
            start = time.perf_counter()
            payload = unseal(envelope)
            self._opened_last = [*self._opened_last[-1:], (envelope, payload, time.perf_counter() - start)]
        return next((payload, seconds) for known, payload, seconds in self._opened_last if known is envelope)

    def _client(self, client_id: int) -> Client:
        if client_id not in self._clients:
            if client_id == POOLED:
                self._clients[client_id] = Client.pooled(self._scenario, self._method, self._root, self._device)
            elif client_id == SERVER:
                self._clients[client_id] = Client.server(self._scenario, self._method, self._root, self._device)
            else:
                member = self._members[client_id]
                self._clients[client_id] = Client.build(
                    self._scenario, self._method, member, self._root, self._device, self._networks, self._pools
                )
        return self._clients[client_id]

    def _used(self, client_id: int) -> None:
        """Marks a client as the one used last, and lets go of those not used for longest once all hold more than their share."""
        self._clients[client_id] = self._clients.pop(client_id)
        self._sizes[client_id] = self._clients[client_id].num_bytes
        while len(self._clients) > 1 and sum(self._sizes.values()) > CLIENTS_BYTES:
            oldest = next(iter(self._clients))
            del self._clients[oldest], self._sizes[oldest]
