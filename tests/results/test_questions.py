"""Each question on runs whose answer is known: written with the writer, read with the reader."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from raykd.results.questions import (
    Comparison,
    ablation,
    communication,
    cost_to_target,
    failures,
    fairness,
    false_positives,
    label_area,
    label_curve,
    labels_saved,
    labels_to_target,
    native_references,
    site_gains,
    teacher_effect,
    to_target,
    when_does_it_pay,
    worst_cases,
)
from raykd.results.reader import load_runs
from raykd.results.writer import RunWriter, new_manifest
from raykd.scenario.errors import RaykdError

PATIENTS, CLASSES = 8, ("a", "b")


def write(folder: Path, method: str, shots: int, level: float, *, seed: int = 0, gain: float = 0.0, **setting: Any) -> None:
    """Two sites, site 1 with thick slices and 0.2 worse; DSC grows to `level` over rounds -1, 0, 1; each round 1000 bytes and
    900 s of training a site."""
    run_id = f"{method}-{shots}-{seed}-{setting}"
    path = folder / run_id.replace(" ", "")
    path.mkdir(parents=True)
    writer = RunWriter(path, {"run_id": run_id, "scenario": "s", "method": method, "seed": seed})
    writer.write_manifest({**new_manifest("0", run_id), "status": "done", "deployed": "global"})
    scenario = {"name": "s", "seed": seed, "method": {"name": method}, "clients": [{"labels": {"num_shots": shots}}], **setting}
    (path / "scenario.yaml").write_text(yaml.safe_dump(scenario))
    clients = [
        {"client_id": c, "group": "g", "client_name": f"site-{c}", "num_labelled": shots, "scanner": "x",
         "spacing_i_mm": 2.0 + 4 * c, "spacing_j_mm": 1.0, "spacing_k_mm": 1.0} for c in range(2)
    ]  # fmt: skip
    cases = []
    for round_index, share in ((-1, 0.5), (0, 0.8), (1, 1.0)):
        for c in range(2):
            for p in range(PATIENTS):
                for index, name in enumerate(CLASSES, 1):
                    is_missed = round_index == 1 and (c, p, name) == (1, 0, "b") and method == "fedavg"
                    row = {
                        "round": round_index, "client_id": c, "split": "test", "case_id": f"p{p}", "class_index": index,
                        "class_name": name, "is_ref_empty": False, "is_pred_empty": is_missed, "volume_ref_mm3": 100.0,
                    }  # fmt: skip
                    dsc = share * level + (p - 3.5) / 100 - 0.2 * c + gain * c
                    cases.append({**row, "model": "global", "dsc": 0.0 if is_missed else dsc, "volume_pred_mm3": 90.0})
                    if round_index == -1 and method == "dual_kd":
                        cases.append({**row, "model": "teacher", "dsc": 0.4, "volume_pred_mm3": 130.0})
    writer.write("clients", clients, "all")
    writer.write("cases", cases, "all")
    writer.write("rounds", [{"round": r, "wall_s": 10.0, "simulated_s": 60.0} for r in range(2)], "all")
    writer.write("training", [{"round": r, "client_id": c, "train_s": 900.0} for r in range(2) for c in range(2)], "all")
    transfers = [
        {"round": r, "client_id": c, "direction": way, "kind": "params", "num_bytes": 500, "simulated_s": 5.0}
        for r in range(2) for c in range(2) for way in ("down", "up")
    ]  # fmt: skip
    if method == "dual_kd":
        transfers += [{"round": -1, "client_id": c, "direction": "down", "kind": "teacher", "num_bytes": 3000, "simulated_s": 7.0 +
        c}
                      for c in range(2)]  # fmt: skip
    writer.write("transfers", transfers, "all")


def test_a_reproduction_is_no_other_training(tmp_path: Path) -> None:
    """Of one seed, scores stay, and nothing is known of other trainings; the original's tables and its own are both kept."""
    write(tmp_path, "fedavg", 2, 0.6)
    shutil.copytree(next(tmp_path.iterdir()), tmp_path / "reproduced")
    both, alone = (Comparison.of(load_runs(path)) for path in (tmp_path, tmp_path / "reproduced"))
    assert len(both.table("cases")) == 2 * len(alone.table("cases")) and both.cells["num_seeds"].tolist() == [1]
    assert both.scores()["score"].tolist() == pytest.approx(alone.scores()["score"].tolist())
    (note,) = both.notes
    assert note.endswith("(reproduced).") and alone.notes == ()


