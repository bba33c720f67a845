"""Rounds with one slot, with two, and with two on two nodes: what a second core is worth, and what a second node costs.

Both nodes are on this machine, so that the network between them is not part of it; what is, is a store for each, and every model
copied from one to the other. The scores of all must agree to the last bit, or nothing is compared.
"""

from __future__ import annotations

import functools
import statistics
import threading
from typing import Any

from ray.cluster_utils import Cluster

from benchmarks.ray_overhead import SCENARIO, Tables, rounds_of, silent, wall_s
from raykd.runtime.ray_session import run_on_ray
from raykd.scenario.load import LoadedScenario, load_scenario

REPEATS = 3
NODES = {"one slot": (1,), "two slots": (2,), "two slots on two nodes": (1, 1)}
"""CPUs of the nodes, a slot each."""


def measured(loaded: LoadedScenario, cpus: tuple[int, ...]) -> Tables:
    """A run on a cluster of its own."""
    resources = loaded.scenario.resources.model_copy(update={"slots": sum(cpus)})
    scenario = loaded.scenario.model_copy(update={"resources": resources})
    job = functools.partial(rounds_of, scenario, loaded.root)
    common: dict[str, Any] = {"progress": silent, "stop": threading.Event()}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus[0], "include_dashboard": False})
    try:
        for number in cpus[1:]:
            cluster.add_node(num_cpus=number)
        cluster.wait_for_nodes()
        return run_on_ray(job, resources, len(scenario.members()), address=cluster.address, **common)
    finally:
        cluster.shutdown()


def main() -> None:
    """Prints the table."""
    loaded, times = load_scenario(SCENARIO), dict[str, list[float]]()
    scores = []
    for _ in range(REPEATS):
        for title, cpus in NODES.items():
            tables = measured(loaded, cpus)
            times.setdefault(title, []).append(wall_s(tables))
            scores.append([row["dsc"] for row in tables.rows["cases"]])
    if any(found != scores[0] for found in scores):
        raise SystemExit("the runs do not agree; nothing is compared")
    print("| | seconds of the rounds | to one slot |\n|---|---|---|")
    for title, found in times.items():
        ratio = statistics.median(own / one for own, one in zip(found, times["one slot"], strict=True))
        print(f"| {title} | {statistics.median(found):.2f} s | {ratio:.3f} |")


if __name__ == "__main__":
    main()
