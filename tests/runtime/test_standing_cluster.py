"""A cluster that was there before, with token authentication, used from programs of their own as a user would."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from raykd.runtime.descendants import descendants

TOKEN = "a-token-of-the-tests-0123456789abcdef"
BIN = Path(sys.executable).parent
FEDAVG = ("--set", "method={name: fedavg}", "--set", "evaluation.every=1")
Command = Callable[..., subprocess.CompletedProcess[str]]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, dict[str, str]]]:
    """Its address, and an environment that holds its token in a file; of two nodes with two CPUs each."""
    folder = Path(tempfile.mkdtemp(prefix="rk", dir="/tmp"))
    (folder / ".ray").mkdir()
    (folder / ".ray" / "auth_token").write_text(TOKEN)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    environment |= {"HOME": str(folder), "RAYKD_CACHE": str(folder / "cache"), "PYTHONPATH": str(Path(__file__).parents[2])}
    address = f"127.0.0.1:{_free_port()}"
    base = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", "--num-cpus=2", "--object-store-memory=100000000"]
    head = [f"--port={address.rpartition(':')[2]}", "--head", "--include-dashboard=false", f"--temp-dir={folder}"]
    started = list[subprocess.Popen[bytes]]()
    try:
        with (folder / "ray.log").open("w") as log:
            for options in (head, [f"--address={address}"]):
                own = {**environment, "RAY_AUTH_MODE": "token"}
                started.append(subprocess.Popen([*base, *options], env=own, stdout=log, stderr=log, start_new_session=True))
                _wait_for(lambda: (folder / "ray.log").read_text().count("Ray runtime started") >= len(started))
        yield address, environment
    finally:
        for process in reversed(started):
            _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _end(node: subprocess.Popen[bytes]) -> None:
    """Asks a node to end, and ends it with all that it started where it does not."""
    below = descendants(node.pid)
    node.send_signal(signal.SIGTERM)
    try:
        node.wait(30)
    except subprocess.TimeoutExpired:
        for pid in [node.pid, *below]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()


def _wait_for(is_there: Callable[[], bool], timeout_s: float = 60) -> None:
    end_s = time.monotonic() + timeout_s
    while not is_there():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.2)


@pytest.fixture
def raykd(cluster: tuple[str, dict[str, str]], tmp_path: Path) -> Command:
    """Runs a command to its end, told of the cluster by its option."""

    def raykd(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "raykd"), *map(str, words), "--address", cluster[0]]
        own = {**cluster[1], **environment}
        return subprocess.run(command, env=own, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)

    return raykd


@pytest.fixture
def scenario(tiny: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny))
    return path


def test_a_wrong_token_and_none_are_told_apart_and_in_time(raykd: Command, scenario: Path, tmp_path: Path) -> None:
    for environment, words in (
        ({"RAY_AUTH_TOKEN": "another-token-0123456789"}, "refused the token"),
        ({"HOME": str(tmp_path)}, "wants a token"),
        ({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE is disabled"),
    ):
        start_s = time.monotonic()
        ended = raykd("run", scenario, "--out", tmp_path / "out", **environment)
        assert time.monotonic() - start_s < 15
        assert ended.returncode == 2 and words in ended.stderr and "Traceback" not in ended.stderr, ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_token_at_hand_is_kept_from_a_cluster_that_wants_none(cluster: tuple[str, dict[str, str]], scenario: Path) -> None:
    """Ray would show it, expect it in turn, and be lost to a cluster that has none."""
    folder, address = Path(tempfile.mkdtemp(prefix="rk", dir="/tmp")), f"127.0.0.1:{_free_port()}"
    start = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", "--num-cpus=2", "--object-store-memory=100000000"]
    start += [f"--port={address.rpartition(':')[2]}", "--head", "--include-dashboard=false", f"--temp-dir={folder}"]
    with (folder / "ray.log").open("w") as log:
        own = {**cluster[1], "RAY_AUTH_MODE": "disabled"}
        head = subprocess.Popen(start, env=own, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(lambda: "Ray runtime started" in (folder / "ray.log").read_text())
        command = [str(BIN / "raykd"), "run", str(scenario), *FEDAVG, "--out", str(folder / "run"), "--address", address]
        ended = subprocess.run(command, env=cluster[1], capture_output=True, text=True, timeout=200, check=False)
        assert ended.returncode == 0, ended.stderr
    finally:
        _end(head)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_nodes_give_the_tables_of_one_process_and_no_token_is_written(
    raykd: Command,
    scenario: Path,
    tmp_path: Path,
    run: Callable[..., Any],
    outcome_at: Callable[[Path], Any],
    assert_same_tables: Callable[..., None],
) -> None:
    ended = raykd("run", scenario, *FEDAVG, "--set", "resources.slots=3", "--out", "out")  # more than one node has
    assert ended.returncode == 0, ended.stderr
    there, here = outcome_at(tmp_path / "out"), run("method={name: fedavg}", "evaluation.every=1")
    assert there.run.manifest["num_slots"] == 3
    assert_same_tables(there, here)
    assert there.models == here.models
    assert all(TOKEN.encode() not in file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_detached_run_is_seen_and_stopped_and_leaves_no_driver_behind(raykd: Command, scenario: Path, tmp_path: Path) -> None:
    out = tmp_path / "detached"
    long = ("--set", "federation.rounds=4000")
    started = raykd("run", scenario, *FEDAVG, *long, "--out", out, "--detach")
    assert started.returncode == 0 and started.stdout.strip() == str(out), started.stderr
    (row,) = json.loads(raykd("status", "--json").stdout)
    assert (row["name"], row["run_dir"]) == ("detached", str(out))
    again = raykd("resume", out, "--detach")
    assert again.returncode == 2 and "writes it" in again.stderr, again.stderr
    assert raykd("stop", out).returncode == 0
    attached = raykd("attach", "detached")
    assert attached.returncode == 130 and "raykd resume" in attached.stderr, attached.stderr
    assert json.loads((out / "manifest.json").read_text())["status"] == "interrupted"
    _wait_for(lambda: json.loads(raykd("status", "--json").stdout) == [])
    assert raykd("attach", out).returncode == 130  # by the manifest, the driver being gone
    unknown = raykd("attach", "nobody")
    assert unknown.returncode == 2 and "no driver nobody" in unknown.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_is_resumed_detached_and_ctrl_c_leaves_it_to_go_on(
    raykd: Command, cluster: tuple[str, dict[str, str]], scenario: Path, tmp_path: Path
) -> None:
    out = tmp_path / "resumed"
    long = ("--set", "federation.rounds=4000", "--backend", "in-process")
    words = [str(BIN / "raykd"), "run", str(scenario), *FEDAVG, *long, "--out", str(out)]
    first = subprocess.Popen(words, env=cluster[1], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait_for(lambda: any((out / "checkpoints").glob("*.json")), 200)
    first.kill()
    first.wait()
    resumed = raykd("resume", out, "--detach")
    assert resumed.returncode == 0 and resumed.stdout.strip() == str(out), resumed.stderr
    with (tmp_path / "progress").open("w") as progress:
        words = [str(BIN / "raykd"), "attach", "resumed", "--address", cluster[0]]
        following = subprocess.Popen(words, env=cluster[1], stderr=progress)
        _wait_for(lambda: "mean DSC" in (tmp_path / "progress").read_text(), 400)
        following.send_signal(signal.SIGINT)
        assert following.wait(60) == 130
    said = (tmp_path / "progress").read_text()
    assert "detached; the run goes on" in said and "Traceback" not in said
    (row,) = json.loads(raykd("status", "--json").stdout)
    assert (row["name"], row["status"]) == ("resumed", "running")
    assert raykd("stop", "resumed").returncode == 0
    _wait_for(lambda: json.loads((out / "manifest.json").read_text())["status"] == "interrupted")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_is_left_to_the_cluster_and_followed_to_its_end(raykd: Command, scenario: Path, tmp_path: Path) -> None:
    cells = {
        "name": "two",
        "base": scenario.name,
        "methods": [{"name": "local"}, {"name": "fedavg"}],
        "vary": {"federation.rounds": [300]},  # longer than a command takes to start
        "seeds": [1],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(cells))
    started = raykd("study", tmp_path / "study.yaml", "--out", tmp_path / "study", "--detach")
    assert started.returncode == 0 and started.stdout.strip() == str(tmp_path / "study"), started.stderr
    again = raykd("study", tmp_path / "study.yaml", "--out", tmp_path / "study", "--detach", "--continue")
    assert again.returncode == 2 and "writes it" in again.stderr, again.stderr
    followed = raykd("attach", tmp_path / "study")
    assert followed.returncode == 0 and followed.stdout.splitlines()[-1] == str(tmp_path / "study"), followed.stderr
    manifests = [json.loads(path.read_text()) for path in (tmp_path / "study").glob("*/manifest.json")]
    assert [manifest["status"] for manifest in manifests] == ["done", "done"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_doctor_looks_at_every_node_and_names_one_that_lacks_a_folder(raykd: Command, tmp_path: Path) -> None:
    ended = raykd("doctor", "--folder", tmp_path / "nowhere", "--json")
    checks = json.loads(ended.stdout)
    assert ended.returncode == 3
    assert [check["level"] for check in checks if check["name"].startswith("folder on")] == ["wrong", "wrong"]
    assert [check["level"] for check in checks if check["name"].startswith("node ")] == ["fine", "fine"]
    (token,) = [check for check in checks if check["name"] == "token"]
    assert token["level"] == "warning" and "chmod 600" in token["advice"]
    assert TOKEN not in ended.stdout
