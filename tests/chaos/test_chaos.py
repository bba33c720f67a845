"""Drivers and client actors killed at random moments. `$RAYKD_CHAOS_KILLS` says how often, `$RAYKD_CHAOS_SEED` when."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import pytest
import yaml

from raykd.failpoints import SITES
from raykd.results.checksums import findings

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]
KILLS = int(os.environ.get("RAYKD_CHAOS_KILLS", "50"))
SEED = int(os.environ.get("RAYKD_CHAOS_SEED", str(time.time_ns() % 10**6)))
OVERRIDES = ("method={name: scaffold}", "federation.rounds=4")


@pytest.fixture(scope="module")
def context() -> Any:
    return faults.context()


def _told(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with capsys.disabled():
        print(f"\n{text}")  # noqa: T201


def test_the_driver_is_killed_at_random_moments(
    context: Any,
    load: Callable[..., Any],
    run: Callable[..., Any],
    outcome_at: Callable[[Path], Any],
    assert_same_tables: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    undisturbed, scenario, rng = run(*OVERRIDES), load(*OVERRIDES), random.Random(SEED)
    needed = len(undisturbed.table("training"))
    for name in ("warm", "timed"):  # the first starts the server, imports and fills the cache
        (tmp_path / name).mkdir()
        begin = time.monotonic()
        faults.finish(context, scenario, tmp_path / name / "run")
    span_s, num_kills, num_runs, done, repeated = time.monotonic() - begin, 0, 0, 0, 0
    while num_kills < KILLS:
        folder = tmp_path / f"{num_runs}" / "run"
        folder.parent.mkdir()
        while num_kills < KILLS and faults.status(folder) != "done":
            process = faults.start(context, scenario, folder)
            process.join(rng.uniform(0.0, span_s))
            if process.exitcode is None:
                process.kill()
                process.join()
                num_kills += process.exitcode == -signal.SIGKILL
            else:
                assert process.exitcode == 0
            if faults.status(folder):
                assert [f for f in findings(folder) if f.state != "foreign"] == []
        faults.finish(context, scenario, folder)
        finished = outcome_at(folder)
        assert_same_tables(undisturbed, finished)
        assert finished.models == undisturbed.models
        assert findings(folder) == []
        num_runs, done, repeated = num_runs + 1, done + needed, repeated + len(faults.work(folder)) - needed
    _told(
        capsys,
        f"seed {SEED}: {num_kills} kills of the driver over {num_runs} runs, every one as the undisturbed; "
        f"{done} local updates needed, {repeated} repeated, 0 lost",
    )


def test_the_driver_is_killed_at_every_failpoint(
    context: Any,
    load: Callable[..., Any],
    run: Callable[..., Any],
    outcome_at: Callable[[Path], Any],
    assert_same_tables: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One run for all sites: killed at each in turn, and resumed; a site that only a beginning or an end has takes a run anew."""
    undisturbed, scenario, killed = run(*OVERRIDES), load(*OVERRIDES), list[str]()
    for number, site in enumerate(site for site in SITES if not site.startswith("mirror.")):  # only runs in stores pass those
        folder = tmp_path / f"{number}" / "run"
        folder.parent.mkdir()
        if site == "resume.after_sweep":
            faults.start(context, scenario, folder, "round.after_replies=kill").join()
        process = faults.start(context, scenario, folder, f"{site}=kill@{random.Random(f'{SEED}{site}').randint(1, 2)}")
        process.join()
        if process.exitcode == 0:  # passed once in this run
            folder = tmp_path / f"{number}-first" / "run"
            folder.parent.mkdir()
            if site == "resume.after_sweep":
                faults.start(context, scenario, folder, "round.after_replies=kill").join()
            process = faults.start(context, scenario, folder, f"{site}=kill")
            process.join()
        assert process.exitcode == -signal.SIGKILL, site
        killed.append(site)
        faults.finish(context, scenario, folder)
        assert_same_tables(undisturbed, outcome_at(folder))
        assert outcome_at(folder).models == undisturbed.models
        assert findings(folder) == []
    _told(capsys, f"seed {SEED}: killed once at each of {len(killed)} failpoints, every run as the undisturbed")


def _actors_of(leader: int) -> list[int]:
    """Processes of client actors that descend from a process."""
    from raykd.runtime.descendants import descendants

    found = []
    for pid in descendants(leader):
        try:
            if b"ray::WorkerActor" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def test_client_actors_are_killed_at_random_moments(
    tiny: dict[str, Any],
    outcome_at: Callable[[Path], Any],
    assert_same_tables: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run of many rounds on Ray, its actors killed again and again; where one piece of work is lost too often, it is resumed."""
    rounds = max(20, 4 * KILLS)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny | {"method": {"name": "scaffold"}}))
    words = [sys.executable, "-m", "raykd.cli"]
    options = ["--set", f"federation.rounds={rounds}", "--set", "evaluation.every=50", "--quiet"]
    env = {**os.environ, "PYTHONPATH": str(faults.ROOT)}
    scenario = str(tmp_path / "tiny.yaml")
    straight = [*words, "run", scenario, *options, "--backend", "in-process", "--out", str(tmp_path / "straight")]
    subprocess.run(straight, check=True, env=env, capture_output=True)
    rng, num_kills, num_resumed = random.Random(SEED), 0, 0
    command = [*words, "run", scenario, *options, "--out", str(tmp_path / "run")]
    while faults.status(tmp_path / "run") != "done":
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        next_kill = time.monotonic() + rng.uniform(0.0, 30.0)  # while workers start, or in a round
        while process.poll() is None:
            is_under_way = (tmp_path / "run/checkpoints").is_dir()
            if num_kills < KILLS and is_under_way and time.monotonic() > next_kill and (actors := _actors_of(process.pid)):
                os.kill(rng.choice(actors), signal.SIGKILL)
                num_kills += 1
                next_kill = time.monotonic() + rng.uniform(0.5, 6.0)
            time.sleep(0.05)
        _, err = process.communicate()
        assert process.returncode in (0, 3) and "Traceback" not in err, err
        num_resumed += process.returncode != 0
        command = [*words, "resume", str(tmp_path / "run"), "--quiet"]
    one, other = outcome_at(tmp_path / "straight"), outcome_at(tmp_path / "run")
    assert_same_tables(one, other, but=("events",))
    assert one.models == other.models
    events = other.run.table("events")
    num_told = int((events["kind"] == "worker_lost").sum())
    _told(
        capsys,
        f"seed {SEED}: {num_kills} kills of client actors in {rounds} rounds, {num_told} told of in events, "
        f"{num_resumed} times to be resumed; as the undisturbed run",
    )
    assert num_kills > 0
