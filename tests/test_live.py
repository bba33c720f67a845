"""`raykd watch` on runs that go on, that ended and that died."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raykd.cli import main
from raykd.commands.looks import look
from raykd.results.writer import RunWriter, new_manifest

Watch = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Three of ten rounds, 60 s apart but for a pause of an hour before the third; the last client dropped out of it."""
    path = tmp_path / "run"
    path.mkdir()
    writer = RunWriter(path, {"run_id": "r", "scenario": "s", "method": "fedavg", "seed": 0})
    writer.write_manifest({**new_manifest("0", "r"), "method": "fedavg"})
    (path / "scenario.yaml").write_text("name: knees\nfederation: {rounds: 10}\n")
    (path / "run.log").write_text("[   1.0 s]   preparing data (2)\n[   9.0 s]   round 3: mean DSC 0.500 on held-out cases\n")
    writer.write("clients", [{"client_id": c, "group": "g", "client_name": f"site-{c}"} for c in range(2)], "all")
    for number, at_s in enumerate((1000, 1060, 4660)):
        trained = [{"round": number, "client_id": c, "loss_total": 1.0 - c / 2} for c in range(2 if number < 2 else 1)]
        writer.write("training", trained, f"round-{number}")
        writer.write(
            "rounds", [{"round": number, "num_selected": 2, "num_completed": len(trained), "wall_s": 50.0}], f"round-{number}"
        )
        os.utime(path / f"tables/rounds/round-{number}.parquet", (at_s, at_s))
    row = {"round": 2, "split": "test", "case_id": "c", "class_index": 1, "class_name": "a"}
    judged = [
        {**row, "client_id": c, "model": m, "dsc": d} for c in range(2) for m, d in (("global", 0.4 + c / 5), ("teacher", 0.0))
    ]
    writer.write("cases", judged, "round-2")
    writer.write("events", [{"round": 2, "client_id": 1, "kind": "dropout", "detail": "drawn"}], "round-2")
    return path


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Watch:
    def watch(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["raykd", "watch", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return watch


def test_a_run_that_goes_on(run_dir: Path) -> None:
    for number in (3, 4):
        writer = RunWriter(run_dir, {"run_id": "r", "scenario": "s", "method": "fedavg", "seed": 0})
        writer.write("rounds", [{"round": number, "num_selected": 2, "num_completed": 2}], f"round-{number}")
        os.utime(run_dir / f"tables/rounds/round-{number}.parquet", (4660 + 60 * (number - 2),) * 2)
    with (run_dir / "run.lock").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        seen = look(run_dir)
    assert not seen.is_over and seen.left_s == 60 * 5, "the pause is no round's length"
    assert [(row["round"], row["dsc"], row["loss"]) for row in seen.rounds][2] == (3, pytest.approx(0.5), 1.0)
    assert [(row["client"], row["round"], row["loss"], row["dsc"]) for row in seen.clients] == [
        ("site-0", 3, 1.0, pytest.approx(0.4)), ("site-1", 2, 0.5, pytest.approx(0.6))
    ]  # fmt: skip
    assert seen.num_events == {"dropout": 1} and seen.events[0]["client"] == "site-1"


def test_a_run_that_died_is_told_with_the_way_on(run_dir: Path, watch: Watch) -> None:
    code, out, _ = watch(run_dir)
    assert code == 0 and "knees, fedavg: died, round 3 of 10" in out and f"go on: raykd resume {run_dir}" in out
    assert "left" not in out.partition("\n")[0], "nobody works on it"
    assert "events: 1 dropout" in out
    told = json.loads(watch(run_dir, "--once", "--json")[1])
    assert told["state"]["status"] == "died" and told["clients"][1]["dsc"] == pytest.approx(0.6)


def test_what_is_no_run_is_refused(run_dir: Path, watch: Watch) -> None:
    for folder, words in (
        (run_dir.parent, "holds several runs and no study; watch one of them"),
        (run_dir / "tables", "not a run directory"),
    ):
        code, out, err = watch(folder)
        assert (code, out) == (2, "") and words in err and "Traceback" not in err
    (run_dir / "tables/cases/round-2.parquet").write_bytes(b"half")
    code, _, err = watch(run_dir, "--once")
    assert code == 2 and "is damaged" in err


def test_a_study_is_told_run_by_run(run_dir: Path, watch: Watch) -> None:
    """Of three runs one is going on, one is done, though its process still holds it, and one has not begun."""
    study, done = run_dir.parent, run_dir.parent / "done"
    shutil.copytree(run_dir, done)
    manifest = json.loads((done / "manifest.json").read_text())
    (done / "manifest.json").write_text(json.dumps({**manifest, "status": "done"}))
    cells = [{"cell": name} for name in ("done", "run", "later")]
    (study / "study.yaml").write_text(json.dumps({"name": "knees-study", "cells": cells}))
    with (run_dir / "run.lock").open("wb") as held, (done / "run.lock").open("wb") as ending:
        fcntl.flock(held, fcntl.LOCK_EX)
        fcntl.flock(ending, fcntl.LOCK_EX)
        code, out, _ = watch(study, "--once")
        told = json.loads(watch(study, "--once", "--json")[1])
    assert code == 0 and out.splitlines()[:2] == [
        "knees-study: 1 of 3 runs done, 1 running, 1 to do",
        "now knees, fedavg: running, round 3 of 10, about 7.0 h left",
    ]
    assert [line.split() for line in out.splitlines()[-3:]] == [
        ["done", "done", "3", "of", "10", "0.500"],
        ["run", "running", "3", "of", "10", "0.500"],
        ["later", "to", "do", "-", "-"],
    ]
    assert [cell["status"] for cell in told["cells"]] == ["done", "running", "to do"] and not told["is_over"]


def test_watching_a_study_ends_where_nobody_goes_on_with_it(run_dir: Path, watch: Watch) -> None:
    (run_dir.parent / "study.yaml").write_text(json.dumps({"name": "knees-study", "cells": [{"cell": "run"}, {"cell": "later"}]}))
    for path in run_dir.parent.rglob("*"):
        os.utime(path, (4660, 4660))
    code, out, _ = watch(run_dir.parent)
    assert code == 0 and out.startswith("knees-study: 0 of 2 runs done, 1 died, 1 to do\n")
