"""Whether two hundred rounds leave the object store, file descriptors and resident memory where they were after the fifth.

A run as `raykd run` does it, ten clients on Ray with evaluations in between. After every round it is looked at from outside:
bytes in the object store, and for every process of the run (the driver, the workers) its open descriptors and resident memory.
The median over rounds 5 to 24 is compared with that over the last twenty.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from benchmarks.many_clients import scenario_of
from raykd.launch import Plan, launch
from raykd.runtime.descendants import descendants
from raykd.runtime.ray_session import ray_session

ROUNDS, NUM_CLIENTS, FIRST, WINDOW = 200, 10, 5, 20
ROLES = {"ray::DriverActor": "driver", "ray::WorkerActor": "workers"}


def sample() -> dict[str, float]:
    """What the run holds now."""
    total, free = (of().get("object_store_memory", 0.0) for of in (ray.cluster_resources, ray.available_resources))
    found = {"object store, MB": (total - free) / 1e6}
    for role, pid in _processes():
        try:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            found[f"{role}, resident MB"] = found.get(f"{role}, resident MB", 0.0) + int(status["VmRSS"].split()[0]) / 1024
            num_open = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            found[f"{role}, descriptors"] = found.get(f"{role}, descriptors", 0.0) + num_open
        except (OSError, KeyError):  # it ended meanwhile
            continue
    return found


def _processes() -> Iterator[tuple[str, int]]:
    for pid in descendants():
        try:
            name = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
        except OSError:
            continue
        for start, role in ROLES.items():
            if name.startswith(start):
                yield role, pid


def main() -> None:
    """Prints the table."""
    samples: dict[int, dict[str, float]] = {}

    def note(event: str, **values: Any) -> None:
        if event == "round":
            samples[values["round"]] = sample()

    with tempfile.TemporaryDirectory() as name:
        scenario = scenario_of("unet", NUM_CLIENTS, Path(name))
        federation = scenario.federation.model_copy(update={"rounds": ROUNDS})
        evaluation = scenario.evaluation.model_copy(update={"every": 10})
        scenario = scenario.model_copy(update={"federation": federation, "evaluation": evaluation})
        plan = Plan(Path(name) / "run", "fedavg", scenario, Path(name))
        with ray_session("local"):
            launch([plan], backend="ray", progress=note, stop=threading.Event())
    print(f"{NUM_CLIENTS} clients, {ROUNDS} rounds\n")
    print(f"| | after round {FIRST} | after round {ROUNDS} | change |\n|---|---|---|---|")
    for key in samples[FIRST]:
        early = statistics.median(samples[r][key] for r in samples if FIRST <= r < FIRST + WINDOW)
        late = statistics.median(samples[r][key] for r in samples if r >= ROUNDS - WINDOW)
        change = f"{100 * (late / early - 1):+.1f} %" if early else f"{late - early:+.1f}"
        print(f"| {key} | {early:.1f} | {late:.1f} | {change} |", flush=True)


if __name__ == "__main__":
    main()
