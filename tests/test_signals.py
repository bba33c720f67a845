"""Ctrl-C and SIGTERM, once and twice, in this process and on Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import faults
import pytest
import yaml

pytestmark = pytest.mark.slow


def _session(leader: int | str) -> list[int]:
    """Processes of a session, Ray's among them as long as they stay in it, and those that descend from them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            environ = (stat.parent / "environ").read_bytes()
        except OSError:
            continue
        if fields[0] != "Z" and f"RAYKD_TEST_LEADER={leader}".encode() in environ:
            found.append(int(stat.parent.name))
    return found


@pytest.fixture
def begun(tiny: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """A run in its first rounds, and a mark by which its processes are known."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny | {"method": {"name": "fedavg"}}))
    mark = os.getpid() * 1000 + len(request.node.name)
    words = [sys.executable, "-m", "raykd.cli", "run", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run")]
    words += ["--set", "federation.rounds=500", "--backend", request.param]
    env = {**os.environ, "RAYKD_TEST_LEADER": str(mark), "PYTHONPATH": str(faults.ROOT)}
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env, start_new_session=True)
    try:
        assert faults.wait_for(lambda: any((tmp_path / "run/checkpoints").glob("round-*[1-9].json")), 240)
        yield process, mark
    finally:
        for pid in _session(mark):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("begun", ["in-process", "ray"], indirect=True)
def test_sigterm_ends_with_143_and_says_how_to_go_on(begun: Any, tmp_path: Path) -> None:
    process, mark = begun
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert f"`raykd resume {tmp_path / 'run'}` goes on" in err and "Traceback" not in err
    assert faults.status(tmp_path / "run") == "interrupted"
    assert faults.wait_for(lambda: not _session(mark), 10)


@pytest.mark.parametrize("begun", ["in-process", "ray"], indirect=True)
def test_a_second_ctrl_c_ends_at_once_and_leaves_no_process(begun: Any, tmp_path: Path) -> None:
    process, mark = begun
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode in (130, -signal.SIGINT)  # the second may find it in the last moment of its leaving
    assert faults.wait_for(lambda: not _session(mark), 10)


@pytest.mark.parametrize("begun", ["ray"], indirect=True)
def test_a_command_that_is_killed_leaves_no_process(begun: Any) -> None:
    process, mark = begun
    process.kill()
    process.communicate(timeout=10)
    assert faults.wait_for(lambda: not _session(mark), 10)


def test_a_scenario_that_is_refused_leaves_no_process(tmp_path: Path) -> None:
    """Ray begins to start before the scenario is read."""
    (tmp_path / "bad.yaml").write_text("name: bad\n")
    words = [sys.executable, "-m", "raykd.cli", "run", str(tmp_path / "bad.yaml")]
    env = {**os.environ, "RAYKD_TEST_LEADER": "refused", "PYTHONPATH": str(faults.ROOT)}
    ended = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2 and "clients" in ended.stderr and "Traceback" not in ended.stderr, ended.stderr
    assert faults.wait_for(lambda: not _session("refused"), 10)
