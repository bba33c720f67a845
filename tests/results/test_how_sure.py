"""Are models as sure as they are right: on bins whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from raykd.results.questions import Comparison, calibration, reliability
from raykd.results.reader import load_runs
from raykd.results.writer import RunWriter, new_manifest

Bins = list[tuple[int, int, float, int]]
"""Index, voxels, confidence of each, correct."""


def write(
    folder: Path, seed: int, cases: dict[tuple[int, str, str], Bins], *, has_scores: bool = True, deployed: str = "global"
) -> None:
    """A run of two sites, from the bins of each (client, patient, model)."""
    path = folder / f"run-{seed}"
    path.mkdir(parents=True)
    writer = RunWriter(path, {"run_id": path.name, "scenario": "s", "method": "fedavg", "seed": seed})
    writer.write_manifest({**new_manifest("0", path.name), "status": "done", "deployed": deployed})
    (path / "scenario.yaml").write_text(yaml.safe_dump({"name": "s", "seed": seed, "method": {"name": "fedavg"}}))
    scored, counted = list[dict[str, Any]](), list[dict[str, Any]]()
    for (client, patient, model), bins in cases.items():
        key = {
            "round": 1,
            "client_id": client,
            "split": "test",
            "case_id": f"{patient}-left",
            "patient_id": patient,
            "model": model,
        }
        scored.append({**key, "class_index": 1, "class_name": "a", "dsc": 0.5})
        for index, num, sure, correct in bins:
            scores = {"sum_brier": 0.3 * num, "sum_nll": 0.7 * num} if has_scores else {}
            row = {**key, "bin_index": index, "num_voxels": num, "sum_confidence": num * sure, "num_correct": correct, **scores}
            counted += [row, {**row, "split": "validation", "num_correct": 0}]
    writer.write("cases", scored, "r")
    writer.write("calibration", counted, "r")


def test_errors_are_of_patients_and_then_of_sites(tmp_path: Path) -> None:
    """Site 0: one patient 0.2 too sure, one 0.1 not sure enough. Site 1: one patient with a bin of each kind, and its twin."""
    both: Bins = [(7, 50, 0.5, 30), (14, 50, 1.0, 40)]
    write(tmp_path, 0, {
        (0, "a", "global"): [(13, 100, 0.9, 70)], (0, "b", "global"): [(8, 10, 0.6, 7)],
        (1, "a", "global"): both, (1, "b", "global"): both,
    })  # fmt: skip
    (row,) = calibration(Comparison.of(load_runs([tmp_path]))).to_dict("records")
    assert row["ece"] == pytest.approx(((0.2 + 0.1) / 2 + (0.1 + 0.2) / 2) / 2)
    assert row["overconfidence"] == pytest.approx(((0.2 - 0.1) / 2 + 0.05) / 2)
    assert row["confidence"] - row["accuracy"] == pytest.approx(row["overconfidence"])
    assert (row["brier"], row["nll"], row["num_patients"]) == (pytest.approx(0.3), pytest.approx(0.7), 4)
    assert row["overconfidence_low"] < row["overconfidence"] < row["overconfidence_high"]
    assert (row["method"], row["model"], row["is_deployed"]) == ("fedavg", "global", True)


def test_seeds_are_averaged_and_models_told_apart(tmp_path: Path) -> None:
    for seed, correct in ((0, 90), (1, 70)):
        bins = {(c, p, "global"): [(13, 100, 0.9, correct)] for c in (0, 1) for p in "ab"}
        teacher = {(c, p, "teacher"): [(10, 100, 0.7, 80)] for c in (0, 1) for p in "ab"}
        write(tmp_path, seed, {**bins, **teacher}, has_scores=False)
    table = calibration(Comparison.of(load_runs([tmp_path]))).set_index("model")
    assert table["ece"].to_dict() == pytest.approx({"global": 0.1, "teacher": 0.1})
    assert table["overconfidence"].to_dict() == pytest.approx({"global": 0.1, "teacher": -0.1})
    assert table["is_deployed"].to_dict() == {"global": True, "teacher": False}
    assert (table["num_patients"] == 4).all() and table["brier"].isna().all()


def test_sites_that_take_no_part_do_not_say_what_the_others_deploy(tmp_path: Path) -> None:
    bins: Bins = [(13, 100, 0.9, 90)]
    held_out = {(client, patient, "global"): bins for client in (0, 1) for patient in "ab"}
    write(tmp_path, 0, {**held_out, (2, "a", "personal"): bins}, deployed="personal")
    table = calibration(Comparison.of(load_runs([tmp_path]))).set_index("model")
    assert table["is_deployed"].to_dict() == {"global": False, "personal": True}


def test_the_curve_weighs_sites_alike_whatever_their_voxels(tmp_path: Path) -> None:
    """A site of 1000 voxels a patient that is right every time, and one of 10 that never is."""
    cases = {(0, p, "global"): [(14, 1000, 0.95, 1000)] for p in "ab"} | {(1, p, "global"): [(14, 10, 0.99, 0)] for p in "ab"}
    cases[0, "a", "global"] = [(14, 1000, 0.95, 1000), (9, 1000, 0.65, 500)]
    write(tmp_path, 0, cases)
    table = reliability(Comparison.of(load_runs([tmp_path]))).set_index("bin_index")
    # Site 0 has half and all of its voxels in the last bin, site 1 all: (0.75 + 1) / 2.
    assert table["share"].to_dict() == pytest.approx({9: 0.125, 14: 0.875})
    assert table.loc[14, "accuracy"] == pytest.approx(0.375 / 0.875)
    assert table.loc[14, "confidence"] == pytest.approx((0.375 * 0.95 + 0.5 * 0.99) / 0.875)
    assert (table.loc[9, "confidence"], table.loc[9, "accuracy"]) == (pytest.approx(0.65), pytest.approx(0.5))
    assert table.loc[14, "accuracy_low"] < table.loc[14, "accuracy"] < table.loc[14, "accuracy_high"]
    assert np.isnan(table.loc[9, "accuracy_low"]), "a resample without the first patient has no such voxel"


def test_runs_that_counted_nothing_give_nothing(tmp_path: Path) -> None:
    write(tmp_path, 0, {(0, "a", "global"): []})
    comparison = Comparison.of(load_runs([tmp_path]))
    assert calibration(comparison).empty and reliability(comparison).empty
