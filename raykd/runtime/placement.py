"""How many clients fit on the machines at hand, told in milliseconds: Ray itself would wait for ever for what does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raykd.scenario.errors import ResourceError
from raykd.scenario.schema import Resources

UNIT = 10_000
"""Ray counts resources in ten-thousandths."""


def slots_on(node: Mapping[str, float], resources: Resources) -> int:
    """Clients that fit on one node: by its CPUs, and by whole clients on each of its GPUs, since a fraction does not span two.

    Args:
        node: its resources as Ray names them: CPU, GPU.
        resources: what one client asks for.
    """
    by_cpu = _times(node.get("CPU", 0.0), resources.cpus_per_client)
    by_gpu = None
    if resources.gpus_per_client > 0:
        num_gpus = int(node.get("GPU", 0.0))
        whole = resources.gpus_per_client >= 1
        by_gpu = _times(num_gpus, resources.gpus_per_client) if whole else num_gpus * (_times(1.0, resources.gpus_per_client) or 0)
    counts = [count for count in (by_cpu, by_gpu) if count is not None]
    return min(counts) if counts else UNIT


def _times(available: float, asked: float) -> int | None:
    """How many times `asked` goes into `available`; None where nothing is asked."""
    return round(available * UNIT) // round(asked * UNIT) if asked > 0 else None


def slots_that_fit(nodes: Sequence[Mapping[str, Any]], resources: Resources, num_clients: int) -> int:
    """Clients that run at once: as many as fit and are needed, or as the scenario's `slots` says.

    Args:
        nodes: as `ray.nodes()` gives them.
        resources: the scenario's block.
        num_clients: more slots than clients are of no use.

    Raises:
        ResourceError: not one client fits, or fewer than `slots`; names the best node and what it is short of.
    """
    gpus = resources.gpus_per_client
    if gpus > 1 and gpus != int(gpus):
        raise ResourceError(f"resources.gpus_per_client must be a whole number above 1, got {gpus:g}")
    alive = [(str(node["NodeName"]), node["Resources"]) for node in nodes if node["Alive"]]  # names need not differ
    fitting = [slots_on(has, resources) for _, has in alive]
    total = sum(fitting)
    wanted = 1 if resources.slots == "auto" else resources.slots
    if total < wanted:
        raise ResourceError(_shortfall(alive, fitting, resources, wanted))
    return min(total, num_clients) if resources.slots == "auto" else min(resources.slots, num_clients)


DEADLINE_FACTOR, LEAST_DEADLINE_S, FIRST_DEADLINE_S = 20.0, 600.0, 3600.0


def deadline_s(setting: str | float, work: str, last_s: float | None) -> float:
    """Seconds within which a client's work must be done; infinite for what is no client's.

    Args:
        setting: the scenario's `resources.deadline_s`.
        work: its kind.
        last_s: what it took last; None: it was not timed yet.
    """
    if work not in ("local_update", "evaluate"):
        return float("inf")
    if not isinstance(setting, str):
        return float(setting)
    return FIRST_DEADLINE_S if last_s is None else max(LEAST_DEADLINE_S, DEADLINE_FACTOR * last_s)


def _shortfall(alive: Sequence[tuple[str, Mapping[str, float]]], fitting: Sequence[int], resources: Resources, wanted: int) -> str:
    if not alive:
        return "the cluster must have a node that is alive, got none; start Ray on one"
    ranked = zip(fitting, alive, strict=True)
    _, (name, has) = max(ranked, key=lambda node: (node[0], node[1][1].get("GPU", 0.0), node[1][1].get("CPU", 0.0)))
    cpu, gpu = has.get("CPU", 0.0), has.get("GPU", 0.0)
    missing = []
    if cpu < resources.cpus_per_client:
        missing.append(f"{resources.cpus_per_client - cpu:g} CPU")
    if gpu < resources.gpus_per_client:
        missing.append(f"{resources.gpus_per_client - gpu:g} GPU")
    short = f"short of {' and '.join(missing)}" if missing else "each fits once only so often"
    asked = f"{wanted} client{'s' if wanted > 1 else ''} at {resources.cpus_per_client:g} CPU and {resources.gpus_per_client:g} GPU"
    return (
        f"{asked} must fit, got {sum(fitting)}: the best node '{name}' has {cpu:g} CPU and {gpu:g} GPU ({short}); "
        "lower resources.cpus_per_client, resources.gpus_per_client or resources.slots"
    )
