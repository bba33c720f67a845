"""What the nodes of a cluster say of themselves: a task on each."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ray
from ray import exceptions as ray_errors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raykd.scenario.errors import ResourceError

ANSWER_TIMEOUT_S = 60.0
"""A node may have to start a process and to fetch raykd first."""
PACKAGES = ("ray", "torch", "monai", "torchio", "raykd")


def alive_nodes() -> list[dict[str, Any]]:
    """The cluster's nodes that are alive, as `ray.nodes()` gives them."""
    return [node for node in ray.nodes() if node["Alive"]]


def node_name(node: Mapping[str, Any]) -> str:
    """How a node is called in sentences: its host name and its address."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def ask_nodes(question: Callable[..., Any], *arguments: Any, timeout_s: float = ANSWER_TIMEOUT_S) -> list[Any]:
    """Every node's answer in the order of `alive_nodes`; of a node that gives none, the exception that says why."""
    nodes = alive_nodes()
    task = ray.remote(question)
    asked = []
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked.append(task.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(*arguments))
    ray.wait(asked, num_returns=len(asked), timeout=timeout_s)
    answers: list[Any] = []
    for answer in asked:
        try:
            answers.append(ray.get(answer, timeout=0.1))
        except ray_errors.RayError as error:
            answers.append(error)
    return answers


def hidden_of(folders: Sequence[str]) -> list[str]:
    """Those of the folders that this process does not see."""
    return [folder for folder in folders if not Path(folder).is_dir()]


def refuse_hidden(folders: Sequence[Path]) -> None:
    """Raises `ResourceError` naming node and folder where a node of the cluster does not see one of the folders."""
    if not folders:
        return
    for node, answer in zip(alive_nodes(), ask_nodes(hidden_of, [str(folder) for folder in folders]), strict=True):
        if isinstance(answer, Exception):
            raise ResourceError(f"node {node_name(node)} does not answer: {first_line(answer)}; see it with `raykd doctor`")
        if answer:
            raise ResourceError(
                f"node {node_name(node)} must see every folder that cases are read from, and does not see {answer[0]}; "
                "mount it there under the same path, or keep clients on one node"
            )


def facts(folder: str | None) -> dict[str, Any]:
    """Versions of this process and of packages installed here, the clock, and whether a folder is seen."""
    installed = {name: _installed(name) for name in PACKAGES}
    sees = None if folder is None else Path(folder).is_dir()
    return {"python": platform.python_version(), **installed, "sees_folder": sees}


def clock() -> float:
    """Seconds since the epoch, by this machine."""
    return time.time()


def clock_skews() -> list[float | None]:
    """By how many seconds each node's clock is ahead of this machine's, to within the time of a call; None: it did not answer."""
    asked_s = clock()
    answers = ask_nodes(clock)
    halfway_s = (asked_s + clock()) / 2
    return [None if isinstance(answer, Exception) else answer - halfway_s for answer in answers]


def first_line(error: Exception) -> str:
    """An exception in a line."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
