"""The same rounds on one slot, on two of one node, and on two nodes of one slot each: what another slot or node is worth. Where
torch sees a GPU, clients share it by quarters, and one slot is compared with two and four.

Each runs on a Ray cluster of its own, started for it; the scores must agree to the last bit, or nothing is printed.
"""

from __future__ import annotations

import functools
import statistics
import threading
from pathlib import Path

import torch
from ray import cloudpickle
from ray.cluster_utils import Cluster

from benchmarks import ray_overhead
from benchmarks.ray_overhead import SCENARIO, Tables, rounds_of, silent, wall_s
from raykd.runtime.ray_session import run_on_ray
from raykd.scenario.load import load_scenario
from raykd.scenario.schema import Scenario

HAS_GPU = torch.cuda.is_available()
PLACES: dict[str, tuple[int, ...]] = (
    {"1 slot": (1,), "2 slots of a GPU": (2,), "4 slots of a GPU": (4,)}
    if HAS_GPU
    else {"1 slot": (1,), "2 slots of a node": (2,), "2 nodes of a slot": (1, 1)}
)
"""How many slots each node has."""
REPEATS = 3


def rounds_on(slots_of_nodes: tuple[int, ...], scenario: Scenario, root: Path) -> Tables:
    """A whole run on a cluster of its own."""
    cluster = Cluster()
    try:
        for num_slots in slots_of_nodes:
            cluster.add_node(num_cpus=num_slots, num_gpus=int(HAS_GPU), include_dashboard=False, object_store_memory=200 * 2**20)
        held = {"slots": sum(slots_of_nodes), "gpus_per_client": 0.25 * HAS_GPU}
        resources = scenario.resources.model_copy(update=held)
        job = functools.partial(rounds_of, scenario.model_copy(update={"resources": resources}), root)
        num_clients = len(scenario.members())
        return run_on_ray(job, resources, num_clients, address=cluster.address, progress=silent, stop=threading.Event())
    finally:
        cluster.shutdown()


def main() -> None:
    """Prints the table."""
    cloudpickle.register_pickle_by_value(ray_overhead)  # a standing cluster is given raykd alone
    loaded = load_scenario(SCENARIO)
    times: list[list[float]] = []
    for _ in range(REPEATS):
        done = [rounds_on(place, loaded.scenario, loaded.root) for place in PLACES.values()]
        scores = [[row["dsc"] for row in tables.rows["cases"]] for tables in done]
        if any(other != scores[0] for other in scores):
            raise SystemExit("the runs do not agree; nothing is compared")
        times.append([wall_s(tables) for tables in done])
    rounds, clients = loaded.scenario.federation.rounds - 1, len(loaded.scenario.members())
    print(f"{clients} clients x {rounds} rounds x {loaded.scenario.training.num_local_steps} steps, {REPEATS} repeats\n")
    print("| place | rounds | 1 slot takes so many times as long |\n|---|---|---|")
    for index, name in enumerate(PLACES):
        seconds = statistics.median(row[index] for row in times)
        print(f"| {name} | {seconds:.2f} s | {statistics.median(row[0] / row[index] for row in times):.2f} |")


if __name__ == "__main__":
    main()
