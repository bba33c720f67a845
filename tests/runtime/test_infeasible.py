"""What the session's cluster (two CPUs, two GPUs) cannot hold is refused at once, and nothing is started or written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raykd.launch import Plan, launch
from raykd.scenario.errors import ResourceError

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ("{cpus_per_client: 3}", "short of 1 CPU"),
        ("{cpus_per_client: 64}", "short of 62 CPU"),
        ("{cpus_per_client: 2.5}", "short of 0.5 CPU"),
        ("{gpus_per_client: 3}", "short of 1 GPU"),
        ("{gpus_per_client: 16}", "short of 14 GPU"),
        ("{gpus_per_client: 1.5}", "whole number above 1, got 1.5"),
        ("{cpus_per_client: 4, gpus_per_client: 3}", "short of 2 CPU and 1 GPU"),
        ("{slots: 3}", "3 clients at 1 CPU and 0 GPU must fit, got 2"),
        ("{cpus_per_client: 2, slots: 2}", "2 clients at 2 CPU and 0 GPU must fit, got 1"),
        ("{cpus_per_client: 0.1, gpus_per_client: 1, slots: 3}", "must fit, got 2"),
        ("{cpus_per_client: 0.1, gpus_per_client: 0.6, slots: 3}", "must fit, got 2"),  # each on one GPU, though 3 go into 2
        ("{cpus_per_client: 0.1, gpus_per_client: 0.4, slots: 5}", "must fit, got 4"),
    ],
)
def test_it_is_refused_within_seconds_with_the_shortfall(
    resources: str, words: str, load: Callable[..., Any], tmp_path: Path
) -> None:
    plan = Plan(tmp_path / "run", "fedavg", load("method={name: fedavg}", f"resources={resources}"), tmp_path)
    start_s = time.monotonic()
    with pytest.raises(ResourceError, match=words):
        launch([plan], backend="ray")
    assert time.monotonic() - start_s < 5
    assert not plan.run_dir.exists()


def test_a_full_check_of_this_machine_runs_something_on_ray() -> None:
    from typer.testing import CliRunner

    from raykd.cli import app

    ended = CliRunner().invoke(app, ["doctor", "--full", "--json"])
    levels = {check["name"]: check["level"] for check in json.loads(ended.stdout)}
    assert levels["Ray at local"] == "fine"
    assert [level for name, level in levels.items() if name.startswith("node ")] == ["fine"]


def test_a_folder_that_a_node_does_not_see_is_named_with_the_node(tmp_path: Path) -> None:
    import ray

    from raykd.runtime.ray_nodes import refuse_hidden

    refuse_hidden([tmp_path])
    with pytest.raises(ResourceError, match="does not see /no/such/folder") as refused:
        refuse_hidden([tmp_path, Path("/no/such/folder")])
    assert ray.nodes()[0]["NodeManagerAddress"] in str(refused.value)
