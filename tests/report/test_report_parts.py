import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import CLIENTS, scenario, write_run

from raykd.report import build_report
from raykd.report.compared import size
from raykd.report.costs import cost_of
from raykd.report.evidence import collect
from raykd.report.figures import shorten
from raykd.report.pictures import area, marks_of, outline
from raykd.report.svg import Scale, spanning
from raykd.report.tables import Column, estimate_cell
from raykd.report.views import spacing_words
from raykd.report.wording import data_size, duration, interval, number, plural, probability, short, signed, signed_interval
from raykd.report.work import unequal_work
from raykd.results.questions import work_of
from raykd.results.reader import Run
from raykd.results.settings import Conditions
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
    assert plain(probability(0.0004)) == "p < 0.001" and plain(probability(0.0321)) == "p = 0.032"
    assert plural(1, "site") == "1 site" and plural(2, "site") == "2 sites"


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        ((0.8, 0.75, 0.85), "0.80 (0.75 to 0.85)"),
        ((0.8, 0.79, 0.81), "0.80 (0.79 to 0.81)"),  # half of it is 0.01
        ((0.8, 0.791, 0.809), "0.800 (0.791 to 0.809)"),
        ((0.8, 0.7998, 0.8002), "0.8000 (0.7998 to 0.8002)"),
        ((0.8, 0.79999, 0.80001), "0.80"),  # beyond four decimals there is no width
        ((0.8, 0.8, 0.8), "0.80"),
        ((0.8, math.nan, math.nan), "0.80"),
        ((3.0, 1.0, math.inf), "3.00 (1.00 to inf)"),
    ],
)
def test_an_interval_has_the_digits_that_show_its_width(estimate: tuple[float, float, float], words: str) -> None:
    assert interval(Estimate(*estimate)) == words


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        ((0.0044, 0.0003, 0.0085), "+0.0044 (+0.0003 to +0.0085)"),  # two decimals would read 0.00 (0.00 to +0.01)
        ((0.014, -0.002, 0.03), "+0.014 (−0.002 to +0.030)"),
        ((-0.12, -0.2, -0.04), "−0.12 (−0.20 to −0.04)"),
        ((0.001, -0.01, 0.012), "0.00 (−0.01 to +0.01)"),  # zero is inside, and seen to be
        ((0.0, 0.0, 0.0), "0.00"),
        ((0.126, math.nan, math.nan), "+0.13"),
    ],
)
def test_the_interval_of_a_difference_shows_the_signs_that_its_verdict_rests_on(
    estimate: tuple[float, float, float], words: str
) -> None:
    """Sentences, tables and charts alike."""
    assert signed_interval(Estimate(*estimate)) == words
    cell = estimate_cell(Estimate(*estimate), is_signed=True)
    assert cell.words + (f" ({cell.detail})" if cell.detail else "") == words


def test_ends_that_read_the_same_are_no_interval() -> None:
    row = {"x": 31_800_000.0, "x_low": 31_799_000.0, "x_high": 31_801_000.0}
    assert plain(Column("X", "x", "size").cell(row).words) == "31.8 MB" and not Column("X", "x", "size").cell(row).detail
    assert Column("X", "x", "seconds").cell({"x": 9.0, "x_low": 8.99, "x_high": 9.01}).detail == ""
    assert Column("X", "x", "size").cell(row | {"x_high": 41_801_000.0}).detail
    assert size(Estimate(-0.0044, -0.0085, -0.0003)) == "0.0044 (0.0003 to 0.0085)"


def test_settings_are_short() -> None:
    assert [short(value) for value in (3.13276, 100.0, 2500.0, 0.000812, 7, "iid", [4.0, 1.25])] == [
        "3.13", "100", "2500", "0.000812", "7", "iid", "4 × 1.25"
    ]  # fmt: skip


def test_long_labels_keep_their_ends() -> None:
    labels = [f"dual_kd, community num_shots {n}, rural num_shots {m}, width 8" for n in (1, 2) for m in (1, 2)]
    assert len({shorten(label) for label in labels if "community num_shots 1" in label}) == 2
    assert all(len(shorten(label)) == 44 for label in labels) and shorten("fedavg") == "fedavg"


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


def test_an_area_is_a_bar_per_run_of_each_row() -> None:
    mask = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1]], np.uint8)
    assert area(mask) == "M0 0h2v1h-2zM3 0h1v1h-1zM1 2h3v1h-3z"


def test_each_class_is_marked_apart_and_unknown_voxels_are_not() -> None:
    pixels = np.array([[1, 9, 255, 0]], np.uint8)
    marks = [
        (mark.get("class"), mark.get("data-structure"), mark.get("data-label"))
        for mark in marks_of(pixels, "student", "ab", label="x")
    ]
    assert marks == [("outline student l0", "a", "x"), ("outline student l0", None, "x")], "styles come again after eight classes"
    assert [mark.get("class") for mark in marks_of(pixels[:, :1], "reference", "ab")] == [
        "area reference l0",
        "outline reference l0",
    ]


