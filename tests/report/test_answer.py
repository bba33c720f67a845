"""The first screen: what it calls the methods that it compares, and what it says after one training and after several."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from markupsafe import Markup
from synthetic_runs import write_study

from raykd.report.answer import Answer, answer
from raykd.report.compared import intervals_are
from raykd.report.evidence import collect
from raykd.report.material import Material
from raykd.results.writer import RunWriter

SKIPPED = ["previews", "calibration", "events", "teachers"]


def answer_of(study: Path) -> Answer:
    return answer(Material(collect([study])))


def plain(words: Markup) -> str:
    return words.striptags().replace("\N{NO-BREAK SPACE}", " ")


def said(found: Answer, title: str) -> list[str]:
    return next([plain(sentence) for sentence in one.sentences] for one in found.questions if one.title == title)


def use(study: Path, method: str, **settings: object) -> None:
    """Another method's settings in the scenarios of the runs of one."""
    for path in study.glob(f"{method}-*/scenario.yaml"):
        words = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**words, "method": settings}))


def test_one_training_is_described_and_not_judged(tmp_path: Path) -> None:
    found = answer_of(write_study(tmp_path / "s", methods=["local", "fedavg"], seeds=[7], skip=SKIPPED))
    assert plain(found.lead).startswith("One training (seed 7): fedavg gains 0.")
    assert "another training may differ by more, so there is no p-value and no verdict. fedavg has the highest mean" in plain(
        found.lead
    )
    every = " ".join([plain(found.lead), *found.caveats, *said(found, "Is it worth it?"), *said(found, "For whom?")])
    assert not any(word in every for word in ("Yes", "No:", "Open", "p =", "p <", "better off", "chance")), every
    assert said(found, "Is it worth it?")[0].endswith("on 24 scans of one training, no verdict.")
    assert found.caveats[0].startswith("In brackets: One training: 95% intervals are over its test scans alone")


def test_sites_alone_are_named_by_what_they_started_from_and_both_are_shown(tmp_path: Path) -> None:
    """Runs at the level of dual_kd (0.80) are those of sites alone with a warm student, above fedavg (0.70)."""
    study = write_study(tmp_path / "s", methods=["local", "fedavg", "dual_kd"], skip=SKIPPED)
    use(study, "dual_kd", name="local", is_warm=True)
    found = answer_of(study)
    lead = plain(found.lead)
    assert (
        "Yes: fedavg gains 0." in lead and "of Dice against sites alone on their own labels (24 scans of 3 trainings, p = " in lead
    )
    assert "No: fedavg loses 0." in lead and "of Dice against local, warm student from the repository (24 scans of" in lead
    assert lead.index("sites alone on their own labels") < lead.index("local, warm student")
    worth = said(found, "Is it worth it?")
    assert worth[0].startswith("Against local (sites alone on their own labels) it gains")
    assert worth[1].startswith("Against dual_kd (local, warm student from the repository) it loses")
    assert "p-values are adjusted after Holm over 2 comparisons (DSC, federated methods against yardsticks)" in worth[-1]
    whom = said(found, "For whom?")
    assert whom[1].startswith("Beside local, ") and whom[3].startswith("Beside dual_kd, ")


def test_a_lead_after_longer_training_is_a_caveat_beside_it(tmp_path: Path) -> None:
    """Sites alone have rows of training of half the steps of fedavg's: 20 rounds of 16."""
    study = write_study(tmp_path / "s", methods=["local", "fedavg"], seeds=[7], skip=SKIPPED)
    local = study / "local-seed7"
    shutil.rmtree(local / "tables/training")
    writer = RunWriter(local, {"run_id": "local-7", "scenario": "two-shot-knees", "method": "local", "seed": 7})
    writer.write("training", [{"round": r, "client_id": c, "num_steps": 8} for r in range(20) for c in range(4)], "all")
    (caveat,) = (caveat for caveat in answer_of(study).caveats if caveat.startswith("Work is unequal"))
    assert "320 optimiser steps under fedavg and 160 under local, 2 times as many" in caveat


def test_a_warm_student_alone_is_not_called_sites_on_their_own_labels(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", methods=["local", "fedavg"], skip=SKIPPED)
    use(study, "local", name="local", is_warm=True)
    lead = plain(answer_of(study).lead)
    assert "against local, warm student from the repository" in lead and "sites alone on their own labels" not in lead


def test_a_gain_that_the_family_does_not_bear_is_open(tmp_path: Path) -> None:
    """Two trainings: one degree of freedom. What scans alone would call sure is open, and the words say so."""
    found = answer_of(write_study(tmp_path / "s", methods=["local", "fedavg"], seeds=[0, 1], skip=SKIPPED))
    assert plain(found.lead).startswith("Open: fedavg gains 0.") and "; open, as it may be chance)." in plain(found.lead)


def test_conditions_of_one_training_each_are_not_counted_as_wins(tmp_path: Path) -> None:
    lead = plain(answer_of(write_study(tmp_path / "s", ["local", "fedavg"], [0], (1, 2), skip=SKIPPED)).lead)
    assert lead.startswith("One training each: fedavg minus sites alone on their own labels is from +0.")
    assert lead.endswith("under 2 conditions; another training may differ by more, so there is no p-value and no verdict.")


@pytest.mark.parametrize(
    ("num_seeds", "words"),
    [
        ([1, 1], "One training: 95% intervals are over its test scans alone"),
        ([3, 5], "95% intervals and p-values are over trainings (seeds) and their test scans."),
        ([3, 1], "Where one seed was run, they are over its test scans alone, without a verdict."),
    ],
)
def test_what_intervals_are_over_is_said(num_seeds: list[int], words: str) -> None:
    assert words in intervals_are(num_seeds)