@pytest.fixture(scope="module")
def budgets(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """DSC of fedavg is 0.5, 0.6, 0.7 with 1, 2, 4 labels a site; dual_kd is a budget ahead: 0.6, 0.7, 0.8."""
    folder = tmp_path_factory.mktemp("budgets")
    for step, shots in enumerate((1, 2, 4)):
        write(folder, "local", shots, 0.5 + 0.1 * step)
        write(folder, "dual_kd", shots, 0.6 + 0.1 * step)
    return Comparison.of(load_runs([folder]))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Two seeds at two widths: at width 4 dual_kd gains 0.1 at both sites and 0.05 more at the one behind; at 8 nothing. A
    training's own luck moves dual_kd by 0.0001 down or up."""
    folder = tmp_path_factory.mktemp("pair")
    for seed in (0, 1):
        for width, gain in ((4, 0.1), (8, 0.0)):
            write(folder, "fedavg", 2, 0.6 + seed / 100, seed=seed, student={"width": width})
            level = 0.6 + gain + seed / 100 + (2 * seed - 1) / 10_000
            write(folder, "dual_kd", 2, level, gain=gain / 2, seed=seed, student={"width": width})
    return Comparison.of(load_runs([folder]))


def test_the_curve_over_labels(budgets: Comparison) -> None:
    table = label_curve(budgets).set_index(["method", "num_labels"])
    assert table.loc[("local", 8.0), "dsc"] == pytest.approx(0.7 - 0.1)
    assert table.loc[("dual_kd", 2.0), "dsc"] == pytest.approx(0.6 - 0.1)
    assert table["labels_per_site"].tolist() == [1, 2, 4] * 2 and (table["level"] == "").all()


def test_the_area_is_that_of_straight_lines_in_log_labels(budgets: Comparison) -> None:
    table = label_area(budgets).set_index("method")
    assert table["area"].to_dict() == pytest.approx({"local": 0.5, "dual_kd": 0.6})
    assert (table["area_low"] < table["area"]).all() and (table["num_budgets"] == 3).all()


def test_a_method_a_budget_ahead_saves_half_the_labels(budgets: Comparison) -> None:
    table = labels_saved(budgets, "dual_kd", "local").set_index("reference_labels")
    assert table["labels_needed"].tolist() == pytest.approx([2, 2, 4])
    assert table["labels_saved"].tolist() == pytest.approx([0, 2, 4])
    assert table["bound"].tolist() == ["at most", "at most", ""]
    back = labels_saved(budgets, "local", "dual_kd")
    assert back["labels_needed"].tolist()[:2] == pytest.approx([4, 8])
    assert back["bound"].tolist()[-1] == "never" and np.isinf(back["labels_needed"].iloc[-1])
    assert (back["labels_saved_low"] <= back["labels_saved"]).all()
    with pytest.raises(RaykdError, match="no run is of method 'locl'; did you mean 'local'"):
        labels_saved(budgets, "locl", "local")


def test_labels_that_reach_a_level(budgets: Comparison) -> None:
    """Local is at 0.4, 0.5, 0.6 with 2, 4, 8 labels, so at 0.45 half way between 2 and 4 in logarithms; dual_kd was there at 2."""
    table = labels_to_target(budgets, 0.45).set_index("method")
    assert table["labels_needed"].to_dict() == pytest.approx({"local": np.sqrt(8), "dual_kd": 2.0})
    never = labels_to_target(budgets, 0.65).set_index("method")
    assert np.isinf(never.loc["local", "labels_needed"]) and never.loc["local", "share_reached"] < 0.05


def test_bytes_beside_quality(pair: Comparison) -> None:
    table = communication(pair)
    row = table[(table["method"] == "dual_kd") & (table["condition"] == "width 4")].iloc[0]
    assert (row["num_bytes"], row["bytes_down_per_site"], row["bytes_up_per_site"]) == (10_000, 4000, 1000)
    assert (row["simulated_s"], row["measured_s"]) == (128, 20)
    efficient = table.set_index(["condition", "method"])["is_efficient"]
    assert efficient[("width 4", "dual_kd")] and efficient[("width 4", "fedavg")]


def test_bytes_and_seconds_until_a_level(pair: Comparison) -> None:
    """At width 4 dual_kd is at 0.8 x 0.705 - 0.1 + 0.025 = 0.489 after its first round, fedavg at 0.493 after its second."""
    at = cost_to_target(pair, target=0.48).set_index(["condition", "method"])
    assert at.loc[("width 4", "dual_kd"), "num_bytes"] == 6000 + 2000 and at.loc[("width 4", "dual_kd"), "rounds"] == 1
    assert at.loc[("width 4", "fedavg"), "num_bytes"] == 4000
    every = to_target(pair, 0.48).set_index(["condition", "method"]).loc[("width 4", "dual_kd")]
    assert (every["num_bytes"], every["simulated_s"], every["measured_s"]) == (8000, 68, 10)
    seconds = cost_to_target(pair, "simulated_s", 0.48).set_index(["condition", "method"])
    assert seconds.loc[("width 4", "dual_kd"), "simulated_s"] == 68, "the hand-out of the slowest site, and a round"
    assert cost_to_target(pair, "measured_s").set_index(["condition", "method"]).loc[("width 4", "fedavg"), "measured_s"] == 20
    default = cost_to_target(pair)
    assert default.loc[default["condition"] == "width 4", "target"].tolist() == pytest.approx([0.505 - 0.5 * 0.37 / 16] * 2)
    never = cost_to_target(pair, target=0.99)
    assert np.isinf(never["num_bytes"]).all() and (never["share_reached"] < 0.02).all()


def test_the_site_behind_and_what_it_gets_back(pair: Comparison) -> None:
    table = site_gains(pair, "dual_kd", "fedavg").set_index(["condition", "client_name"])
    behind, ahead = table.loc[("width 4", "site-1")], table.loc[("width 4", "site-0")]
    lost = 0.5 * (0.605 - 0.2 - 0.035) / PATIENTS
    assert behind["slice_mm"] == 6 and behind["spacing_mm"] == "6 x 1 x 1"
    assert behind["lag"] == pytest.approx(0.2 + lost) and behind["gain"] == pytest.approx(0.15 + lost)
    assert behind["lag_made_up"] == pytest.approx((0.15 + lost) / (0.2 + lost)) and behind["verdict"] == "better"
    assert ahead["lag"] == 0 and np.isnan(ahead["lag_made_up"]) and ahead["gain"] == pytest.approx(0.1)


def test_the_map_and_the_ablation(pair: Comparison) -> None:
    table = when_does_it_pay(pair, [("dual_kd", "fedavg"), ("dual_kd", "absent")]).set_index("width")
    assert table["outcome"].to_dict() == {"4": "wins", "8": "open"}
    assert set(table["family"]) == {"dsc, methods and conditions: 2 comparisons"} and (table["num_seeds"] == 2).all()
    lost = ablation(pair, "dual_kd", by_class=True)
    assert set(lost["method"]) == {"fedavg"} and len(lost) == 2 * len(CLASSES)
    assert lost.loc[(lost["condition"] == "width 4"), "verdict"].tolist() == ["worse", "worse"]
    assert (lost["p_holm"] >= lost["p_value"]).all()


def test_the_worst_site_and_the_spreads(pair: Comparison) -> None:
    table = fairness(pair).set_index(["condition", "method"])
    row = table.loc[("width 8", "dual_kd")]
    assert row["worst_site"] == "site-1" and row["gap"] == pytest.approx(0.2) and row["num_seeds"] == 2
    assert row["sd_seeds"] == pytest.approx(0.0102 / np.sqrt(2)) and row["clients_are"] == "fixed"


def test_where_the_teacher_helps(pair: Comparison) -> None:
    table = teacher_effect(pair, "dual_kd", "fedavg")
    helped = table[table["condition"] == "width 4"]
    assert (helped["effect"] == "helps").all() and helped["teacher_dsc"].to_numpy() == pytest.approx(0.4)
    assert helped["teacher_volume_bias"].to_numpy() == pytest.approx(0.3)
    assert not (table.loc[table["condition"] == "width 8", "effect"] == "harms").any()


def test_failures_are_counted_and_named(pair: Comparison) -> None:
    table = failures(pair).set_index(["method", "condition", "class_name"])
    assert table.loc[("fedavg", "width 4", "b"), ["num_missed", "num_present"]].tolist() == [2, 2 * 2 * PATIENTS]
    assert table["num_missed"].sum() == 4 and table["num_made_up"].sum() == 0
    worst = worst_cases(pair, 1)
    missed = worst[worst["method"] == "fedavg"]
    assert (missed["what"] == "missed").all() and set(missed["client_name"]) == {"site-1"} and (missed["dsc"] == 0).all()
    assert (worst.loc[worst["method"] == "dual_kd", "what"] == "poor").all()


def test_what_is_predicted_where_the_reference_is_empty_is_told_apart_and_averaged_into_nothing(tmp_path: Path) -> None:
    """Site 1 has four empty references of class b; fedavg predicts 2000 mm3 in one of them, local in none. Both score alike."""
    for method, num_predicted in (("fedavg", 1), ("local", 0)):
        write(tmp_path, method, 1, 0.5)
        path = next(tmp_path.glob(f"{method}-*/tables/cases/all.parquet"))
        rows = pq.read_table(path).to_pylist()
        for row in rows:
            patient = int(row["case_id"].removeprefix("p"))
            if (row["client_id"], row["class_name"]) == (1, "b") and patient >= 4:
                volume = 2000.0 if patient < 4 + num_predicted else 0.0
                row |= {"dsc": None, "is_ref_empty": True, "is_pred_empty": not volume, "volume_pred_mm3": volume}
                row["reference"] = "absent" if patient == 7 else "empty"
            if (row["client_id"], row["class_name"], row["case_id"]) == (1, "b", "p0"):
                row |= {"dsc": 0.3, "is_pred_empty": False}
        pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    comparison = Comparison.of(load_runs([tmp_path]))
    table = false_positives(comparison).set_index("method")
    assert set(table["client_name"]) == {"site-1"} and set(table["class_name"]) == {"b"}
    columns = ["num_cases", "num_absent", "num_predicted", "share", "volume_ml"]
    assert table.loc["fedavg", columns].tolist() == [4, 1, 1, 0.25, 0.5] and table.loc["local", columns].tolist() == [4, 1, 0, 0, 0]
    gains = site_gains(comparison, "fedavg", "local")
    assert gains["gain"].tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
    assert failures(comparison).set_index(["method", "class_name"]).loc[("fedavg", "b"), "num_made_up"] == 1
    assert not worst_cases(comparison, 100)["dsc"].isna().any()


def test_the_scripts_print_their_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for shots in (1, 2):
        write(tmp_path, "local", shots, 0.5 + 0.1 * shots)
        write(tmp_path, "dual_kd", shots, 0.6 + 0.1 * shots)
    for method, level in (("dual_kd-cold", 0.7), ("fedavg", 0.6)):
        write(tmp_path, method, 1, level)
    for script, words in (
        ("label_efficiency", ("labels_needed", "at most")),
        ("when_does_it_pay", ("dual_kd-cold - fedavg: 1 no verdict",)),
    ):
        monkeypatch.setattr(sys, "argv", [script, str(tmp_path)])
        runpy.run_path(str(Path(__file__).parents[2] / "analysis" / f"{script}.py"))
        printed = capsys.readouterr().out
        assert all(word in printed for word in words), printed


def test_thick_slices_are_told_by_what_they_leave_of_the_reference(tmp_path: Path) -> None:
    write(tmp_path, "fedavg", 1, 0.8)
    assert native_references(Comparison.of(load_runs([tmp_path]))).empty
    path = tmp_path / "thick"
    path.mkdir()
    writer = RunWriter(path, {"run_id": "thick", "scenario": "s", "method": "fedavg", "seed": 0})
    writer.write_manifest({**new_manifest("0", "thick"), "status": "done", "deployed": "global"})
    (path / "scenario.yaml").write_text(yaml.safe_dump({"name": "s", "seed": 0, "method": {"name": "fedavg"}, "clients": [{}]}))
    of = {"round": 0, "client_id": 0, "split": "test", "model": "global", "class_index": 1, "class_name": "ventricle"}
    volumes = {"a": (74.0, 100.0, 0.6, 0.5), "b": (0.0, 0.0, 1.0, 1.0), "c": (20.0, 100.0, 0.8, None)}
    rows = [
        {**of, "case_id": case, "dsc": dsc, "dsc_native": native, "volume_ref_mm3": own, "volume_native_mm3": source}
        for case, (own, source, dsc, native) in volumes.items()
    ]
    writer.write("cases", rows, "round-0")
    (row,) = native_references(Comparison.of(load_runs([path]))).to_dict("records")
    # Volumes of the cases whose source holds the class: (74 + 20) / (100 + 100); scores of those scored twice.
    assert (row["volume_ref_mm3"], row["volume_native_mm3"], row["share"]) == (47.0, 100.0, pytest.approx(0.47))
    assert (row["dsc"], row["dsc_native"]) == (pytest.approx(0.8), pytest.approx(0.75))
