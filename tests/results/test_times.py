"""What crosses the lines and where the time goes, on a run written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml

from raykd.results.questions import Comparison, stages, traffic
from raykd.results.reader import load_runs
from raykd.results.writer import RunWriter, new_manifest


def crossing(round_index: int, client_id: int, direction: str, kind: str, num_bytes: int, simulated_s: float) -> dict[str, Any]:
    place = {"round": round_index, "client_id": client_id, "direction": direction, "kind": kind, "codec": "none"}
    return {**place, "num_values": num_bytes // 4, "num_bytes": num_bytes, "simulated_s": simulated_s}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Two sites, two rounds of 10 s, two seeds alike; site 1 is late in round 1."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        path = root / f"run-{seed}"
        path.mkdir()
        writer = RunWriter(path, {"run_id": path.name, "scenario": "s", "method": "fedavg", "seed": seed})
        writer.write_manifest({**new_manifest("0", path.name), "status": "done", "deployed": "global"})
        (path / "scenario.yaml").write_text(yaml.safe_dump({"name": "s", "seed": seed, "method": {"name": "fedavg"}}))
        writer.write(
            "clients", [{"client_id": c, "group": "g", "client_name": f"site-{c}", "num_labelled": 2} for c in (0, 1)], "c"
        )
        rows = [crossing(-1, c, "down", "teacher", 900, 0.9) for c in (0, 1)]
        for index in (0, 1):
            rows += [crossing(index, c, "down", "params", 100, 0.5) for c in (0, 1)]
            rows += [crossing(index, c, "up", "params", 50 if (index, c) == (1, 1) else 100, 1.0) for c in (0, 1)]
        writer.write("transfers", rows, "t")
        writer.write("rounds", [{"round": index, "simulated_s": 10.0} for index in (0, 1)], "r")
        trained = [(0, 0, 2.0, 0), (0, 1, 8.0, 0), (1, 0, 2.0, 0), (1, 1, 8.0, 1)]
        training = [dict(zip(("round", "client_id", "simulated_s", "staleness"), values, strict=True)) for values in trained]
        writer.write("training", training, "t")
        writer.write("events", [{"round": 1, "client_id": 1, "kind": "straggler", "detail": "late"}], "e")
    return Comparison.of(load_runs([root]))


def test_traffic_is_told_by_stage_direction_and_kind_for_one_run(comparison: Comparison) -> None:
    table = traffic(comparison).set_index(["stage", "direction", "kind"])
    assert table.loc[("before the rounds", "down", "teacher"), "num_bytes"] == 1800
    assert np.isnan(table.loc[("before the rounds", "down", "teacher"), "bytes_per_site_round"])
    up = table.loc[("in the rounds", "up", "params")]
    assert (up["num_messages"], up["num_bytes"], up["bytes_per_message"], up["bytes_per_site_round"]) == (4, 350, 87.5, 87.5)


def test_what_is_left_of_the_rounds_is_waiting(comparison: Comparison) -> None:
    fast, slow = stages(comparison).to_dict("records")
    parts = ("hand_out_s", "download_s", "work_s", "upload_s", "wait_s")
    assert [fast[part] for part in parts] == [0.9, 1.0, 4.0, 2.0, 13.0]
    assert [slow[part] for part in parts] == [0.9, 1.0, 16.0, 2.0, 1.0]
    assert (slow["num_updates"], slow["num_late"], slow["mean_staleness"]) == (2, 1, 0.5) and fast["num_late"] == 0
