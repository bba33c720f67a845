"""Figures for papers: as wide as a column, in vectors, with their numbers beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from raykd.report.paper import QUESTIONS, write_figures
from raykd.results.reader import load_runs
from raykd.scenario.errors import RaykdError


def test_figures_are_of_a_column_s_width_and_have_their_numbers_beside(small_study: Path, tmp_path: Path) -> None:
    written = write_figures(load_runs([small_study]), tmp_path / "figures", columns=(1,))
    assert {name.partition("-")[0].removesuffix(".csv") for name in written} == set(QUESTIONS)
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(written)
    svg = (tmp_path / "figures/labels-1col.svg").read_text()
    assert float(re.search(r'width="([0-9.]+)pt"', svg)[1]) == pytest.approx(89 / 25.4 * 72, abs=0.1)  # type: ignore[index]
    assert "<text" in svg and "dual_kd" in svg and "<image" not in svg
    assert (tmp_path / "figures/labels-1col.pdf").read_bytes().startswith(b"%PDF")
    numbers = pd.read_csv(tmp_path / "figures/labels.csv")
    assert set(numbers["method"]) == {"local", "fedavg", "finetune", "dual_kd"} and len(numbers) == 8


def test_one_run_is_drawn_over_rounds_and_over_sites_and_classes(small_study: Path, tmp_path: Path) -> None:
    written = write_figures(load_runs(small_study / "fedavg-1-0"), tmp_path, columns=(1,))
    assert {name.partition("-")[0].removesuffix(".csv") for name in written} == {"bytes", "rounds", "cases"}
    run = load_runs(small_study / "fedavg-1-0").cases
    rounds = pd.read_csv(tmp_path / "rounds.csv").set_index("rounds_done")["dsc"]
    means = run[run["client_id"] >= 0].groupby(["round", "client_id"])["dsc"].mean().groupby("round").mean()
    assert rounds.to_dict() == pytest.approx({int(number) + 1: value for number, value in means.items()})
    cases = pd.read_csv(tmp_path / "cases.csv").set_index("place")
    own = run[(run["round"] == 1) & (run["client_id"] == 1) & (run["class_name"] == "tibial_cartilage")]["dsc"]
    assert len(cases) == 4 and cases.loc["rural, tibial cartilage", "num_cases"] == 6
    told = cases.loc["rural, tibial cartilage", ["dsc", "dsc_low", "dsc_high"]].tolist()
    assert told == pytest.approx([own.mean(), own.quantile(0.25), own.quantile(0.75)])


def test_runs_that_answer_nothing_are_refused(tmp_path: Path) -> None:
    from raykd.results.writer import RunWriter, new_manifest

    (tmp_path / "run").mkdir()
    writer = RunWriter(tmp_path / "run", {"run_id": "r", "scenario": "s", "method": "local", "seed": 0})
    writer.write_manifest(new_manifest("0", "r"))
    (tmp_path / "run/scenario.yaml").write_text("name: s\n")
    with pytest.raises(RaykdError, match="hold no evaluated test case"):
        write_figures(load_runs([tmp_path]), tmp_path / "figures")
