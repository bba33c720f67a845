"""The Python interface, and what a run leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import raykd
from raykd.launch import Interrupted, Plan, launch
from raykd.results.reader import Run, open_run
from raykd.scenario.errors import RaykdError, RunFailed, ScenarioError
from raykd.scenario.load import load_scenario

FEDAVG = "method={name: fedavg}"
HEAVY = ("torch", "ray", "pandas", "pydantic", "monai", "torchio", "numpy", "matplotlib", "pyarrow")


def _loaded_by(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter has imported after some code."""
    names = ", ".join(repr(name) for name in HEAVY)
    script = f"{code}\nimport sys\nprint(*[name for name in ({names}) if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_importing_raykd_and_its_commands_loads_nothing_heavy() -> None:
    assert _loaded_by("import raykd, raykd.cli") == set()


def test_help_loads_nothing_heavy() -> None:
    lines = ["import sys, raykd.cli", "sys.argv = ['raykd', '--help']", "try:", "    raykd.cli.main()"]
    assert _loaded_by("\n".join([*lines, "except SystemExit as end:", "    assert end.code == 0"])) == set()


def test_public_names_are_there() -> None:
    assert all(getattr(raykd, name) is not None for name in raykd.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        raykd.no_such_name  # noqa: B018


def test_report_can_be_called_whatever_was_imported_before(tmp_path: Path) -> None:
    code = "import raykd; import raykd.report.build; raykd.report('/nowhere/at/all')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "RaykdError: /nowhere/at/all: there is no such directory" in done.stderr


def test_a_study_runs_goes_on_and_is_reported_on(tiny: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny), encoding="utf-8")
    study, out = tmp_path / "study.yaml", tmp_path / "out"
    study.write_text("base: tiny.yaml\nmethods: [{name: fedavg}, {name: local}]\n", encoding="utf-8")
    half = raykd.run_study(str(study), out=out, overrides=["methods=[{name: fedavg}]"], backend="in-process")
    assert [run.manifest["method"] for run in half.runs] == ["fedavg"]
    with pytest.raises(RaykdError, match="is_continued=True"):
        raykd.run_study(study, out=out, backend="in-process")
    with pytest.raises(RaykdError, match=r"methods: .* there, .* now"):
        raykd.run_study(study, out=out, backend="in-process", is_continued=True)
    again = raykd.run_study(study, out=out, overrides=["methods=[{name: fedavg}]"], backend="in-process", is_continued=True)
    assert [run.manifest for run in again.runs] == [run.manifest for run in half.runs]  # nothing was run twice
    assert raykd.report(str(out)) == out / "report.html" and raykd.report([out], tmp_path / "r.md", "md").is_file()


def test_a_mapping_runs_and_its_run_opens(tiny: dict[str, Any], tmp_path: Path) -> None:
    done = raykd.run(tiny, out=tmp_path / "out", overrides=[FEDAVG], backend="in-process")
    assert isinstance(done, Run)
    assert done.path == tmp_path / "out"
    assert (done.manifest["status"], done.manifest["method"]) == ("done", "fedavg")
    assert done.rounds["round"].tolist() == [0, 1]


