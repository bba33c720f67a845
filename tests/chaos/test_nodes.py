"""Nodes of a cluster killed at random moments. `$RAYKD_CHAOS_NODES` says how often, `$RAYKD_CHAOS_SEED` when."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import faults
import pytest
import yaml

from raykd.runtime.descendants import descendants

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]
KILLS = int(os.environ.get("RAYKD_CHAOS_NODES", "20"))
SEED = int(os.environ.get("RAYKD_CHAOS_SEED", str(time.time_ns() % 10**6)))
BIN = Path(sys.executable).parent
OPTIONS = ("--set", "method={name: scaffold}", "--set", "federation.rounds=8", "--quiet")


class Cluster:
    """A head and one more node, of one CPU each, on this machine; killed with all that they started."""

    def __init__(self, folder: Path):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        self.env |= {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(faults.ROOT)}
        self._log = folder / "ray.log"
        self._num_started = 0
        port = self.address.rpartition(":")[2]
        self.head = self._start(f"--port={port}", "--head", "--include-dashboard=false", f"--temp-dir={folder}")

    def add_node(self) -> subprocess.Popen[bytes]:
        """Starts one more node."""
        return self._start(f"--address={self.address}")

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        base = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", "--num-cpus=1", "--object-store-memory=100000000"]
        with self._log.open("a") as log:
            node = subprocess.Popen([*base, *options], env=self.env, stdout=log, stderr=log, start_new_session=True)
        self._num_started += 1
        assert faults.wait_for(lambda: self._log.read_text().count("Ray runtime started") >= self._num_started, 120)
        return node


def kill(node: subprocess.Popen[bytes]) -> None:
    """Takes a node's power away."""
    for pid in [node.pid, *descendants(node.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.wait()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a cluster's files go: the path of a socket has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="rk", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def straight(tiny: dict[str, Any], outcome_at: Callable[[Path], Any], tmp_path: Path) -> Any:
    """The undisturbed run."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    words = [sys.executable, "-m", "raykd.cli", "run", str(tmp_path / "tiny.yaml"), *OPTIONS, "--backend", "in-process"]
    env = {**os.environ, "PYTHONPATH": str(faults.ROOT)}
    subprocess.run([*words, "--out", str(tmp_path / "straight")], check=True, env=env, capture_output=True)
    return outcome_at(tmp_path / "straight")


def _command(cluster: Cluster, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "raykd.cli", *words, "--address", cluster.address]
    return subprocess.Popen(command, env=cluster.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _is_under_way(run: Path, command: subprocess.Popen[str]) -> bool:
    """Whether its first checkpoint is there; a command that ended has no more to come."""
    return command.poll() is not None or any((run / "checkpoints").glob("round-*.json"))


def test_a_node_is_killed_at_random_moments(
    straight: Any,
    folder: Path,
    outcome_at: Callable[[Path], Any],
    assert_same_tables: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every run loses the node that the driver is not on, and ends on the other one, or is resumed there."""
    rng, cluster, counts = random.Random(SEED), Cluster(folder), Counter[str]()
    try:
        for number in range(KILLS):
            node, run = cluster.add_node(), tmp_path / f"run-{number}"
            command = _command(cluster, "run", str(tmp_path / "tiny.yaml"), *OPTIONS, "--out", str(run))
            assert faults.wait_for(lambda command=command, run=run: _is_under_way(run, command), 300)
            time.sleep(rng.uniform(0.0, 2.0))
            counts["while it ran"] += command.poll() is None
            kill(node)
            _, err = command.communicate()
            assert command.returncode in (0, 3) and "Traceback" not in err, err
            if command.returncode:
                counts["resumed"] += 1
                again = _command(cluster, "resume", str(run), "--quiet")
                _, err = again.communicate()
                assert again.returncode == 0, err
            other = outcome_at(run)
            assert_same_tables(straight, other, but=("events",))
            assert other.models == straight.models
            counts["told of in events"] += int((other.run.table("events")["kind"] == "worker_lost").sum())
    finally:
        kill(cluster.head)
    with capsys.disabled():
        told = ", ".join(f"{count} {what}" for what, count in counts.items())
        print(f"\nseed {SEED}: {KILLS} nodes killed, {told}; every run as the undisturbed")  # noqa: T201
    assert counts["while it ran"] > 0


def test_the_head_is_killed_and_the_run_goes_on_on_another_cluster(
    straight: Any,
    folder: Path,
    outcome_at: Callable[[Path], Any],
    assert_same_tables: Callable[..., None],
    tmp_path: Path,
) -> None:
    (folder / "first").mkdir()
    (folder / "other").mkdir()
    cluster, run = Cluster(folder / "first"), tmp_path / "run"
    node = cluster.add_node()
    command = _command(cluster, "run", str(tmp_path / "tiny.yaml"), *OPTIONS, "--out", str(run))
    try:
        assert faults.wait_for(lambda: _is_under_way(run, command), 300)
    finally:
        kill(cluster.head)
    _, err = command.communicate()
    kill(node)
    assert command.returncode in (2, 3) and "Traceback" not in err, err
    assert "raykd resume" in err
    other = Cluster(folder / "other")
    try:
        again = _command(other, "resume", str(run), "--quiet")
        _, err = again.communicate()
    finally:
        kill(other.head)
    assert again.returncode == 0, err
    assert_same_tables(straight, outcome_at(run), but=("events",))
    assert outcome_at(run).models == straight.models