def test_outline_joins_runs_and_parts_neighbouring_classes() -> None:
    label = np.array([[1, 1, 2], [1, 1, 2]], np.uint8)
    assert outline(label) == "M0 0h3M0 2h3M0 0v2M2 0v2M3 0v2"


def test_outline_takes_unknown_voxels_for_background() -> None:
    assert outline(np.full((2, 2), 255, np.uint8)) == ""


def run_of(path: Path, run_id: str, **changes: object) -> Run:
    method = {"name": "dual_kd", **changes.pop("method", {})}  # type: ignore[dict-item]
    return Run(path, {"run_id": run_id, "status": "done"}, {**scenario("dual_kd", 0), **changes, "method": method})


def test_labels_tell_only_what_differs(tmp_path: Path) -> None:
    same = Conditions.of([run_of(tmp_path, "a", seed=0), run_of(tmp_path, "b", seed=1, name="other")]).labels
    assert same == {"a": "dual_kd", "b": "dual_kd"}
    rounds = {"participation": 1.0, "client_dropout": 0.1}
    varied = Conditions.of([run_of(tmp_path, str(n), federation={**rounds, "rounds": n}) for n in (5, 10)]).labels
    assert varied == {"5": "dual_kd, rounds 5", "10": "dual_kd, rounds 10"}
    settings = Conditions.of([run_of(tmp_path, str(t), method={"temperature": t}) for t in (1, 4)]).labels
    assert settings == {"1": "dual_kd, temperature 1", "4": "dual_kd, temperature 4"}


def test_a_setting_of_one_method_is_no_difference_to_another(tmp_path: Path) -> None:
    a = run_of(tmp_path, "a", method={"temperature": 2})
    b = Run(tmp_path, {"run_id": "b", "status": "done"}, scenario("fedavg", 0))
    assert Conditions.of([a, b]).labels == {"a": "dual_kd", "b": "fedavg"}


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
    assert cost.steps == 20 * 16 and math.isnan(cost.flops)  # these runs did not count operations


def work(**columns: list[float | None]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.array(values, dtype="Int64") for name, values in columns.items()})


def test_work_is_all_steps_and_unknown_where_a_row_is() -> None:
    whole = work(num_steps=[2, 2], num_steps_taken=[3, None], flops=[10, 20])
    assert work_of(whole) == {"steps": 5.0, "flops": 30.0}
    assert math.isnan(work_of(work(num_steps=[2, 2], num_steps_taken=[3, 3], flops=[10, None]))["flops"])
    assert work_of(whole.head(0)) == {"steps": 0.0, "flops": 0.0}


@pytest.mark.parametrize(
    ("steps", "flops", "words"),
    [
        ((320, 320), (9e12, 3e12), ""),
        ((352, 320), (9e12, 3e12), ""),
        (
            (480, 320),
            (9.4e12, 3e12),
            "Work is unequal: a site took 480 optimiser steps under a and 320 under b, 1.5 times as many (9.4 TFLOP against 3). "
            "The lead may be due to longer training.",
        ),
        ((480, 0), (math.nan, 0.0), "Work is unequal: a site took 480 optimiser steps under a and 0 under b. The lead"),
        ((480, math.nan), (math.nan, math.nan), ""),
    ],
)
def test_a_winner_that_trained_longer_than_another_method_is_told(
    steps: tuple[float, float], flops: tuple[float, float], words: str
) -> None:
    """Of methods that it leads: c does better."""
    costs = {"a": (steps[0], flops[0]), "b": (steps[1], flops[1]), "c": (1, 1.0)}
    material: Any = SimpleNamespace(
        rankings={"dsc": [SimpleNamespace(method=m, macro=Estimate(v, v, v)) for m, v in (("c", 0.9), ("a", 0.8), ("b", 0.7))]},
        costs={label: SimpleNamespace(steps=own[0], flops=own[1]) for label, own in costs.items()},
    )
    material.costs["d"], material.rankings["dsc"][2:] = (
        material.costs["b"],
        [SimpleNamespace(method=m, macro=Estimate(0.7, 0.7, 0.7)) for m in ("b", "d")],
    )
    together = list(unequal_work(material, "a", ["b", "d"]))
    assert len(together) == bool(words) and all("under b, d" in sentence for sentence in together)
    told = " ".join(unequal_work(material, "a", ["b", "c"]))
    assert told.startswith(words) and bool(told) == bool(words)


def test_evidence_keeps_the_tables_of_the_compared_runs(study_dir: Path) -> None:
    evidence = collect([study_dir])
    assert set(evidence.methods) == {"dual_kd", "fedavg", "fedprox", "local"}
    assert evidence.nsd_tolerance == "1 mm"
    assert isinstance(evidence.deployed, pd.DataFrame) and len(evidence.deployed) == 12 * 4 * 6 * 3
    assert set(evidence.deployed["round"]) == {19}
    assert evidence.name(-1) == "repository" and evidence.name(3) == "rural" and evidence.name(9) == "site 9"
