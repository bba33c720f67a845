"""The score of a federation: one definition for tables, for `raykd watch` and for the line that a run prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from raykd.commands.looks import look
from raykd.exchange.curves import points_of
from raykd.federation.score import SHARED, mean_dsc
from raykd.results.questions import Comparison
from raykd.results.reader import load_runs, open_run
from raykd.results.statistics import MODELS, case_scores, deployed_cases, evaluated_cases, patient_scores, score_methods
from raykd.results.writer import RunWriter, new_manifest

ROWS = (
    # round, client, model, patient, case, class, dsc
    (0, 0, "global", "a", "a1", "x", 0.10),
    (0, 1, "global", "d", "d1", "x", 0.30),
    (1, 0, "global", "a", "a1", "x", 0.99),
    (1, 0, "personal", "a", "a1", "x", 0.20),
    (1, 0, "personal", "a", "a1", "y", 0.40),
    (1, 0, "personal", "a", "a2", "x", 0.90),
    (1, 0, "personal", "b", "b1", "x", 0.80),
    (1, 0, "teacher", "a", "a1", "x", 0.01),
    (1, 1, "personal", "d", "d1", "x", 0.10),
)
"""In the last round, site 0: patient a ((0.2 + 0.4) / 2 + 0.9) / 2 = 0.6, patient b 0.8: 0.7. Site 1: 0.1. The score is 0.4."""


def rows() -> list[dict[str, Any]]:
    names = ("round", "client_id", "model", "patient_id", "case_id", "class_name", "dsc")
    told = [dict(zip(names, row, strict=True)) for row in ROWS]
    return [{**row, "split": "test", "class_index": "xy".index(row["class_name"]) + 1, "is_ref_empty": False} for row in told]


def _evaluation(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Rows of one evaluation: at each site some of the models, patients with several cases, and classes that references lack."""
    told = []
    for client in (-1, 0, 1, 2, 3):
        models = rng.permutation(MODELS)[: rng.integers(0, len(MODELS) + 1)]
        lacks = {(case, name): rng.random() < 0.4 for case in range(4) for name in "xy"}
        for model in models:
            for (case, name), is_empty in lacks.items():
                patient = {"patient_id": f"p{case // 2}" if client % 2 else None, "case_id": f"c{case}"}
                dsc = None if is_empty else float(rng.random())
                told.append({"client_id": client, "model": str(model), **patient, "class_name": name, "dsc": dsc})
    common = {"run_id": "r", "method": "m", "seed": 0, "round": 1}
    return [{**common, "split": str(rng.choice(["test", "test", "validation"])), **row} for row in told]


@pytest.mark.parametrize("deployed", MODELS)
def test_rows_in_hand_and_tables_give_the_same_score(deployed: str) -> None:
    rng, num_scored = np.random.default_rng(11), 0
    for _ in range(20):
        drawn = _evaluation(rng)
        frame = pd.DataFrame(drawn, columns=list(drawn[0]) if drawn else ["run_id", "client_id", "split", "model", "round", "dsc"])
        frame["dsc"] = frame["dsc"].astype(float)
        for chosen in (deployed_cases, evaluated_cases):
            scores = patient_scores(case_scores(chosen(frame, {"r": deployed})))
            of_tables = scores.iloc[:, 0].groupby("client_id").mean().mean() if len(scores) else None
            assert mean_dsc(drawn, "test", deployed) == (None if of_tables is None else pytest.approx(of_tables, abs=1e-12))
        num_scored += of_tables is not None
    assert num_scored > 10 and SHARED == MODELS


def _rows(*places: tuple[int, int, str]) -> list[dict[str, Any]]:
    """Rows of (round, client, model), one case each."""
    common = {"split": "test", "patient_id": "p", "case_id": "c", "class_index": 1, "class_name": "x", "dsc": 0.5}
    return [{**common, "round": number, "client_id": client, "model": model} for number, client, model in places]


