"""Clients one after the other in this process: the reference that every other backend must agree with, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raykd.federation.client import SERVER
from raykd.federation.protocols import EvaluationJob, EvaluationReply, Jobs, LocalJob, LocalReply, Progress, Row, ServerJob
from raykd.federation.transport import Envelope
from raykd.federation.worker import Worker
from raykd.scenario.schema import Scenario


class InProcessBackend:
    """One worker, here."""

    num_slots = 1

    def __init__(self, progress: Progress):
        self._worker = Worker(progress)

    def open(self, scenario: Scenario, root: Path) -> None:
        self._worker.open(scenario, root)

    def prepare(self, client_ids: Sequence[int], with_repository: bool) -> list[Row]:
        if with_repository:
            self._worker.describe(SERVER)
        return [self._worker.describe(client_id) for client_id in client_ids]

    def train_on_repository(self, networks: Sequence[Any]) -> list[tuple[Envelope, list[Row], EvaluationReply]]:
        return [self._worker.train_on_repository(network) for network in networks]

    def hand_out(self, payload: Envelope) -> None:
        self._worker.receive(payload)

    def local_updates(self, jobs: Jobs[LocalJob], download: Envelope) -> Iterator[LocalReply]:
        return (self._worker.local_update(job, download) for job in jobs)

    def update_server(self, job: ServerJob) -> Envelope:
        return self._worker.update_server(job)

    def evaluate(self, jobs: Jobs[EvaluationJob], shared: Mapping[str, Envelope]) -> Iterator[EvaluationReply]:
        return (self._worker.evaluate(job, shared) for job in jobs)

    def incidents(self) -> list[tuple[int, str]]:
        return []

    def close(self) -> None:
        """Nothing was started."""
