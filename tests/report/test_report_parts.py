import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import CLIENTS, scenario, write_run

from raykd.report import build_report
from raykd.report.costs import cost_of
from raykd.report.evidence import collect
from raykd.report.pictures import outline
from raykd.report.svg import Scale, spanning
from raykd.report.views import spacing_words
from raykd.report.wording import data_size, duration, interval, number, plural, probability, short, signed
from raykd.results.reader import Run
from raykd.results.settings import label_runs
from raykd.results.statistics import Estimate
from raykd.results.writer import RunWriter

NAMES = [name for name, *_ in CLIENTS]


def plain(words: str) -> str:
    return words.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.6, "1 min"), (410, "6 min 50 s"), (3600, "1 h"), (90_061, "1 d 1 h"), (math.nan, "–")],
)
def test_duration(seconds: float, words: str) -> None:
    assert plain(duration(seconds)) == words


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.00 kB"), (42_096_320, "42.1 MB"), (3e15, "3000 TB")]
)
def test_data_size(size: float, words: str) -> None:
    assert plain(data_size(size)) == words


def test_numbers() -> None:
    assert number(-0.004) == "0.00" and number(-0.126) == "−0.13" and number(math.nan) == "–"
    assert signed(0.126) == "+0.13" and signed(-0.126) == "−0.13" and signed(0.001) == "0.00"
    assert interval(Estimate(0.8, 0.75, 0.85)) == "0.80 (0.75 to 0.85)"
    assert interval(Estimate(0.8, math.nan, math.nan)) == "0.80"
    assert plain(probability(0.0004)) == "p < 0.001" and plain(probability(0.0321)) == "p = 0.032"
    assert plural(1, "site") == "1 site" and plural(2, "site") == "2 sites"


def test_settings_are_short() -> None:
    assert [short(value) for value in (3.13276, 100.0, 2500.0, 0.000812, 7, "iid", [4.0, 1.25])] == [
        "3.13", "100", "2500", "0.000812", "7", "iid", "4 × 1.25"
    ]  # fmt: skip


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_spacing_is_told_along_i_j_and_k_whatever_the_slice(axis: int) -> None:
    """Rows run along K but in axial slices, columns along I but in sagittal ones: both along J there."""
    edges = {"i": 1.0, "j": 2.0, "k": 3.0}
    down, right = {0: "kj", 1: "ki", 2: "ji"}[axis]
    row = {"axis": axis, "slice_mm": edges["ijk"[axis]], "row_mm": edges[down], "col_mm": edges[right]}
    assert spacing_words(row) == "1 × 2 × 3 mm"


def test_scale_maps_ends_and_keeps_its_limits() -> None:
    scale = Scale(0.0, 2.0, 100.0, 300.0)
    assert [scale(0), scale(1), scale(2)] == [100, 200, 300]
    assert scale.ticks == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert spanning([0.9, 0.99], 0, 1, upper=1.0).high <= 1.0
    same = spanning([0.0, 0.0], 0, 1)
    assert same.low == 0.0 < same.high


def test_outline_of_one_pixel_is_its_four_edges() -> None:
    label = np.zeros((3, 4), np.uint8)
    label[1, 2] = 1
    assert outline(label) == "M2 1h1M2 2h1M2 1v1M3 1v1"


def test_outline_joins_runs_and_parts_neighbouring_classes() -> None:
    label = np.array([[1, 1, 2], [1, 1, 2]], np.uint8)
    assert outline(label) == "M0 0h3M0 2h3M0 0v2M2 0v2M3 0v2"


def test_outline_takes_unknown_voxels_for_background() -> None:
    assert outline(np.full((2, 2), 255, np.uint8)) == ""


def run_of(path: Path, run_id: str, **changes: object) -> Run:
    method = {"name": "dual_kd", **changes.pop("method", {})}  # type: ignore[dict-item]
    return Run(path, {"run_id": run_id, "status": "done"}, {**scenario("dual_kd", 0), **changes, "method": method})


def test_labels_tell_only_what_differs(tmp_path: Path) -> None:
    same = label_runs([run_of(tmp_path, "a", seed=0), run_of(tmp_path, "b", seed=1, name="other")])
    assert same == {"a": "dual_kd", "b": "dual_kd"}
    rounds = {"participation": 1.0, "client_dropout": 0.1}
    varied = label_runs([run_of(tmp_path, str(n), federation={**rounds, "rounds": n}) for n in (5, 10)])
    assert varied == {"5": "dual_kd, rounds 5", "10": "dual_kd, rounds 10"}
    settings = label_runs([run_of(tmp_path, str(t), method={"temperature": t}) for t in (1, 4)])
    assert settings == {"1": "dual_kd, temperature 1", "4": "dual_kd, temperature 4"}


def test_a_setting_of_one_method_is_no_difference_to_another(tmp_path: Path) -> None:
    a = run_of(tmp_path, "a", method={"temperature": 2})
    b = Run(tmp_path, {"run_id": "b", "status": "done"}, scenario("fedavg", 0))
    assert label_runs([a, b]) == {"a": "dual_kd", "b": "fedavg"}


def test_a_method_that_pools_data_is_a_yardstick_not_the_winner(tmp_path: Path) -> None:
    write_run(tmp_path / "s/fedavg", "fedavg", 0, names=NAMES)
    pooled = write_run(tmp_path / "s/pooled", "dual_kd", 0, names=NAMES, skip=["training", "transfers"])
    common = {"run_id": "dual_kd-0", "scenario": "two-shot-knees", "method": "dual_kd", "seed": 0}
    RunWriter(pooled, common).write("training", [{"round": 0, "client_id": -2, "train_s": 1.0}], "all")
    evidence = collect([tmp_path / "s"])
    assert evidence.pooling_methods == {"dual_kd"}
    html = build_report([tmp_path / "s"], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<strong>fedavg</strong> reaches" in html and "stays <strong>open</strong>" in html
    assert "Against <strong>dual_kd</strong> (all sites&#39; scans pooled in one place" in html and "it loses" in html
    assert "never leave a site" not in html


def test_costs_are_means_over_seeds_and_clients(study_dir: Path) -> None:
    cost = cost_of(collect([study_dir]), "fedavg")
    assert cost.num_rounds == 20
    assert cost.down == {"params": 20 * 1_404_816} and cost.bytes_up == 20 * 1_404_816
    assert cost.total == 2 * 4 * 20 * 1_404_816
    assert cost.wall_s == pytest.approx(260.0) and cost.simulated_s == pytest.approx(6 * 260.0)
    assert cost.train_s == pytest.approx(4 * 0.2 * 260.0)
    assert cost.teacher_s == pytest.approx(60.0)


def test_evidence_keeps_the_tables_of_the_compared_runs(study_dir: Path) -> None:
    evidence = collect([study_dir])
    assert set(evidence.methods) == {"dual_kd", "fedavg", "fedprox", "local"}
    assert evidence.nsd_tolerance == "1 mm"
    assert isinstance(evidence.deployed, pd.DataFrame) and len(evidence.deployed) == 8 * 4 * 6 * 3
    assert set(evidence.deployed["round"]) == {19}
    assert evidence.name(-1) == "repository" and evidence.name(3) == "rural" and evidence.name(9) == "site 9"
