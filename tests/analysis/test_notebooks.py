"""Every script of analysis/ runs on a small study and says what it is there to say."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from raykd.cli import main
from raykd.scenario.prices import load_prices

ANALYSIS = Path(__file__).parents[2] / "analysis"
SAID = {
    "communication": ("is_efficient", "share_reached"),
    "resolution_gap": ("lag_made_up", "DSC more gain with every doubling", "rural"),
    "ablation": ("Less than dual_kd", "worse", "without what local lacks: +0.1"),
    "teacher_bias": ("helps", "biased by more than 10 % in volume: 8 of 8 places"),
    "economics": (
        "annotation.hourly_wage",
        "in EUR a federation",
        "dual_kd to do as well as local with 8 labelled cases",
        "of the draws",
    ),
    "compare_methods": ("| dual_kd, num_shots 4 |", "| local, num_shots 1 |", "minus local", "| 0.0 | 20.0 |"),
}
"""What each script prints among other things; label_efficiency and when_does_it_pay are run in tests/results."""


@pytest.mark.parametrize("name", SAID)
def test_a_script_answers_its_question(
    name: str, small_study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, str(small_study)])
    runpy.run_path(str(ANALYSIS / f"{name}.py"))
    printed = capsys.readouterr().out
    assert [words for words in SAID[name] if words not in printed] == [], printed


def test_the_paper_s_table_is_latex_and_numbers(
    small_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["paper_table", str(small_study), str(tmp_path / "table")])
    runpy.run_path(str(ANALYSIS / "paper_table.py"))
    text, numbers = (tmp_path / "table.tex").read_text(), pd.read_csv(tmp_path / "table.csv")
    assert len(numbers) == 8 and numbers["p_holm"].notna().sum() == 6
    rows = [line for line in text.splitlines() if line.startswith("dual\\_kd &")]
    assert len(rows) == 2 and all("\\textbf{0." in row for row in rows) and text.count("\\textbf") == 2
    assert text.count("\\midrule") == 2 and all(line.count("&") == text.splitlines()[2].count("&") for line in rows)


def test_a_table_of_one_training_has_no_p_value_and_nothing_bold(
    small_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for method in ("local", "dual_kd"):
        shutil.copytree(small_study / f"{method}-1-0", tmp_path / "study" / method)
    monkeypatch.setattr(sys, "argv", ["paper_table", str(tmp_path / "study"), str(tmp_path / "table")])
    runpy.run_path(str(ANALYSIS / "paper_table.py"))
    text = (tmp_path / "table.tex").read_text()
    assert "textbf" not in text and "dual\\_kd &" in text and text.count("-- \\\\") == 2
    monkeypatch.setattr(sys, "argv", ["compare_methods", str(tmp_path / "study")])
    runpy.run_path(str(ANALYSIS / "compare_methods.py"))
    printed = capsys.readouterr().out
    assert "], no verdict, n 12 in 1 |" in printed and "], p " not in printed


def test_the_report_has_a_page_on_money_where_prices_are_given(
    small_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a label's hour is not worth 4000 EUR of joining: against local it does not pay, and every price is printed."""
    prices = ("--economics", str(ANALYSIS / "prices.yaml"), "--format", "md", "--out", str(tmp_path / "report.md"))
    monkeypatch.setattr(sys, "argv", ["raykd", "report", str(small_study), *prices])
    with pytest.raises(SystemExit) as ended:
        main()
    page = (
        (tmp_path / "report.md")
        .read_text(encoding="utf-8")
        .replace("\\", "")
        .partition("## Is it worth its money?")[2]
        .partition("\n## ")[0]
    )
    assert ended.value.code == 0 and "Against local with 8 labelled scans, dual_kd does not pay" in page
    assert (
        all(key in page for key, *_ in load_prices(ANALYSIS / "prices.yaml").assumptions()) and "likeliest 2000 | EUR/site" in page
    )


NEEDS = {
    "ablation": "runs of dual_kd, got fedavg",
    "compare_methods": "runs of local, got fedavg",
    "economics": "runs of dual_kd and local, got fedavg",
    "label_efficiency": "runs of dual_kd and local, got fedavg",
    "resolution_gap": "runs of dual_kd and local, got fedavg",
    "teacher_bias": "runs of dual_kd and finetune, got fedavg",
    "when_does_it_pay": "runs of a pair of methods",
}
"""What each script asks for that is given one run of one method; the others answer it."""


def _ended(name: str, *words: str | Path) -> int:
    """The exit code of a script; 0 where it reached its end."""
    sys.argv = [name, *map(str, words)]
    try:
        runpy.run_path(str(ANALYSIS / f"{name}.py"))
    except SystemExit as end:
        return int(str(end.code))
    return 0


@pytest.mark.parametrize("name", [path.stem for path in sorted(ANALYSIS.glob("*.py"))])
def test_a_script_says_what_it_needs(
    name: str, small_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [])
    assert _ended(name) == 2 and f"usage: python analysis/{name}.py runs/DIR" in capsys.readouterr().err
    further = [tmp_path / "table"] if name == "paper_table" else []
    assert _ended(name, tmp_path / "nowhere", *further) == 2 and "no such directory" in capsys.readouterr().err
    assert _ended(name, small_study / "fedavg-1-0", *further) == (2 if name in NEEDS else 0)
    told = capsys.readouterr()
    assert NEEDS.get(name, "") in told.err and bool(told.out) == (name not in NEEDS)


def test_one_label_budget_is_not_enough_for_a_curve(
    small_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("dual_kd-1-0", "local-1-0"):
        (tmp_path / name).symlink_to(small_study / name)
    monkeypatch.setattr(sys, "argv", [])
    assert _ended("label_efficiency", tmp_path) == 2 and "two label budgets or more" in capsys.readouterr().err


def test_every_script_is_a_notebook_and_is_tested() -> None:
    tested = {*SAID, "paper_table", "label_efficiency", "when_does_it_pay"}
    assert {path.stem for path in ANALYSIS.glob("*.py")} == tested
    assert all(path.read_text().startswith("# %% [markdown]\n# # ") for path in ANALYSIS.glob("*.py"))
