"""What a user types, reads and gets as exit code."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.main import get_command

from raykd.cli import app, main
from raykd.commands.shipped import Shipped, copies, shipped
from raykd.data.volume_io import write_nifti
from raykd.execution import only_writer
from raykd.results.reader import load_runs, open_run
from raykd.scenario.load import load_scenario, read_document
from raykd.scenario.prices import load_prices
from raykd.scenario.registry import METHODS
from raykd.scenario.study import base_document, load_study
from raykd.scenario.yaml_reader import read_yaml

FEDAVG = ("--set", "method={name: fedavg}", "--set", "federation.rounds=1")
IN_PROCESS = ("--backend", "in-process")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Raykd = Callable[..., Ended]


@pytest.fixture
def raykd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Raykd]:
    """Runs a command here, in an empty directory, and gives its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def raykd(*words: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["raykd", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Ended(ended.value.code if isinstance(ended.value.code, int) else -1, printed.out, printed.err)

    yield raykd
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def scenario(tiny: dict[str, Any], tmp_path: Path) -> Path:
    """The tiny scenario as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny))
    return path


def _refused(ended: Ended, *words: str) -> None:
    """Exit code 2, one sentence with these words on stderr, nothing on stdout, no traceback."""
    assert ended.code == 2, ended
    assert ended.out == ""
    assert all(word in ended.err for word in words), ended.err
    assert "Traceback" not in ended.err


def test_a_run_that_is_tried_again_is_begun_once_and_then_left_as_it_is(raykd: Raykd, scenario: Path, tmp_path: Path) -> None:
    command = ("run", scenario, *IN_PROCESS, *FEDAVG, "--out", tmp_path / "out", "--continue")
    assert raykd(*command).code == 0
    manifest = (tmp_path / "out" / "manifest.json").read_bytes()
    again = raykd(*command)
    assert (again.code, again.out) == (0, f"{tmp_path / 'out'}\n")
    assert (tmp_path / "out" / "manifest.json").read_bytes() == manifest
    _refused(raykd(*command, "--set", "seed=99"), "another scenario")
    (row,) = json.loads(raykd("status", tmp_path / "out", "--json").out)
    assert (row["status"], row["rounds_done"], row["rounds"], row["is_written"]) == ("done", 1, 1, False)


def test_a_run_whose_process_is_gone_is_called_dead_and_goes_on(raykd: Raykd, scenario: Path, tmp_path: Path) -> None:
    command = ("run", scenario, *IN_PROCESS, *FEDAVG, "--out", tmp_path / "out", "--continue")
    raykd(*command)
    file = tmp_path / "out" / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "status": "running"}))
    told = raykd("status", tmp_path / "out")
    assert "died" in told.out and f"raykd resume {tmp_path / 'out'}" in told.err
    assert raykd(*command).code == 0
    assert json.loads(file.read_text())["status"] == "done"


def test_detached_runs_need_a_standing_cluster(raykd: Raykd, scenario: Path, tmp_path: Path) -> None:
    _refused(raykd("run", scenario, "--detach", "--out", tmp_path / "out"), "standing cluster", "--address")
    _refused(raykd("run", scenario, "--detach", *IN_PROCESS, "--out", tmp_path / "out"), "--backend in-process")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "{scenario}", *IN_PROCESS, "--out", "a" * 256), "give another place with --out"),
        (("data", "check", "a" * 256), "file name too long; give a shorter name"),
        (("report", "a" * 256), "file name too long; give a shorter name"),
        (("verify", "a" * 256), "file name too long; give a shorter name"),
        (("resume", "a" * 256, *IN_PROCESS), "file name too long; give a shorter name"),
    ],
)
def test_what_the_operating_system_refuses_is_a_sentence(raykd: Raykd, scenario: Path, words: tuple[str, ...], said: str) -> None:
    _refused(raykd(*(word.format(scenario=scenario) for word in words)), said)


def test_a_current_directory_that_was_removed_is_a_sentence(raykd: Raykd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    _refused(raykd("list", "sources"), "the current directory cannot be used", "change to one that is there")


@pytest.mark.parametrize("place", ["argument", "cache", "directory"])
def test_a_place_whose_name_is_no_text_is_refused(
    raykd: Raykd, scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    if place == "cache":
        monkeypatch.setenv("RAYKD_CACHE", name)
    elif place == "directory":
        Path(name).mkdir()
        monkeypatch.chdir(name)
    out = Path(name if place == "argument" else tmp_path / "o")
    _refused(raykd("run", scenario, *IN_PROCESS, "--out", out), "text in UTF-8", "udcff")
    assert not out.exists()


def test_a_user_without_a_home_is_told_to_set_the_cache(raykd: Raykd, scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    for name in ("RAYKD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert raykd("check", scenario).code == 0  # phantoms are checked without the cache
    _refused(raykd("cache"), "got no home directory; set RAYKD_CACHE")
    levels = {check["name"]: check for check in json.loads(raykd("doctor", "--json").out)}
    assert levels["cache"]["level"] == "wrong" and "RAYKD_CACHE" in levels["cache"]["advice"] and levels["token"]["level"] == "fine"


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from raykd.data.cache import cached
    from raykd.scenario.errors import ResourceError

    (tmp_path / "file").touch()
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match=r"file: the cache cannot be written \(.*\); set RAYKD_CACHE"):
        cached("cases", "0" * 32, lambda: ({}, {}))


def test_a_user_without_a_name_gets_one_before_libraries_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    import getpass

    import raykd as package

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def no_entry(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", no_entry)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    package._name_user()
    assert getpass.getuser() == f"uid-{os.getuid()}"


@pytest.mark.parametrize(
    ("variables", "folder"),
    [({}, "/tmp"), ({"TMPDIR": "/a"}, "/a"), ({"TMPDIR": "/a", "RAY_TMPDIR": "/b"}, "/b")],
)
def test_the_doctor_looks_where_ray_will_put_its_files(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raykd.commands.checkup import temporary_directory

    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert temporary_directory() == Path(folder)


def test_the_doctor_finds_what_is_wrong_with_this_machine(raykd: Raykd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 30)))
    (tmp_path / ("long" * 30)).mkdir()
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").touch(mode=0o644)
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "file" / "cache"))
    ended = raykd("doctor", "--json")
    levels = {check["name"]: check["level"] for check in json.loads(ended.out)}
    assert ended.code == 3
    assert (levels["socket paths"], levels["cache"], levels["token"], levels["ray"]) == ("wrong", "wrong", "warning", "fine")
    assert all(check["advice"] for check in json.loads(ended.out) if check["level"] != "fine")


def test_run_ends_with_0_and_its_directory_in_the_last_line_of_stdout(raykd: Raykd, scenario: Path, tmp_path: Path) -> None:
    ended = raykd("run", scenario, *IN_PROCESS, *FEDAVG, "--out", tmp_path / "out")
    assert ended.code == 0
    assert ended.out.splitlines() == [str(tmp_path / "out")]
    assert open_run(tmp_path / "out").manifest["status"] == "done"


def test_progress_goes_to_stderr_and_quiet_silences_it(raykd: Raykd, scenario: Path) -> None:
    loud = raykd("run", scenario, *IN_PROCESS, *FEDAVG)
    quiet = raykd("run", scenario, *IN_PROCESS, *FEDAVG, "--quiet")
    assert "fedavg" in loud.err and "round 1" in loud.err
    assert (quiet.code, quiet.err) == (0, "")


def test_without_out_runs_are_numbered_by_name(raykd: Raykd, scenario: Path) -> None:
    words = ("run", scenario, *IN_PROCESS, "--set", "method={name: teacher_only}")
    assert [raykd(*words).out.strip() for _ in range(3)] == ["runs/tiny", "runs/tiny-2", "runs/tiny-3"]


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_word(raykd: Raykd, tiny: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "typo.yaml"
    path.write_text("rouns: 3\n" + yaml.safe_dump(tiny))
    _refused(raykd("run", path, *IN_PROCESS), "typo.yaml:1:1: rouns: unknown key")


def test_an_unknown_key_of_set_is_refused(raykd: Raykd, scenario: Path) -> None:
    _refused(raykd("run", scenario, "--set", "federation.roundz=3"), "federation.roundz", "did you mean 'rounds'?")


def test_a_missing_scenario_is_refused(raykd: Raykd) -> None:
    _refused(raykd("run", "nowhere.yaml"), "nowhere.yaml")


def test_a_directory_as_scenario_is_refused(raykd: Raykd, tmp_path: Path) -> None:
    _refused(raykd("run", tmp_path), str(tmp_path))


def test_no_scenario_at_all_is_refused(raykd: Raykd) -> None:
    _refused(raykd("run"), "SCENARIO")


def test_an_unknown_command_is_refused(raykd: Raykd) -> None:
    _refused(raykd("launch"), "launch")


def test_an_unknown_option_is_refused(raykd: Raykd, scenario: Path) -> None:
    _refused(raykd("run", scenario, "--rounds", "3"), "--rounds")


def test_an_output_that_is_not_empty_is_refused(raykd: Raykd, scenario: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    _refused(raykd("run", scenario, *IN_PROCESS, "--out", tmp_path / "out"), str(tmp_path / "out"), "--out")
    assert (tmp_path / "out/notes.txt").read_text() == "mine"


def test_an_output_that_is_a_file_is_refused(raykd: Raykd, scenario: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    _refused(raykd("run", scenario, *IN_PROCESS, "--out", tmp_path / "out"), str(tmp_path / "out"))


def test_an_output_below_a_file_is_refused(raykd: Raykd, scenario: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    _refused(raykd("run", scenario, *IN_PROCESS, "--out", tmp_path / "file/out"), str(tmp_path / "file"))


def test_an_output_where_nothing_can_be_written_is_refused(
    raykd: Raykd, scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`os.access` is made to say what it would of a read-only folder, because root may write everywhere."""
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and may(path, mode))
    _refused(raykd("run", scenario, *IN_PROCESS, "--out", tmp_path / "out"), "written", "--out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_backend_is_refused(raykd: Raykd, scenario: Path, tmp_path: Path) -> None:
    _refused(raykd("run", scenario, "--backend", "cloud", "--out", tmp_path / "out"), "ray or in-process", "'cloud'")
    assert not (tmp_path / "out").exists()


def test_a_study_is_refused_by_run_and_sent_to_study(raykd: Raykd, scenario: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("base: tiny.yaml\nseeds: [1, 2]\n")
    _refused(raykd("run", path), "raykd study")


def test_a_scenario_is_refused_by_study_and_sent_to_run(raykd: Raykd, scenario: Path) -> None:
    _refused(raykd("study", scenario), f"{scenario} is a scenario of one run; use `raykd run {scenario}`")


def test_study_runs_every_cell_and_ends_with_its_directory(raykd: Raykd, scenario: Path, tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text("base: tiny.yaml\nmethods: [{name: teacher_only}, {name: fedavg}]\nvary: {federation.rounds: [1]}\n")
    ended = raykd("study", path, *IN_PROCESS, "--out", tmp_path / "out")
    assert (ended.code, ended.out.splitlines()[-1]) == (0, str(tmp_path / "out"))
    manifests = [json.loads(file.read_text()) for file in (tmp_path / "out").rglob("manifest.json")]
    assert sorted((m["method"], m["status"]) for m in manifests) == [("fedavg", "done"), ("teacher_only", "done")]


def test_impossible_resources_are_refused_with_the_shortfall(
    raykd: Raykd, scenario: Path, tmp_path: Path, ray_cluster: None
) -> None:
    ended = raykd("run", scenario, "--set", "resources.cpus_per_client=64", "--out", tmp_path / "out")
    _refused(ended, "64 CPU", "short of 62 CPU", "resources.cpus_per_client")
    assert not (tmp_path / "out").exists()


def test_a_run_that_diverges_ends_with_3_and_says_why(raykd: Raykd, scenario: Path, tmp_path: Path) -> None:
    ended = raykd("run", scenario, *IN_PROCESS, *FEDAVG, "--set", "training.learning_rate=1e30", "--out", tmp_path / "out")
    assert ended.code == 3
    assert "the run failed" in ended.err and "learning_rate" in ended.err and str(tmp_path / "out") in ended.err
    assert "Traceback" not in ended.err


def test_contradictory_settings_are_refused_before_anything_starts(raykd: Raykd, scenario: Path, tmp_path: Path) -> None:
    words = ("--set", "method={name: dual_kd, preset: paper-intent}", "--out", tmp_path / "out")
    _refused(raykd("run", scenario, *IN_PROCESS, *words), "channel_kl", "ema", "one network")
    assert not (tmp_path / "out").exists()


def test_an_unknown_feature_layer_is_refused_with_those_that_there_are(raykd: Raykd, scenario: Path) -> None:
    words = ("--set", "method={name: dual_kd, feature_layers: [decoder_9]}")
    _refused(raykd("run", scenario, *IN_PROCESS, *words), "decoder_9", "bottleneck")


def test_check_says_that_a_scenario_is_fine(raykd: Raykd, scenario: Path) -> None:
    ended = raykd("check", scenario)
    assert ended.code == 0
    assert "fine" in ended.out and "3 clients" in ended.out


@pytest.fixture
def two_bad_files(tiny: dict[str, Any], tmp_path: Path) -> tuple[Path, Path]:
    """Two files with two problems each."""
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(yaml.safe_dump({**tiny, "seed": -1, "federation": {"rounds": 0}}))
    two.write_text(yaml.safe_dump({**tiny, "classes": [], "method": {"name": "fedavgg"}}))
    return one, two


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("- a list", "must be a block of keys"),
        ("name: [", "is not YAML"),
        ("extends: nowhere.yaml", "no such file"),
        ("base: nowhere.yaml\nseeds: [1]", "no such file"),
        ("base: 3\nseeds: [1]", "base: must be text"),
        ("nmae: knees\nseed: -1", "did you mean 'name'?"),
    ],
)
def test_check_of_what_needs_no_plug_in_imports_nothing_heavy(tmp_path: Path, text: str, rule: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    lines = ["import sys; from raykd.cli import main; sys.argv = ['raykd', 'check', 'a.yaml']", "try: main()"]
    lines += ["finally: print([name for name in ('torch', 'monai', 'pandas', 'ray', 'scipy') if name in sys.modules])"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout.strip()) == (2, "[]") and rule in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["quickstart", "scenarios/quickstart.yaml", "gallery/one-shot"])
@pytest.mark.parametrize("command", ["check", "plan", "run", "study"])
def test_a_shipped_name_that_is_no_file_says_how_to_get_the_file(
    raykd: Raykd, command: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = raykd(command, name)
    known = name.removeprefix("scenarios/").removesuffix(".yaml")
    assert ended.code == 2 and ended.err.startswith(f"{name}: no such file; `raykd new --from {known}` writes")


def test_check_lists_all_problems_of_all_files(raykd: Raykd, two_bad_files: tuple[Path, Path]) -> None:
    ended = raykd("check", *two_bad_files)
    assert ended.code == 2
    lines = ended.err.splitlines()
    assert len(lines) == 4
    for name, words in (("one", ("seed", "federation.rounds")), ("two", ("classes", "fedavgg"))):
        mine = [line for line in lines if f"{name}.yaml:" in line]
        assert len(mine) == 2
        assert all(any(word in line for line in mine) for word in words)


def test_check_as_json_holds_file_line_path_and_message(raykd: Raykd, two_bad_files: tuple[Path, Path]) -> None:
    ended = raykd("check", *two_bad_files, "--json")
    found = json.loads(ended.out)
    assert (ended.code, ended.err) == (2, "")
    assert sorted(Path(problem["file"]).name for problem in found) == ["one.yaml", "one.yaml", "two.yaml", "two.yaml"]
    assert all(problem["line"] > 0 and problem["message"] for problem in found)
    assert {"seed", "federation.rounds", "classes", "method.name"} == {problem["path"] for problem in found}


def test_check_as_json_of_a_fine_file_is_an_empty_list(raykd: Raykd, scenario: Path) -> None:
    ended = raykd("check", scenario, "--json")
    assert (ended.code, json.loads(ended.out)) == (0, [])


def test_check_does_not_stop_at_a_file_that_is_missing(raykd: Raykd, scenario: Path) -> None:
    ended = raykd("check", "nowhere.yaml", scenario)
    assert ended.code == 2
    assert "nowhere.yaml" in ended.err and "fine" in ended.out


def test_check_runs_nothing(raykd: Raykd, scenario: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    raykd("check", scenario)
    assert sorted(tmp_path.rglob("*")) == before


def test_list_names_every_method_with_a_summary(raykd: Raykd) -> None:
    ended = raykd("list", "methods")
    assert [line.split()[0] for line in ended.out.splitlines()] == METHODS.names()
    assert all(len(line.split()) > 2 for line in ended.out.splitlines())


def test_list_as_json_describes_settings(raykd: Raykd) -> None:
    rows = {row["name"]: row for row in json.loads(raykd("list", "methods", "--json").out)}
    assert list(rows) == METHODS.names()
    assert "weighting" in rows["fedavg"]["settings"]
    assert all(row["summary"] for row in rows.values())


@pytest.mark.parametrize(("kind", "word"), [("networks", "unet"), ("sources", "phantom"), ("shifts", "scanner")])
def test_list_knows_every_kind(raykd: Raykd, kind: str, word: str) -> None:
    ended = raykd("list", kind)
    assert ended.code == 0
    assert word in [line.split()[0] for line in ended.out.splitlines()]


def test_list_refuses_an_unknown_kind_with_the_nearest(raykd: Raykd) -> None:
    _refused(raykd("list", "method"), "'method'", "did you mean 'methods'?")


def test_schema_accepts_a_scenario_and_refuses_a_typo_in_it(raykd: Raykd, tiny: dict[str, Any]) -> None:
    schema = json.loads(raykd("schema").out)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert validator.is_valid(tiny)
    assert not validator.is_valid({**tiny, "federation": {"roundz": 2}})
    assert not validator.is_valid({**tiny, "method": {"name": "no_such_method"}})


def test_version_is_printed(raykd: Raykd) -> None:
    import raykd as package

    ended = raykd("--version")
    assert (ended.code, ended.out.strip()) == (0, package.__version__)


@pytest.mark.parametrize("words", [["-h"], ["plan", "-h"], ["data", "-h"], ["data", "check", "-h"], ["cache", "prune", "-h"]])
def test_h_is_help(raykd: Raykd, words: list[str]) -> None:
    ended = raykd(*words)
    assert ended.code == 0 and ended.out.startswith("Usage: raykd") and "-h, --help" in ended.out


def test_help_shows_every_command_once_under_a_heading(raykd: Raykd) -> None:
    lines = raykd("--help").out.split("Begin:\n")[1].splitlines()
    headings = [line.rstrip(":") for line in lines if line and not line.startswith(" ")]
    assert headings == ["Run", "Follow", "Results", "Machine"]
    shown = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    assert sorted(shown) == sorted(get_command(app).commands)  # type: ignore[attr-defined]
    assert not any(line.rstrip().endswith("...") for line in lines)


@pytest.mark.parametrize(("columns", "widest"), [(80, 80), (120, 120)])
def test_help_is_as_wide_as_the_terminal(raykd: Raykd, monkeypatch: pytest.MonkeyPatch, columns: int, widest: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert widest - 20 < max(map(len, raykd("plan", "--help").out.splitlines())) <= widest


def test_the_shell_completes_commands(tmp_path: Path) -> None:
    script = "import sys; sys.argv = ['raykd']; from raykd.cli import main; main()"
    env = {**os.environ, "_RAYKD_COMPLETE": "complete_bash", "COMP_WORDS": "raykd st", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=False)
    assert done.stdout.split() == ["study", "status", "stop"]


def test_help_names_the_commands(raykd: Raykd) -> None:
    ended = raykd("--help")
    assert ended.code == 0
    assert all(word in ended.out for word in ("run", "study", "check", "report", "list", "schema", "new"))


SHAPE, AFFINE = (16, 16, 16), np.diag([3.0, 3.0, 3.0, 1.0])


def _image(case: str) -> np.ndarray:
    index = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    return np.sin(index * (1 + ord(case[-1]))) * 100.0


def _label() -> np.ndarray:
    label = np.zeros(SHAPE, dtype=np.int16)
    label[4:8, 4:8, 4:8], label[8:12, 8:12, 8:12] = 1, 2
    return label


@pytest.fixture
def folder_scenario(tiny: dict[str, Any], tmp_path: Path) -> Path:
    """A scenario whose university keeps its cases a, b and c in files."""
    for case in "abc":
        write_nifti(tmp_path / f"data/{case}_t1.nii.gz", _image(case), AFFINE)
        write_nifti(tmp_path / f"data/{case}_seg.nii.gz", _label(), AFFINE)
    tiny["clients"][1]["source"] = {
        "name": "folder",
        "images": "data/*_t1.nii.gz",
        "labels": "data/*_seg.nii.gz",
        "other_values": "refuse",
    }
    path = tmp_path / "folder.yaml"
    path.write_text(yaml.safe_dump({**tiny, "method": {"name": "local"}}))
    return path


def test_cases_in_files_run(raykd: Raykd, folder_scenario: Path, tmp_path: Path) -> None:
    ended = raykd("run", folder_scenario, *IN_PROCESS, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    spacing = open_run(tmp_path / "out").clients.set_index("client_name").loc["university", "spacing_i_mm"]
    assert spacing == pytest.approx(3.0)


def _lose_label(data: Path) -> None:
    (data / "b_seg.nii.gz").unlink()


def _cut_label(data: Path) -> None:
    write_nifti(data / "b_seg.nii.gz", _label()[:-1], AFFINE)


def _spoil_image(data: Path) -> None:
    image = _image("b")
    image[3, 4, 5] = np.nan
    write_nifti(data / "b_t1.nii.gz", image, AFFINE)


def _add_class(data: Path) -> None:
    label = _label()
    label[0, 0, 0] = 7
    write_nifti(data / "b_seg.nii.gz", label, AFFINE)


def _move_label(data: Path) -> None:
    write_nifti(data / "b_seg.nii.gz", _label(), np.diag([3.0, 3.0, 3.5, 1.0]))


def _truncate_image(data: Path) -> None:
    file = data / "b_t1.nii.gz"
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "file", "words"),
    [
        (_lose_label, "b_seg.nii.gz", ["label"]),
        (_cut_label, "b_seg.nii.gz", ["(16, 16, 16)", "(15, 16, 16)"]),
        (_spoil_image, "b_t1.nii.gz", ["finite"]),
        (_add_class, "b_seg.nii.gz", ["7"]),
        (_move_label, "b_seg.nii.gz", ["affine"]),
        (_truncate_image, "b_t1.nii.gz", ["checksum"]),
    ],
    ids=["missing label", "shape mismatch", "NaN", "label out of range", "affine mismatch", "truncated"],
)
def test_a_spoilt_case_is_refused_with_one_sentence_and_nothing_is_left_behind(
    raykd: Raykd, folder_scenario: Path, tmp_path: Path, spoil: Callable[[Path], None], file: str, words: list[str]
) -> None:
    spoil(tmp_path / "data")
    ended = raykd("run", folder_scenario, *IN_PROCESS, "--quiet", "--out", tmp_path / "out")
    _refused(ended, f"data/{file}", "'b'" if "'b'" in ended.err else "b", *words)
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_check_reads_every_case_and_tells_of_all_that_are_spoilt(raykd: Raykd, folder_scenario: Path, tmp_path: Path) -> None:
    assert raykd("check", folder_scenario).code == 0
    _spoil_image(tmp_path / "data")
    label = _label()
    label[0, 0, 0] = 7
    write_nifti(tmp_path / "data" / "a_seg.nii.gz", label, AFFINE)
    ended = raykd("check", folder_scenario)
    _refused(ended, "a_seg.nii.gz", "7", "b_t1.nii.gz", "finite")
    assert len(ended.err.splitlines()) == 2


def test_piped_output_has_no_colour_and_its_last_line_is_the_directory(scenario: Path, tmp_path: Path) -> None:
    """In a process of its own, with a terminal claimed by the environment and colour refused."""
    words = ["run", str(scenario), *IN_PROCESS, *FEDAVG, "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "raykd.cli", *words],
        capture_output=True,
        env={**os.environ, "NO_COLOR": "1", "FORCE_COLOR": "1", "TERM": "xterm-256color"},
        check=True,
    )
    assert done.stdout.decode().splitlines()[-1] == str(tmp_path / "out")
    assert b"\x1b" not in done.stdout + done.stderr


@pytest.fixture
def study_file(scenario: Path, tmp_path: Path) -> Path:
    """A study of two quick cells."""
    path = tmp_path / "both.yaml"
    path.write_text(
        "base: tiny.yaml\nmethods: [{name: local}, {name: fedavg}]\n"
        "vary: {federation.rounds: [1]}\nzip: [{training.num_local_steps: [1]}]\n"
    )
    return path


CELLS = [f"{method}--federation.rounds=1--training.num_local_steps=1--seed7" for method in ("local", "fedavg")]


def _started(folder: Path) -> dict[str, str]:
    return {cell: json.loads((folder / cell / "manifest.json").read_text())["started_at"] for cell in CELLS}


@pytest.fixture
def ctrl_c_in_the_second_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who presses Ctrl-C when the round of a study's second cell begins."""

    @contextmanager
    def watch(quiet: bool) -> Iterator[Any]:
        cells: list[str] = []

        def progress(event: str, **values: Any) -> None:
            if event == "run":
                cells.append(values["method"])
            elif event == "round" and len(cells) == 2:
                signal.raise_signal(signal.SIGINT)

        yield progress

    monkeypatch.setattr("raykd.watch.watch", watch)


def test_an_interrupted_study_says_how_to_go_on_and_goes_on_with_the_cells_left(
    raykd: Raykd, study_file: Path, tmp_path: Path, ctrl_c_in_the_second_cell: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    options = ("--set", "federation.rounds=2", "--set", "vary={}")
    ended = raykd("study", study_file, *options, *IN_PROCESS, "--out", out)
    assert ended.code == 130
    words = shlex.split(ended.err.splitlines()[-1].split("to go on: ")[1])
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    first, second = (f"{method}--training.num_local_steps=1--seed7" for method in ("local", "fedavg"))
    statuses = [json.loads((out / cell / "manifest.json").read_text())["status"] for cell in (first, second)]
    assert statuses == ["done", "interrupted"]
    untouched = (out / first / "manifest.json").read_bytes()
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert (out / first / "manifest.json").read_bytes() == untouched
    assert json.loads((out / second / "manifest.json").read_text())["status"] == "done"
    assert not (out / ".set-aside").exists()  # it was resumed, not done anew
    runs = load_runs([out]).runs
    assert [run.path.name for run in runs] == sorted([first, second])
    assert all(run.scenario["federation"]["rounds"] == 2 for run in runs)


def test_a_study_s_directory_records_it_and_its_cells(raykd: Raykd, study_file: Path, tmp_path: Path) -> None:
    words = ("study", study_file, *IN_PROCESS, "--out", tmp_path / "out", "--quiet")
    assert raykd(*words, "--continue").code == 0  # nothing there yet: it begins
    record = yaml.safe_load((tmp_path / "out" / "study.yaml").read_text())
    assert [cell["cell"] for cell in record["cells"]] == CELLS
    assert record["base"] == "../tiny.yaml"
    assert record["zip"] == [{"training.num_local_steps": [1]}]
    for cell in record["cells"]:
        manifest = json.loads((tmp_path / "out" / cell["cell"] / "manifest.json").read_text())
        assert (cell["scenario_hash"], cell["method"]) == (manifest["scenario_hash"], manifest["method"])
    again = raykd(*words)
    _refused(again, "holds a study already", "--continue")
    before = _started(tmp_path / "out")
    nothing_left = raykd(*words, "--continue")
    assert (nothing_left.code, nothing_left.out.strip(), nothing_left.err) == (0, str(tmp_path / "out"), "")
    assert _started(tmp_path / "out") == before and not (tmp_path / "out" / ".set-aside").exists()
    assert raykd("report", tmp_path / "out").code == 0


def test_a_changed_study_is_not_gone_on_with_and_what_differs_is_told(raykd: Raykd, study_file: Path, tmp_path: Path) -> None:
    words = ("study", study_file, *IN_PROCESS, "--out", tmp_path / "out", "--quiet")
    raykd(*words, "--set", "methods=[{name: local}]")
    same = ("--set", "methods=[{name: local}]", "--continue")
    _refused(raykd(*words, "--continue"), "methods:", '"fedavg"', "nothing was run")
    _refused(raykd(*words, *same, "--set", "training.batch_size=1"), f"training.batch_size: 2 there, 1 now, in cell {CELLS[0]}")
    _refused(raykd(*words, *same, "--set", "seeds=[7]"), "seeds: null there, [7] now")
    (tmp_path / "out" / "study.yaml").write_text("cells: 3\n")
    _refused(raykd(*words, *same), "study.yaml", "damaged")
    (tmp_path / "out" / "study.yaml").unlink()
    _refused(raykd(*words, *same), "holds no study")
    _refused(raykd("study", study_file, "--continue"), "--continue", "--out")


def test_a_cell_whose_manifest_is_another_s_is_run_anew(raykd: Raykd, study_file: Path, tmp_path: Path) -> None:
    words = ("study", study_file, *IN_PROCESS, "--out", tmp_path / "out", "--quiet")
    raykd(*words)
    file = tmp_path / "out" / CELLS[0] / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "scenario_hash": "0" * 16, "mark": 1}))
    (tmp_path / "out" / CELLS[1] / "manifest.json").write_text("{")
    states = json.loads(raykd(*words, "--continue", "--dry-run", "--json").out)
    assert [row["state"] for row in states] == ["unfinished", "unfinished"]
    assert raykd(*words, "--continue").code == 0
    assert "mark" not in json.loads(file.read_text())
    assert sorted(path.name for path in (tmp_path / "out" / ".set-aside").iterdir()) == sorted(CELLS)


def test_a_cell_that_another_process_writes_is_left_where_it_is(raykd: Raykd, study_file: Path, tmp_path: Path) -> None:
    """What is half written looks like damage, for which a cell would be set aside and done anew."""
    words = ("study", study_file, *IN_PROCESS, "--out", tmp_path / "out", "--quiet")
    raykd(*words)
    cell = tmp_path / "out" / CELLS[1]
    manifest = json.loads((cell / "manifest.json").read_text()) | {"status": "running"}
    (cell / "manifest.json").write_text(json.dumps(manifest))
    with only_writer(cell):
        _refused(raykd(*words, "--continue"), CELLS[1], "writes it")
        _refused(raykd("resume", cell), CELLS[1], "writes it")
    assert cell.is_dir() and not (tmp_path / "out" / ".set-aside").exists()


def test_a_study_that_is_refused_leaves_nothing_behind(raykd: Raykd, study_file: Path, tmp_path: Path) -> None:
    ended = raykd("study", study_file, *IN_PROCESS, "--out", tmp_path / "out", "--set", "clients[0].num_test=50")
    assert ended.code == 2
    assert not (tmp_path / "out").exists()


def test_a_dry_run_lists_the_cells_and_writes_nothing(raykd: Raykd, study_file: Path, tmp_path: Path) -> None:
    words = ("study", study_file, "--out", tmp_path / "out", "--dry-run", "--set", "seeds=[3, 4]")
    before = sorted(tmp_path.rglob("*"))
    rows = json.loads(raykd(*words, "--json").out)
    assert [(row["method"], row["seed"], row["clients"], row["rounds"], row["state"]) for row in rows] == [
        ("local", 3, 3, 1, "to do"),
        ("local", 4, 3, 1, "to do"),
        ("fedavg", 3, 3, 1, "to do"),
        ("fedavg", 4, 3, 1, "to do"),
    ]
    assert {row["varied"]["training.num_local_steps"] for row in rows} == {1}
    lines = raykd(*words).out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == [row["cell"] for row in rows]
    assert lines[5] == "4 cells: 4 to do"
    assert sorted(tmp_path.rglob("*")) == before
    _refused(raykd("study", study_file, "--json"), "--dry-run")


def test_the_bytes_of_a_dry_run_are_those_of_the_transfers(raykd: Raykd, study_file: Path, tmp_path: Path) -> None:
    """One FedAvg upload is the student's parameters, uncompressed, and the headers of its serialisation."""
    words = ("study", study_file, *IN_PROCESS, "--set", "methods=[{name: fedavg}]", "--out", tmp_path / "out", "--quiet")
    (row,) = json.loads(raykd(*words, "--dry-run", "--json").out)
    raykd(*words)
    transfers = load_runs([tmp_path / "out"]).transfers
    params = transfers[(transfers.direction == "up") & (transfers.kind == "params")]
    assert (params.num_values * 4 == row["student_bytes"]).all()


def test_draws_stand_in_the_clients_table_and_in_the_run_s_scenario(raykd: Raykd, scenario: Path, tmp_path: Path) -> None:
    drawing = ("--set", "clients[0].link.up_mbps={uniform: [3, 9]}")
    assert raykd("run", scenario, *IN_PROCESS, *FEDAVG, *drawing, "--out", tmp_path / "out").code == 0
    run = open_run(tmp_path / "out")
    clients = run.clients.set_index("client_name")
    assert list(clients.index) == ["community-0", "community-1", "university"]
    for name in ("community-0", "community-1"):
        drawn = json.loads(clients.loc[name, "drawn"])
        assert drawn == {"link.up_mbps": clients.loc[name, "link_up_mbps"]}
        assert 3 <= drawn["link.up_mbps"] <= 9
    assert clients.loc["university"].isna()["drawn"]
    assert [group["drawn"] for group in run.scenario["clients"]][-1] == {}
    assert raykd("run", tmp_path / "out" / "scenario.yaml", *IN_PROCESS, "--out", tmp_path / "again").code == 0
    again = open_run(tmp_path / "again")
    assert again.manifest["scenario_hash"] == run.manifest["scenario_hash"]


def test_new_writes_a_scenario_that_is_fine_and_named_as_asked(raykd: Raykd, tmp_path: Path) -> None:
    ended = raykd("new", "deep/knees.yaml")
    assert (ended.code, ended.out.strip()) == (0, "deep/knees.yaml")
    assert load_scenario(tmp_path / "deep/knees.yaml").scenario.name == "knees"
    assert (tmp_path / "deep/knees.yaml").read_text().count("#") > 15
    assert raykd("check", "deep/knees.yaml").code == 0
    assert raykd("new", "012").out.strip() == "012.yaml"
    assert load_scenario(tmp_path / "012.yaml").scenario.name == "012"


def test_list_scenarios_names_what_new_can_copy(raykd: Raykd) -> None:
    rows = json.loads(raykd("list", "scenarios", "--json").out)
    assert {row["name"]: row["kind"] for row in rows}.items() >= {"quickstart": "study", "gallery/one-shot": "scenario"}.items()
    assert all(row["summary"] and not row["summary"].startswith("#") for row in rows)
    assert not [row["name"] for row in rows if row["name"].startswith(("base", "real"))]
    _refused(raykd("new", "--from", "one-shot"), "gallery/one-shot", "raykd list scenarios")
    _refused(raykd("new", "--from", "quickstart", "--study"), "leave one of them out")
    _refused(raykd("list", "scenaros"), "scenarios")


@pytest.mark.parametrize("one", shipped(), ids=lambda one: one.name)
def test_whatever_is_shipped_says_the_same_from_another_place(tmp_path: Path, one: Shipped) -> None:
    for path, text in copies(one, tmp_path / "mine.yaml").items():
        assert path.parent == tmp_path and not path.exists()
        path.write_text(text)
    documents = [base_document, read_yaml] if one.kind == "study" else [read_document]
    for document in documents:
        here, there = document(tmp_path / "mine.yaml").plain(), document(one.path).plain()
        assert {**here, "name": "", "base": ""} == {**there, "name": "", "base": ""}


def test_new_copies_a_study_with_all_it_builds_on_under_names_of_its_own(raykd: Raykd, tmp_path: Path) -> None:
    ended = raykd("new", "--from", "methods/fedmd", "deep/mine.yaml")
    assert ended.out.split() == ["deep/mine-small-knees.yaml", "deep/mine-unlike-networks.yaml", "deep/mine.yaml"]
    assert all("yaml-language-server" not in path.read_text() for path in (tmp_path / "deep").iterdir())
    _refused(raykd("new", "--from", "methods/fedmd", "deep/mine"), "nothing is overwritten")
    raykd("new", "--from", "prices")
    assert load_prices(tmp_path / "prices.yaml").currency == "EUR"


def test_new_writes_a_study_with_its_base(raykd: Raykd, tmp_path: Path) -> None:
    assert raykd("new", "shots", "--study").out.splitlines() == ["shots-base.yaml", "shots.yaml"]
    cells = load_study(tmp_path / "shots.yaml").cells
    assert {cell.loaded.scenario.name for cell in cells} == {"shots"}
    assert len(cells) == 2 * 2 * 2
    assert raykd("check", "shots.yaml").code == 0


def test_what_new_writes_runs(raykd: Raykd, tmp_path: Path) -> None:
    raykd("new")
    quick = ["method.num_passes=1", "method.adapt_steps=2", "repository.teacher.num_steps=2", "federation.rounds=1"]
    quick += ["training.num_local_steps=1", "clients.*.source.num_cases=3", "clients.*.labels.num_shots=1", "clients[0].count=1"]
    ended = raykd("run", "my-federation.yaml", *IN_PROCESS, "--quiet", *(word for text in quick for word in ("--set", text)))
    assert (ended.code, ended.out.strip()) == (0, "runs/my-federation")


def test_new_overwrites_nothing(raykd: Raykd, tmp_path: Path) -> None:
    (tmp_path / "shots-base.yaml").write_text("mine")
    _refused(raykd("new", "shots", "--study"), "shots-base.yaml", "there already")
    assert (tmp_path / "shots-base.yaml").read_text() == "mine" and not (tmp_path / "shots.yaml").exists()
    (tmp_path / "file").write_text("mine")
    _refused(raykd("new", "file/x.yaml"), "file/x.yaml", "cannot be written")


@pytest.mark.parametrize("name", ["", ".hidden", "a b", "x" * 70, "-x.yaml"])
def test_new_refuses_names_that_no_scenario_may_have(raykd: Raykd, tmp_path: Path, name: str) -> None:
    ended = raykd("new", "--", name)
    _refused(ended, "name of a scenario")
    assert list(tmp_path.iterdir()) == []
