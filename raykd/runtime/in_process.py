"""Clients one after the other in this process: the reference that every other backend must agree with, bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

from raykd.federation.client import SERVER
from raykd.federation.protocols import EvaluationJob, EvaluationReply, Jobs, LocalJob, LocalReply, Progress, Row, ServerJob, Stopped
from raykd.federation.transport import Envelope
from raykd.federation.worker import Worker
from raykd.runtime.device import take_up_device
from raykd.scenario.schema import Scenario

T = TypeVar("T")


class InProcessBackend:
    """One worker, here, on a GPU where clients hold one.

    Args:
        progress: told of finished steps and clients.
        stop: set to give up what is in hand before the next client, or within a few steps of training on the repository.
    """

    num_slots = 1

    def __init__(self, progress: Progress, stop: Event | None = None):
        self._progress, self._stop = progress, stop or Event()

    def _tell(self, event: str, **values: Any) -> None:
        self._progress(event, **values)
        if event == "teacher_step":
            self._refuse_more()

    def _refuse_more(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _until_stopped(self, jobs: Iterable[T]) -> Iterator[T]:
        for job in jobs:
            self._refuse_more()
            yield job

    def open(self, scenario: Scenario, root: Path) -> None:
        self._worker = self.worker_for(scenario)
        self._worker.open(scenario, root)

    def worker_for(self, scenario: Scenario) -> Worker:
        """The one that does the work of a scenario."""
        return Worker(self._tell, take_up_device(scenario.resources.gpus_per_client, self._tell))

    def prepare(self, client_ids: Sequence[int], with_repository: bool) -> list[Row]:
        if with_repository:
            self._worker.describe(SERVER)
        return [self._worker.describe(client_id) for client_id in self._until_stopped(client_ids)]

    def train_on_repository(self, networks: Sequence[Any]) -> list[tuple[Envelope, list[Row], EvaluationReply]]:
        return [self._worker.train_on_repository(network) for network in self._until_stopped(networks)]

    def hand_out(self, payload: Envelope) -> None:
        self._worker.receive(payload)

    def local_updates(self, jobs: Jobs[LocalJob], download: Envelope) -> Iterator[LocalReply]:
        return (self._worker.local_update(job, download) for job in self._until_stopped(jobs))

    def update_server(self, job: ServerJob) -> Envelope:
        return self._worker.update_server(job)

    def evaluate(self, jobs: Jobs[EvaluationJob], shared: Mapping[str, Envelope]) -> Iterator[EvaluationReply]:
        return (self._worker.evaluate(job, shared) for job in self._until_stopped(jobs))

    def incidents(self) -> list[tuple[int, str]]:
        return []

    def close(self) -> None:
        """Nothing was started."""
