"""The table with which a run or a study ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_runs import METHODS

from raykd.commands.outcome import outcome
from raykd.report.build import Report
from raykd.report.wording import number


def test_a_study_ends_with_its_methods_best_first_and_the_next_command(report: Report, study_dir: Path) -> None:
    lines = outcome(study_dir, "runs/knees").splitlines()
    assert lines[-1] == "next: raykd report runs/knees" and len(lines) == 1 + len(METHODS) + 1 <= 8
    ranking = report.material.rankings["dsc"]
    assert [line.split()[0] for line in lines[1:-1]] == [score.method for score in ranking]
    best = ranking[0]
    assert number(best.macro.value, 3) in lines[1] and f"rural {number(best.worst.value, 3)}" in lines[1] and "MB" in lines[1]


def test_methods_beyond_the_first_are_counted(study_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raykd.commands.outcome.MOST_METHODS", 2)
    lines = outcome(study_dir, "d").splitlines()
    assert len(lines) == 4 and lines[-1] == "and 2 more; next: raykd report d"


def test_a_directory_without_runs_has_no_outcome(tmp_path: Path) -> None:
    assert outcome(tmp_path, "d") == ""
