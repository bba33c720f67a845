"""What the engine adds to a client's round, for ten clients to a thousand, with a model of ten parameters and one of 5 MB.

Whole rounds are timed as `raykd run` does them: jobs made and sent, local updates, replies shelved, averaged, tables and checkpoint
written and flushed to the disk. What is left when the seconds within local updates, spread over the slots, are taken off is what
the engine adds. Memory is the driver's own, without what processes share.
"""

from __future__ import annotations

import functools
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ten_parameters
from raykd.federation.checkpoint import Checkpoints
from raykd.federation.driver import Driver
from raykd.federation.shelf import Shelf
from raykd.results.writer import RunWriter, create_run_dir
from raykd.runtime.ray_session import run_on_ray
from raykd.scenario.load import scenario_from_dict
from raykd.scenario.schema import Scenario

ROUNDS, EDGE = 6, 8
SIZES = (("ten_parameters", 10), ("ten_parameters", 100), ("ten_parameters", 1000), ("unet", 10), ("unet", 100))


class Timed(RunWriter):
    """Notes when the rows of a round are written, and its seconds within local updates."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.train_s: list[float] = []

    def write(self, table: str, rows: Sequence[Any], part: str) -> None:
        if table == "training":
            self.train_s.append(sum(row["train_s"] for row in rows))
        super().write(table, rows, part)


def rounds_of(scenario: Scenario, folder: Path, backend: Any, progress: Any, stop: threading.Event) -> dict[str, float]:
    """A whole run, timed from the second round on: milliseconds a client and round, and the driver's memory."""
    starts: list[float] = []

    def note(event: str, **values: Any) -> None:
        if event == "round":
            starts.append(time.perf_counter())

    common = {"run_id": "benchmark", "scenario": scenario.name, "method": scenario.method.name, "seed": 0}
    writer = Timed(create_run_dir(folder / "run"), common)
    checkpoints = Checkpoints(Shelf(folder / "run/checkpoints"), writer)
    driver = Driver(scenario, folder, backend, writer, note, stop, checkpoints)
    driver.run(driver.prepare())
    slots, num_clients = min(backend.num_slots, len(scenario.members())), len(scenario.members())
    # The last round ends in an evaluation, the first one in warm processes: neither counts.
    walls = np.diff(starts)[1:]
    busy = np.array(writer.train_s[1:-1]) / slots
    return {
        "wall_ms": 1e3 * float(np.median(walls)) / num_clients,
        "engine_ms": 1e3 * float(np.median(walls - busy)) / num_clients,
        "memory_mb": own_memory_mb(),
    }


def own_memory_mb() -> float:
    """This process's private memory."""
    rows = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith("Private")) / 1024


def scenario_of(network: str, num_clients: int, folder: Path) -> Scenario:
    """So many clients with two cases each of one archive."""
    rng = np.random.default_rng(0)
    shape = (2 * num_clients, EDGE, EDGE, EDGE) if network == "ten_parameters" else (2 * num_clients, EDGE, 2 * EDGE, 2 * EDGE)
    labels = (rng.random(shape) < 0.3).astype(np.uint8) + (rng.random(shape) < 0.3)
    np.savez(folder / "cases.npz", images=rng.normal(size=shape).astype(np.float32), labels=labels)
    source = {"name": "npz", "file": "cases.npz", "spacing_mm": [1.0, 1.0, 1.0]}
    block = {"name": network} | ({} if network == "ten_parameters" else {"width": 24})
    patch = [EDGE] * 3 if network == "ten_parameters" else [EDGE, 2 * EDGE, 2 * EDGE]
    data = {
        "name": "benchmark",
        "classes": ["one", "two"],
        "repository": {"source": source, "num_validation": 1, "teacher": {"network": block, "patch_shape": patch}},
        "pools": {"all": {"source": source, "split": {"by": "iid"}}},
        "clients": [
            {
                "group": "site",
                "count": num_clients,
                "source": {"name": "pool", "pool": "all"},
                "labels": {"num_shots": 1},
                "num_test": 1,
            }
        ],
        "student": {"network": block},
        "method": {"name": "fedavg"},
        "training": {"num_local_steps": 1, "patch_shape": patch, "optimiser": "sgd", "augmentation": {"flip": [0.0, 0.0, 0.0]}},
        "federation": {"rounds": ROUNDS},
        "evaluation": {"every": ROUNDS, "surface_metrics": "never", "previews": 0},
    }
    return scenario_from_dict(data, folder).scenario


def main() -> None:
    """Prints the table."""
    print("| model | clients | ms a client and round | of which engine | driver's memory |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as plug_in:
        ten_parameters.install(Path(plug_in))
        for network, num_clients in SIZES:
            with tempfile.TemporaryDirectory() as name:
                scenario = scenario_of(network, num_clients, Path(name))
                job = functools.partial(rounds_of, scenario, Path(name))
                found = run_on_ray(job, scenario.resources, num_clients, address="local", progress=_silent, stop=threading.Event())
            row = f"{found['wall_ms']:.2f} | {found['engine_ms']:.2f} | {found['memory_mb']:.0f} MB"
            print(f"| {network} | {num_clients} | {row} |", flush=True)


def _silent(event: str, **values: Any) -> None:
    """Nobody watches."""


if __name__ == "__main__":
    main()
