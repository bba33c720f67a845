"""What is left after a crash, a full disk or a flipped bit."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pandas as pd
import pytest

from raykd import failpoints
from raykd.results.checksums import findings
from raykd.results.writer import is_vacant
from raykd.scenario.errors import RaykdError

METHOD = "method={name: scaffold}"
FEW = (
    "begin.after_manifest",
    "write.before_rename@12",
    "checkpoint.before_index@2",
    "models.before_write@2",
    "status.after_done",
)


@pytest.fixture(scope="session")
def context() -> Any:
    return faults.context()


@pytest.fixture
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("write.before_renam=kill", "did you mean 'write.before_rename'?"),
        ("write.before_rename=die", "kill|exit:CODE|raise"),
        ("write.before_rename=raise:ENOTHING", "must be SITE="),
        ("write.before_rename", "must be SITE="),
        ("write.before_rename=kill@0", "must be SITE="),
    ],
)
def test_a_misspelt_failpoint_is_refused(rules: str, words: str, disarmed: None) -> None:
    with pytest.raises(RaykdError, match="RAYKD_FAILPOINTS") as refusal:
        failpoints.arm(rules)
    assert words in str(refusal.value)


def test_a_failpoint_acts_at_its_passing_alone(disarmed: None) -> None:
    failpoints.arm("table.before_part=raise:EFBIG@2; table.after_part=raise")
    failpoints.failpoint("table.before_part")
    with pytest.raises(OSError) as raised:
        failpoints.failpoint("table.before_part")
    assert raised.value.errno == errno.EFBIG
    failpoints.failpoint("table.before_part")
    with pytest.raises(OSError) as raised:
        failpoints.failpoint("table.after_part")
    assert raised.value.errno == errno.ENOSPC


def test_every_site_is_somewhere_in_the_code() -> None:
    modules = (path for path in (faults.ROOT / "raykd").rglob("*.py") if path.name != "failpoints.py")
    text = "".join(path.read_text(encoding="utf-8") for path in modules)
    assert [site for site in failpoints.SITES if f'failpoint("{site}")' not in text] == []


@pytest.mark.parametrize("site", FEW)
def test_killed_at_a_failpoint_and_resumed_it_ends_as_if_nothing_had_happened(
    site: str,
    context: Any,
    load: Callable[..., Any],
    run: Callable[..., Any],
    outcome_at: Callable[[Path], Any],
    assert_same_tables: Callable[..., None],
    tmp_path: Path,
) -> None:
    place, _, number = site.partition("@")
    undisturbed = run(METHOD)
    process = faults.start(context, load(METHOD), tmp_path / "run", f"{place}=kill@{number or 1}")
    process.join()
    assert process.exitcode == -9
    if faults.status(tmp_path / "run"):
        assert not [f for f in findings(tmp_path / "run") if f.state != "foreign"]  # a crash is no damage
    faults.finish(context, load(METHOD), tmp_path / "run")
    assert_same_tables(undisturbed, outcome_at(tmp_path / "run"))
    assert undisturbed.models == outcome_at(tmp_path / "run").models
    assert findings(tmp_path / "run") == []


@pytest.mark.parametrize("site", ["write.before_fsync@1", "write.before_fsync@4", "checksums.after_note@11", "models.before_write"])
def test_a_full_disk_fails_the_run_with_a_sentence_and_it_goes_on_later(
    site: str, context: Any, load: Callable[..., Any], run: Callable[..., Any], outcome_at: Callable[[Path], Any], tmp_path: Path
) -> None:
    place, _, number = site.partition("@")
    process = faults.start(context, load(METHOD), tmp_path / "run", f"{place}=raise@{number or 1}")
    process.join()
    said = (tmp_path / "failure").read_text()
    assert process.exitcode == 3 and "No space left on device" in said and "\n" not in said
    if faults.status(tmp_path / "run"):
        assert faults.status(tmp_path / "run") == "failed" and f"raykd resume {tmp_path / 'run'}" in said
        assert findings(tmp_path / "run") == []
    else:
        assert is_vacant(tmp_path / "run") and "run it again into" in said
    faults.finish(context, load(METHOD), tmp_path / "run")
    assert outcome_at(tmp_path / "run").models == run(METHOD).models


def test_a_limit_on_the_size_of_files_is_told_as_one_sentence(tiny: dict[str, Any], tmp_path: Path) -> None:
    import yaml

    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    words = ["run", str(tmp_path / "tiny.yaml"), "--backend", "in-process", "--quiet", "--out", str(tmp_path / "run")]
    words += ["--set", METHOD]
    ended = subprocess.run(
        [sys.executable, "-m", "raykd.cli", *words],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)),
        env={**os.environ, "RAYKD_CACHE": os.environ["RAYKD_CACHE"], "PYTHONPATH": str(faults.ROOT)},
    )
    assert ended.returncode == 3, ended.stderr
    assert "File too large" in ended.stderr and len(ended.stderr.splitlines()) == 1
    assert findings(tmp_path / "run") == [] if faults.status(tmp_path / "run") else is_vacant(tmp_path / "run")


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != "run.lock")


def test_a_flipped_bit_and_a_cut_are_found_in_every_file(run: Callable[..., Any], tmp_path: Path) -> None:
    folder = shutil.copytree(run(METHOD).path, tmp_path / "run")
    assert findings(folder) == []
    rng = random.Random(5)
    for name in _files(folder):
        whole = (folder / name).read_bytes()
        for _ in range(4):
            at = rng.randrange(len(whole))
            flipped = bytearray(whole)
            flipped[at] ^= 1 << rng.randrange(8)
            for content in (bytes(flipped), whole[:at]):
                (folder / name).write_bytes(content)
                assert findings(folder), (name, at, len(content))
        (folder / name).unlink()
        assert findings(folder), name
        (folder / name).write_bytes(whole)
    (folder / "tables/cases/zz.parquet").write_bytes(b"x")
    assert [(f.path, f.state) for f in findings(folder)] == [("tables/cases/zz.parquet", "unexpected")]


def test_the_checksums_are_those_that_sha256sum_reads(run: Callable[..., Any]) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not there")
    done = subprocess.run(["sha256sum", "--check", "--quiet", "checksums.sha256"], cwd=run(METHOD).path, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("harm", ["index", "file", "all"])
def test_damaged_checkpoints_are_never_used(
    harm: str, context: Any, load: Callable[..., Any], run: Callable[..., Any], outcome_at: Callable[[Path], Any], tmp_path: Path
) -> None:
    process = faults.start(context, load(METHOD), tmp_path / "run", "models.before_write=kill")
    process.join()
    files = sorted((tmp_path / "run/checkpoints").iterdir())
    if harm != "all":
        files = [path for path in files if path.suffix == (".json" if harm == "index" else ".pack")][-1:]
    for path in files:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    assert {f.path for f in findings(tmp_path / "run")} == {f"checkpoints/{path.name}" for path in files}
    faults.finish(context, load(METHOD), tmp_path / "run")
    assert outcome_at(tmp_path / "run").models == run(METHOD).models
    assert findings(tmp_path / "run") == []
    assert "is damaged and was passed over" in (tmp_path / "run/run.log").read_text()


def test_a_run_with_a_damaged_table_is_not_gone_on_with(context: Any, load: Callable[..., Any], tmp_path: Path) -> None:
    from raykd.resume import resume_plan

    faults.start(context, load(METHOD), tmp_path / "run", "models.before_write=kill").join()
    part = tmp_path / "run/tables/cases/round-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(RaykdError, match=r"tables/cases/round-00000\.parquet is damaged; see `raykd verify"):
        resume_plan(tmp_path / "run")


def _command(*words: str) -> tuple[int, str]:
    """Exit code and standard output of a command in this process."""
    from typer.testing import CliRunner

    from raykd.cli import app

    ended = CliRunner().invoke(app, list(words))
    return ended.exit_code, ended.stdout


def test_verify_names_what_is_wrong_and_what_to_do(run: Callable[..., Any], tmp_path: Path) -> None:
    folder = shutil.copytree(run(METHOD).path, tmp_path / "run")
    (folder / "notes.txt").write_text("a note")
    for path in ("report.html", "report.md", "export/cases.csv", "export/figures/dsc.png"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("what raykd makes of a run")
    code, out = _command("verify", str(folder))
    assert code == 0 and "sound" in out and "notes.txt: foreign" in out
    assert "report." not in out and "export" not in out
    (folder / "models/global.safetensors").unlink()
    code, out = _command("verify", str(folder), "--json")
    told = {row["path"]: row["state"] for row in json.loads(out)}
    assert code == 3 and told == {"models/global.safetensors": "missing", "notes.txt": "foreign"}


def test_reproduce_says_identical_and_tells_what_differs(run: Callable[..., Any], tmp_path: Path) -> None:
    from raykd.reproduction import differences
    from raykd.results.comparison import DIFFERENT, IDENTICAL, verdict
    from raykd.results.reader import open_run

    code, out = _command("reproduce", str(run(METHOD).path), "--out", str(tmp_path / "again"), "--backend", "in-process", "-q")
    assert code == 0 and IDENTICAL in out and out.splitlines()[-1] == str(tmp_path / "again")
    other = run(METHOD, "training.learning_rate=0.01").run
    found = differences(open_run(run(METHOD).path), other)
    assert verdict(found) == DIFFERENT
    assert any(difference.where == "training.loss_total" for difference in found)


def test_a_voxel_in_the_next_bin_of_confidence_is_no_difference(tmp_path: Path) -> None:
    """Bins have a row where they hold a voxel, so that rounding may give a run a row more."""
    from raykd.results.comparison import table_differences
    from raykd.results.reader import open_run
    from raykd.results.writer import RunWriter, new_manifest

    def written(name: str, *bins: tuple[int, int, float]) -> Any:
        (tmp_path / name).mkdir()
        writer = RunWriter(tmp_path / name, {"run_id": name, "scenario": "s", "method": "m", "seed": 0})
        writer.write_manifest(new_manifest("0", name))
        (tmp_path / name / "scenario.yaml").write_text("name: s\n")
        key = {"round": 1, "client_id": 0, "split": "test", "case_id": "c", "model": "global", "num_correct": 1}
        rows = [{**key, "bin_index": i, "num_voxels": num, "sum_confidence": sure} for i, num, sure in bins]
        writer.write("calibration", rows, "all")
        return open_run(tmp_path / name)

    one, other = written("one", (13, 2, 1.85), (14, 2, 1.9)), written("other", (12, 1, 0.87), (13, 2, 1.85), (14, 1, 1.03))
    (counted,) = table_differences(one, other)
    assert (counted.where, counted.is_within) == ("calibration.num_correct", False)
    assert [found.where for found in table_differences(one, written("few", (14, 3, 2.8)))][:2] == [
        "calibration.num_voxels",
        "calibration.sum_confidence",
    ]


@pytest.mark.parametrize(("change", "said"), [(0.0, "IDENTICAL"), (0.005, "WITHIN TOLERANCE"), (0.02, "DIFFERENT")])
def test_a_score_may_be_apart_by_its_tolerance(change: float, said: str) -> None:
    from raykd.results.comparison import _column_difference, verdict

    score = pd.Series([0.5, np.nan, 0.9])
    found = _column_difference("cases.dsc", score, score + change)
    assert verdict([found] if found else []) == said
