"""Seconds to prepare the data of a federation, on an empty cache and from a full one, with one process and with two.

Four clients of 20 cases of 64 x 128 x 128 voxels, resampled and scanned: what happens before the first round of any run. The
processes are those of `ray_overhead`, started before the clock is, as Ray's workers are.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.ray_overhead import BareBackend, silent
from raykd.runtime.in_process import InProcessBackend
from raykd.scenario.load import scenario_from_dict
from raykd.scenario.schema import Scenario

NUM_CLIENTS, NUM_CASES = 4, 20
SPACING_MM, FIELD_OF_VIEW_MM = [1.75, 1.125, 1.125], [112.0, 144.0, 144.0]
SOURCE = {"name": "phantom", "num_cases": NUM_CASES, "spacing_mm": SPACING_MM, "field_of_view_mm": FIELD_OF_VIEW_MM}


def federation() -> Scenario:
    """Four hospitals with scanners of their own, one of them with thick slices."""
    group = {"source": SOURCE, "labels": {"num_shots": 2}, "num_test": 6, "scanner": {"noise": 0.05, "bias_field": 0.3}}
    network = {"network": {"name": "unet", "width": 8}}
    clients = [{"group": f"site-{index}", **group} for index in range(NUM_CLIENTS - 1)]
    clients.append({"group": "thick", **group, "spacing_mm": [3.5, 1.125, 1.125]})
    data = {
        "name": "prepare",
        "classes": ["femoral_cartilage", "tibial_cartilage"],
        "repository": {"source": {**SOURCE, "num_cases": 2}, "num_validation": 1, "teacher": network},
        "clients": clients,
        "student": network,
        "method": {"name": "fedavg"},
    }
    return scenario_from_dict(data, Path()).scenario


def seconds(backend: Any, scenario: Scenario) -> float:
    """Of preparing all clients, as a run does."""
    backend.open(scenario, Path())
    start = time.perf_counter()
    backend.prepare(list(range(NUM_CLIENTS)), False)
    return time.perf_counter() - start


def both(make: Any, scenario: Scenario) -> list[tuple[float, float]]:
    """Wall and this process's CPU seconds on a cache of its own, empty and then full, the second time with nothing in memory."""
    times = []
    with tempfile.TemporaryDirectory() as cache:
        before = os.environ.get("RAYKD_CACHE")
        os.environ["RAYKD_CACHE"] = cache
        try:
            for _ in range(2):
                backend, start = make(), time.process_time()
                wall_s = seconds(backend, scenario)
                times.append((wall_s, time.process_time() - start))
                backend.close()
        finally:
            os.environ.pop("RAYKD_CACHE")
            if before is not None:
                os.environ["RAYKD_CACHE"] = before
    return times


def main() -> None:
    """Prints the table."""
    scenario = federation()
    shape = " x ".join(str(round(length / mm)) for length, mm in zip(FIELD_OF_VIEW_MM, SPACING_MM, strict=True))
    print(f"{NUM_CLIENTS} clients x {NUM_CASES} cases of {shape} voxels\n")
    (empty, empty_cpu), (full, full_cpu) = both(lambda: InProcessBackend(silent), scenario)
    (empty_2, _), (full_2, _) = both(BareBackend, scenario)
    print("| processes | empty cache | full cache |\n|---|---|---|")
    print(f"| 1 | {empty:.1f} s | {full:.2f} s |\n| 1, CPU time | {empty_cpu:.1f} s | {full_cpu:.2f} s |")
    print(f"| 2 | {empty_2:.1f} s | {full_2:.2f} s |")


if __name__ == "__main__":
    main()
