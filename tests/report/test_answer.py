"""The first screen: what it calls the methods that it compares, and what it says after one training and after several."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from markupsafe import Markup
from synthetic_runs import write_study

from raykd.commands.outcome import outcome
from raykd.report.answer import Answer, answer
from raykd.report.compared import intervals_are
from raykd.report.evidence import collect
from raykd.report.material import Material
from raykd.results.reader import open_run
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


def add_teacher_rows(run_dir: Path, role: str) -> None:
    run = open_run(run_dir)
    writer = RunWriter(run_dir, {name: run.clients[name].iloc[0] for name in ("run_id", "scenario", "method", "seed")})
    writer.write("teachers", [{"role": role, "step": 10, "loss": 0.5}], "added")


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


def test_one_training_is_said_once(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", methods=["local", "fedavg", "dual_kd"], seeds=[7], skip=SKIPPED)
    use(study, "dual_kd", name="local", is_warm=True)
    lead = plain(answer_of(study).lead)
    assert lead.count("One training (seed 7)") == lead.count("no verdict") == 1
    assert "In the same training fedavg loses 0." in lead and "of Dice against local, warm student from the repository. " in lead


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
    lead, _, missing = plain(answer_of(study).lead).partition(" Not compared: ")
    assert "against local, warm student from the repository" in lead and "sites alone on their own labels" not in lead
    assert missing == "sites alone on their own labels."


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


def test_controls_that_need_no_more_than_the_best_method_and_were_not_run_are_named(tmp_path: Path) -> None:
    """dual_kd has a teacher, so that a warm student alone, fine-tuning and the teacher as it is were all to be had."""
    lead = plain(answer_of(write_study(tmp_path / "s", methods=["local", "dual_kd"], skip=SKIPPED)).lead)
    assert lead.endswith(
        "Not compared: local, warm student from the repository; plain federated averaging; federated averaging, warm student from "
        "the repository; the teacher as it is."
    )
    lead = plain(answer_of(write_study(tmp_path / "t", methods=["local", "fedavg"], skip=SKIPPED)).lead)
    assert "Not compared" not in lead, "fedavg has nothing from the repository, and sites alone were run"


def test_a_student_that_was_trained_on_the_repository_is_warm_however_it_reached_the_sites(tmp_path: Path) -> None:
    """`finetune` sends it with the first broadcast; a method whose run trained a student there has used it."""
    study = write_study(tmp_path / "s", methods=["local", "fedavg", "dual_kd"], skip=SKIPPED)
    use(study, "fedavg", name="finetune")
    for path in study.glob("dual_kd-*"):
        add_teacher_rows(path, "student")
    found = answer_of(study)
    assert "dual_kd (warm student and teacher from the repository)" in plain(found.lead)
    assert "Against fedavg (federated averaging, warm student from the repository) it gains" in said(found, "Is it worth it?")[1]


def test_the_repository_counts_among_the_costs(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", methods=["local", "dual_kd"], skip=[name for name in SKIPPED if name != "teachers"])
    cost = said(answer_of(study), "At what cost?")
    assert cost[-1].startswith("For its teacher from the repository it needs outlined scans there, and ")
    assert cost[-1].endswith("of training on them before the rounds.")


def level(study: Path, method: str, dsc: float | None, sites: tuple[int, ...] = (0, 1, 2, 3)) -> None:
    """One Dice score for all cases of a method at some sites, in its last round; None: their references are empty."""
    for path in study.glob(f"{method}-*/tables/cases/all.parquet"):
        table = pq.read_table(path)
        frame = table.to_pandas()
        frame.loc[frame["client_id"].isin(sites), "dsc"] = dsc
        pq.write_table(pa.Table.from_pandas(frame, schema=table.schema, preserve_index=False), path)


def test_methods_that_do_equally_well_share_the_highest_mean(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", methods=["local", "fedavg"], seeds=[0, 1], skip=SKIPPED)
    level(study, "*", 0.5)
    lead = plain(answer_of(study).lead)
    assert (
        lead.startswith("Open: fedavg gains or loses 0.00 of Dice against")
        and "fedavg shares the highest mean of 2 methods" in lead
    )


def test_references_without_a_class_are_told_from_cases_that_were_not_evaluated(tmp_path: Path) -> None:
    """Of all sites, there is no answer; of one, it is in no mean. Both are said."""
    study = write_study(tmp_path / "s", methods=["local", "fedavg"], seeds=[0], skip=SKIPPED)
    level(study, "*", None, sites=(3,))
    material = Material(collect([study]))
    assert "over 3 sites" in plain(answer(material).lead)
    assert any(note.endswith("as no reference of theirs holds a class: rural.") for note in material.evidence.notes)
    level(study, "*", None)
    assert plain(answer_of(study).lead).startswith("No class occurs in the reference of any test case")
    assert "no reference of its test cases holds a class" in outcome(study, "d")


def test_the_one_training_that_is_named_is_that_of_both_methods(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", methods=["fedavg"], seeds=[3, 4], skip=SKIPPED)
    write_study(study, methods=["local"], seeds=[4], skip=SKIPPED)
    assert plain(answer_of(study).lead).startswith("One training (seed 4): fedavg gains")


def test_methods_without_a_common_seed_are_not_judged_site_by_site(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", methods=["fedavg"], seeds=[0, 1], skip=SKIPPED)
    write_study(study, methods=["local"], seeds=[2, 3], skip=SKIPPED)
    found = answer_of(study)
    assert plain(found.lead).startswith("Open: fedavg shares no test scan of a seed with sites alone")
    assert len(said(found, "For whom?")) == 1 and "p-values" not in " ".join(said(found, "Is it worth it?"))


def test_the_answer_is_of_a_condition_that_methods_share(tmp_path: Path) -> None:
    """fedavg does better with 4 labels a site, where nothing else was run; the answer is that with 2, beside sites alone."""
    study = write_study(tmp_path / "s", methods=["local"], seeds=[0, 1], budgets=(2,), skip=SKIPPED)
    write_study(study, methods=["fedavg"], seeds=[0, 1], budgets=(2, 4), skip=SKIPPED)
    found = answer_of(study)
    assert "No other method" not in " ".join(said(found, "Is it worth it?")) and "fedavg, num_shots 2" in plain(found.lead)


def test_means_over_other_sites_are_no_fair_order_and_are_told(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", methods=["local", "fedavg"], seeds=[0], skip=SKIPPED)
    assert not any(caveat.startswith("Means over other") for caveat in answer_of(study).caveats)
    level(study, "local", None, sites=(3,))
    (caveat,) = (caveat for caveat in answer_of(study).caveats if caveat.startswith("Means over other"))
    assert "test scans than that of fedavg: local. Differences" in caveat


def test_sites_alone_by_themselves_lack_a_federated_method(tmp_path: Path) -> None:
    lead = plain(answer_of(write_study(tmp_path / "s", methods=["local"], seeds=[0], skip=SKIPPED)).lead)
    assert lead.endswith("stays open: no federated method was run.")