def test_a_file_a_mapping_and_a_scenario_are_the_same_run(
    tiny: dict[str, Any],
    tmp_path: Path,
    load: Callable[..., Any],
    outcome_at: Callable[[Path], Any],
    assert_same_tables: Callable[..., None],
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    given = {"file": str(tmp_path / "tiny.yaml"), "mapping": tiny, "scenario": load()}
    for name, scenario in given.items():
        raykd.run(scenario, out=tmp_path / name, overrides=[FEDAVG, "federation.rounds=1"], backend="in-process")
    for name in ("mapping", "scenario"):
        assert_same_tables(outcome_at(tmp_path / "file"), outcome_at(tmp_path / name))
        assert open_run(tmp_path / name).run_id == open_run(tmp_path / "file").run_id


def test_the_default_directory_is_named_after_the_scenario(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["method={name: local}", "federation.rounds=1"]
    assert raykd.run(tiny, overrides=overrides, backend="in-process").path == Path("runs/tiny")


def test_a_directory_that_holds_something_is_refused_and_left_alone(tiny: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RaykdError, match="empty"):
        raykd.run(tiny, out=tmp_path, backend="in-process")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_an_unknown_backend_is_refused(tiny: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RaykdError, match="ray or in-process, got 'cloud'"):
        raykd.run(tiny, out=tmp_path / "out", backend="cloud")
    assert not (tmp_path / "out").exists()


def test_a_refused_scenario_leaves_no_directory(tiny: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="seed"):
        raykd.run({**tiny, "seed": -1}, out=tmp_path / "out", backend="in-process")
    assert not (tmp_path / "out").exists()


def test_too_few_cases_are_refused_and_leave_no_directory(tiny: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RaykdError, match="community-0"):
        raykd.run(tiny, out=tmp_path / "out", overrides=["clients[0].labels.num_shots=3"], backend="in-process")
    assert not (tmp_path / "out").exists()


def test_runs_load_together_with_their_methods(run: Callable[..., Any]) -> None:
    tables = raykd.load_runs([run(FEDAVG).path, run("method={name: local}").path])
    assert isinstance(tables, raykd.Tables)
    rounds = tables.rounds.groupby("method", observed=True)["round"].apply(list).to_dict()
    assert rounds == {"fedavg": [0, 1], "local": [0, 1]}


def test_the_directory_describes_itself(run: Callable[..., Any], load: Callable[..., Any]) -> None:
    """The resolved scenario in it loads back to the one that ran, and the manifest says what ran it."""
    path = run(FEDAVG).path
    assert load_scenario(path / "scenario.yaml").scenario == load(FEDAVG)
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["scenario_hash"] == load(FEDAVG).content_hash()
    assert manifest["raykd"] == raykd.__version__
    assert {"torch", "ray", "monai", "torchio", "git_commit", "machine", "started_at", "ended_at"} <= manifest.keys()
    assert manifest["ended_at"] is not None


def test_the_scenario_that_a_run_leaves_runs_again_to_the_same_tables(
    run: Callable[..., Any], tmp_path: Path, outcome_at: Callable[[Path], Any], assert_same_tables: Callable[..., None]
) -> None:
    before = run(FEDAVG)
    raykd.run(before.path / "scenario.yaml", out=tmp_path / "again", backend="in-process")
    assert_same_tables(before, outcome_at(tmp_path / "again"))


def test_a_run_holds_yaml_json_parquet_safetensors_and_text_only(run: Callable[..., Any]) -> None:
    suffixes = {file.suffix for file in run("method={name: dual_kd}").path.rglob("*") if file.is_file()}
    data = {".yaml", ".json", ".parquet", ".safetensors"}
    assert data <= suffixes <= data | {".log", ".lock", ".sha256", ".pack"}  # a pack is safetensors, one after the other


def test_every_row_names_its_run_scenario_method_and_seed(run: Callable[..., Any]) -> None:
    done = run("method={name: dual_kd}", "evaluation.previews=1").run
    for name in ("clients", "rounds", "training", "cases", "transfers", "previews", "teachers"):
        frame = done.table(name)
        common = frame[["run_id", "scenario", "method", "seed"]].drop_duplicates().values.tolist()
        assert common == [[done.run_id, "tiny", "dual_kd", 7]], name


def test_every_test_case_is_scored_for_every_class_before_and_after_each_round(run: Callable[..., Any]) -> None:
    """Three sites with one test case each, two classes, rounds -1, 0 and 1."""
    cases = run(FEDAVG).table("cases").query("model == 'global' and split == 'test'")
    assert cases.groupby("round").size().to_dict() == {-1: 6, 0: 6, 1: 6}
    assert not cases.duplicated(["round", "client_id", "case_id", "class_name"]).any()


def test_surface_metrics_are_there_in_the_final_round_only(run: Callable[..., Any]) -> None:
    cases = run(FEDAVG).table("cases").query("model == 'global'")
    assert cases.groupby("round")["hd95_mm"].apply(lambda column: column.notna().all()).to_dict() == {-1: False, 0: False, 1: True}


def test_simulated_seconds_of_a_transfer_come_from_its_bytes_and_link(run: Callable[..., Any]) -> None:
    outcome = run(FEDAVG)
    links = outcome.table("clients").set_index("client_id")
    for row in outcome.table("transfers").itertuples():
        link = links.loc[row.client_id]
        expected = 8 * row.num_bytes / (link[f"link_{row.direction}_mbps"] * 1e6) + link["link_latency_ms"] / 1e3
        assert row.simulated_s == pytest.approx(expected, rel=1e-12)


def test_asked_to_stop_in_its_second_round_it_keeps_the_first_and_says_so(load: Callable[..., Any], tmp_path: Path) -> None:
    stop = threading.Event()

    def progress(event: str, **values: Any) -> None:
        if event == "round" and values["round"] == 1:
            stop.set()

    plan = Plan(tmp_path / "out", "fedavg", load(FEDAVG, "federation.rounds=3"), tmp_path)
    with pytest.raises(Interrupted):
        launch([plan], backend="in-process", progress=progress, stop=stop)
    left = open_run(tmp_path / "out")
    assert left.manifest["status"] == "interrupted"
    assert left.rounds["round"].tolist() == [0]


def test_a_training_that_diverges_fails_the_run_and_the_manifest_says_so(load: Callable[..., Any], tmp_path: Path) -> None:
    plan = Plan(tmp_path / "out", "fedavg", load(FEDAVG, "training.learning_rate=1e30"), tmp_path)
    with pytest.raises(RunFailed, match="learning_rate"):
        launch([plan], backend="in-process")
    manifest = open_run(tmp_path / "out").manifest
    assert manifest["status"] == "failed"
    assert "learning_rate" in manifest["reason"]


def test_a_client_that_diverges_is_left_out_and_told(run: Callable[..., Any]) -> None:
    outcome = run(FEDAVG, "clients[1].training={learning_rate: 1e30}")
    events = outcome.table("events")
    assert events[["round", "client_id", "kind"]].values.tolist() == [[0, 2, "excluded"], [1, 2, "excluded"]]
    assert outcome.table("rounds")["num_completed"].tolist() == [2, 2]


def test_runs_of_a_study_are_cells_of_their_own(load: Callable[..., Any], tmp_path: Path) -> None:
    plans = [
        Plan(tmp_path / name, name, load(f"method={{name: {name}}}", "federation.rounds=1"), tmp_path)
        for name in ("local", "fedavg")
    ]
    assert launch(plans, backend="in-process") == [tmp_path / "local", tmp_path / "fedavg"]
    methods = pd.concat([raykd.load_runs([tmp_path]).rounds])["method"].astype(str).tolist()
    assert sorted(methods) == ["fedavg", "local"]
