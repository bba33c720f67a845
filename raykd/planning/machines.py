"""What machines have, and whether the workers of a scenario fit: CPUs and GPUs as the run counts them, and memory."""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from raykd.federation.protocols import Row
from raykd.runtime.placement import slots_on, slots_that_fit
from raykd.scenario.errors import ResourceError
from raykd.scenario.schema import Resources
from raykd.scenario.sites import Client

Nodes = Sequence[Mapping[str, Any]]
"""Machines as `ray.nodes()` gives them: NodeName, Alive, Resources with CPU, GPU and memory."""
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def this_node() -> Row:
    """This machine as Ray would count it, without starting Ray; `memory` is all that it has, or its container may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    memory = min(total, int(limit)) if limit.isdigit() else total
    resources = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count()), "memory": float(memory)}
    return {"NodeName": socket.gethostname(), "Alive": True, "Resources": resources}


def node_row(node: Mapping[str, Any]) -> Row:
    """A machine in a plan."""
    has = node["Resources"]
    return {"name": node["NodeName"], "cpus": has.get("CPU", 0.0), "gpus": has.get("GPU", 0.0), "bytes": int(has.get("memory", 0))}


def fitting_slots(nodes: Nodes, resources: Resources, num_clients: int) -> tuple[int, list[str]]:
    """Clients at once, and why not as many as the scenario asks for; where not one fits, the plan goes on with one."""
    try:
        return slots_that_fit(nodes, resources, num_clients), []
    except ResourceError as error:
        return 1 if resources.slots == "auto" else min(resources.slots, num_clients), [str(error)]


def memory_shortfall(nodes: Nodes, resources: Resources, num_slots: int, worker_bytes: float) -> list[str]:
    """Why the workers do not fit in the machines' memory, if they do not."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    total = sum(has.get("memory", 0.0) for has in alive)
    room = sum(min(slots_on(has, resources), int(has.get("memory", 0.0) // worker_bytes)) for has in alive)
    if room >= num_slots or not any("memory" in has for has in alive):
        return []
    gib = 2.0**30
    return [
        f"memory: {num_slots} workers of about {worker_bytes / gib:.1f} GiB must fit, got {total / gib:.1f} GiB, "
        f"which holds {room}; set resources.slots to {max(room, 1)}, hold fewer cases, or bring larger machines"
    ]


def site_shortfall(member: Client, bytes_held: float) -> list[str]:
    """Why a site's work does not fit in the memory that the scenario gives its machine, if it does not."""
    limit, needed = member.group.memory_gib, (peak_bytes() + bytes_held) / 2.0**30
    if limit is None or needed <= limit:
        return []
    return [
        f"client {member.name} needs about {needed:.2f} GiB for its process and its prepared cases, and has memory_gib {limit:g}; "
        "give it fewer cases, smaller patches or a smaller network, or a larger machine"
    ]


def peak_bytes() -> int:
    """The most memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
