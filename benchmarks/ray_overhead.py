"""Wall time of the rounds of a Ray run against the same local updates in bare processes.

Both run the same driver, clients and worker code on two processes of one thread; the bare ones talk over pipes of the standard
library. The scores must agree to the last bit, or the comparison is refused.
"""

from __future__ import annotations

import functools
import multiprocessing
import statistics
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from raykd.federation.driver import Driver
from raykd.federation.protocols import EvaluationJob, EvaluationReply, Jobs, LocalJob, LocalReply, Row
from raykd.federation.transport import Envelope
from raykd.federation.worker import Worker
from raykd.runtime.ray_session import run_on_ray
from raykd.scenario.load import load_scenario
from raykd.scenario.schema import Scenario

SCENARIO = Path(__file__).parent / "fedavg.yaml"
NUM_PROCESSES, REPEATS = 2, 3


def silent(event: str, **values: Any) -> None:
    """A progress that tells nobody."""


class Tables:
    """A sink that keeps rows."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Any]] = {}

    def write(self, table: str, rows: Sequence[Any], part: str) -> None:
        """Keeps them."""
        self.rows.setdefault(table, []).extend(rows)


def serve(connection: Connection) -> None:
    """A process that does what it is told with its own worker."""
    worker = Worker(silent)
    while (call := connection.recv()) is not None:
        connection.send([getattr(worker, name)(*arguments) for name, arguments in call])


class BareBackend:
    """Two processes and two pipes."""

    num_slots = NUM_PROCESSES

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(NUM_PROCESSES)]
        self._pipes = [here for here, _ in pipes]
        self._processes = [context.Process(target=serve, args=(there,), daemon=True) for _, there in pipes]
        for process in self._processes:
            process.start()

    def _all(self, calls: Sequence[tuple[int, str, tuple[Any, ...]]]) -> list[Any]:
        mine = [[(name, arguments) for slot, name, arguments in calls if slot == p] for p in range(NUM_PROCESSES)]
        for pipe, work in zip(self._pipes, mine, strict=True):
            pipe.send(work)
        answers = [iter(pipe.recv()) for pipe in self._pipes]
        return [next(answers[slot]) for slot, _, _ in calls]

    def open(self, scenario: Scenario, root: Path) -> None:
        self._all([(slot, "open", (scenario, root)) for slot in range(NUM_PROCESSES)])

    def prepare(self, client_ids: Sequence[int], with_repository: bool) -> list[Row]:
        return self._all([(c % NUM_PROCESSES, "describe", (c,)) for c in client_ids])

    def train_on_repository(self, networks: Sequence[Any]) -> list[Any]:
        return self._all([(i % NUM_PROCESSES, "train_on_repository", (network,)) for i, network in enumerate(networks)])

    def local_updates(self, jobs: Jobs[LocalJob], download: Envelope) -> Iterator[LocalReply]:
        return iter(self._all([(job.client_id % NUM_PROCESSES, "local_update", (job, download)) for job in jobs]))

    def hand_out(self, teacher: Envelope) -> None:
        self._all([(slot, "receive", (teacher,)) for slot in range(NUM_PROCESSES)])

    def evaluate(self, jobs: Jobs[EvaluationJob], shared: Mapping[str, Envelope]) -> Iterator[EvaluationReply]:
        return iter(self._all([(job.client_id % NUM_PROCESSES, "evaluate", (job, shared)) for job in jobs]))

    def incidents(self) -> list[tuple[int, str]]:
        return []

    def close(self) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join()


def rounds_of(scenario: Scenario, root: Path, backend: Any, progress: Any, stop: threading.Event) -> Tables:
    """A whole run on a backend."""
    tables = Tables()
    driver = Driver(scenario, root, backend, tables, progress, stop)
    driver.run(driver.prepare())
    return tables


def wall_s(tables: Tables) -> float:
    """The seconds of all rounds but the first, in which processes still warm up."""
    return sum(row["wall_s"] for row in tables.rows["rounds"][1:])


def main() -> None:
    """Prints the table."""
    loaded = load_scenario(SCENARIO)
    job = functools.partial(rounds_of, loaded.scenario, loaded.root)
    times = []
    for _ in range(REPEATS):
        bare = BareBackend()
        plain = job(bare, silent, threading.Event())
        bare.close()
        num_clients = len(loaded.scenario.members())
        ray = run_on_ray(job, loaded.scenario.resources, num_clients, address="local", progress=silent, stop=threading.Event())
        if [row["dsc"] for row in plain.rows["cases"]] != [row["dsc"] for row in ray.rows["cases"]]:
            raise SystemExit("the two runs do not agree; nothing is compared")
        times.append((wall_s(plain), wall_s(ray)))
    ratio = statistics.median(ray / plain for plain, ray in times)
    plain_s, ray_s = (statistics.median(column) for column in zip(*times, strict=True))
    rounds, steps = loaded.scenario.federation.rounds - 1, loaded.scenario.training.num_local_steps
    print(f"{num_clients} clients x {rounds} rounds x {steps} steps, {NUM_PROCESSES} processes, {REPEATS} repeats\n")
    print("| bare processes | Ray | ratio |\n|---|---|---|")
    print(f"| {plain_s:.2f} s | {ray_s:.2f} s | {ratio:.3f} |")


if __name__ == "__main__":
    main()