def test_a_first_site_that_takes_no_part_does_not_say_what_the_others_deploy(tmp_path: Path) -> None:
    """Site 0 has the shared model alone; site 1 has one of its own in the end. Site 2 has nothing but the teacher."""
    before = _rows((0, 0, "global"), (0, 1, "global"))
    last = _rows((1, 0, "global"), (1, 1, "global"), (1, 1, "personal"), (1, 2, "teacher"))
    shown = Comparison.of(load_runs([_written(tmp_path, [*before, *last])])).evaluated
    told = shown[["round", "client_id", "model"]].astype({"model": str}).to_records(index=False).tolist()
    assert told == [(0, 0, "global"), (0, 1, "global"), (1, 0, "global"), (1, 1, "personal"), (1, 2, "teacher")]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return _written(tmp_path, rows())


def _written(folder: Path, cases: list[dict[str, Any]]) -> Path:
    """A run of two rounds whose sites deploy models of their own."""
    path = folder / "run"
    path.mkdir()
    writer = RunWriter(path, {"run_id": "run-1", "scenario": "knees", "method": "ours", "seed": 3})
    writer.write_manifest({**new_manifest("0123", "run-1"), "deployed": "personal", "status": "done"})
    (path / "scenario.yaml").write_text("name: knees\nclasses: [x, y]\nfederation: {rounds: 2}\n")
    writer.write("clients", [{"client_id": i, "group": "rural", "client_name": f"rural-{i}"} for i in (0, 1)], "clients")
    writer.write("rounds", [{"round": i} for i in (0, 1)], "rounds")
    writer.write("cases", cases, "rounds")
    return path


def test_scores_are_those_of_the_deployed_model_on_test_cases_of_the_last_round(run_dir: Path) -> None:
    scores = open_run(run_dir).scores()
    told = scores[["client_name", "patient_id", "class_name", "dsc"]].to_records(index=False).tolist()
    assert told == [
        ("rural-0", "a", "x", pytest.approx(0.55)),
        ("rural-0", "a", "y", pytest.approx(0.40)),
        ("rural-0", "b", "x", pytest.approx(0.80)),
        ("rural-1", "d", "x", pytest.approx(0.10)),
    ]
    assert set(scores["model"]) == {"personal"} and set(scores["method"]) == {"ours"} and set(scores["seed"]) == {3}
    assert load_runs([run_dir]).scores().equals(scores)


def test_the_line_of_a_run_watch_and_trackers_give_the_same_score(run_dir: Path) -> None:
    last = [row for row in rows() if row["round"] == 1]
    assert mean_dsc(last, "test", "personal") == pytest.approx(0.4)
    assert [row["dsc"] for row in look(run_dir).rounds] == [pytest.approx(0.2), pytest.approx(0.4)]
    points = {point.step: point.value for point in points_of(open_run(run_dir)) if point.tag == "score/dsc"}
    assert points == {1: pytest.approx(0.2), 2: pytest.approx(0.4)}
    assert [row["dsc"] for row in look(run_dir).clients] == [pytest.approx(0.7), pytest.approx(0.1)]


def test_a_run_that_does_not_name_its_model_has_the_score_of_the_report(run_dir: Path) -> None:
    """As earlier raykd wrote it: sites alone, whose only model is personal."""
    manifest = json.loads((run_dir / "manifest.json").read_text())
    (run_dir / "manifest.json").write_text(json.dumps({name: value for name, value in manifest.items() if name != "deployed"}))
    (run_dir / "tables/cases/rounds.parquet").unlink()
    common = {"run_id": manifest["run_id"], "scenario": "s", "method": "local", "seed": 0}
    own = [row for row in rows() if row["round"] == 1 and row["model"] == "personal"]
    RunWriter(run_dir, common).write("cases", own, "rounds")
    (score,) = score_methods(case_scores(deployed_cases(open_run(run_dir).cases)))
    assert look(run_dir).rounds[-1]["dsc"] == pytest.approx(0.4) == pytest.approx(score.macro.value)


def test_a_run_without_a_test_case_has_no_scores(run_dir: Path) -> None:
    (run_dir / "tables" / "cases" / "rounds.parquet").unlink()
    assert open_run(run_dir).scores().empty and look(run_dir).rounds[-1]["dsc"] is None
