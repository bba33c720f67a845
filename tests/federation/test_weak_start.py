"""A teacher, or a student to start from, that has learnt nothing is told of before the first round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raykd.federation.protocols import EvaluationReply
from raykd.federation.start import trained_rows, unused_blocks
from raykd.federation.weak_start import weak_start
from raykd.scenario.registry import METHODS


def rows(**scores: list[float | None]) -> list[dict[str, Any]]:
    """Rows by class, a score a case; None: the case lacks the class, and says so by an empty reference."""
    return [
        {"case_id": str(case), "class_name": name, "dsc": 1.0 if dsc is None else dsc, "is_ref_empty": dsc is None}
        for name, values in scores.items()
        for case, dsc in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("scores", "is_told"),
    [
        ({"a": [0.02, 0.04], "b": [0.0, 0.0]}, True),
        ({"a": [0.09], "b": [0.09]}, True),
        ({"a": [0.1], "b": [0.1]}, False),
        ({"a": [0.9], "b": [0.0]}, False),  # one class is learnt: the rest shows in the scores
        ({"a": [None, 0.01], "b": [None, None]}, True),  # what is absent and not predicted is no success
        ({"a": [None], "b": [None]}, False),  # nothing to judge by
        ({}, False),
    ],
)
def test_a_model_is_weak_below_a_mean_of_a_tenth(scores: dict[str, list[float | None]], is_told: bool) -> None:
    assert bool(weak_start("teacher", rows(**scores))) == is_told


def test_the_event_says_what_was_reached_and_what_to_do() -> None:
    (event,) = weak_start("student", rows(a=[0.0, 0.02], b=[0.06, 0.08]))
    assert (event["round"], event["client_id"], event["kind"]) == (-1, -1, "weak_start")
    assert event["detail"].startswith(
        "the student reaches a mean DSC of 0.040 on what the repository holds out (2 cases), below 0.1, and has not learnt a; raise"
    )
    lost = [{**row, "dsc": None} for row in rows(a=[0.0])]
    assert weak_start("student", lost) == []


def test_teacher_and_student_are_told_apart_and_only_the_teacher_is_in_cases() -> None:
    trained: Any = {role: (None, [{"step": 1}], EvaluationReply(-1, tuple(rows(a=[0.0])))) for role in ("teacher", "student")}
    written = [(table, part) for table, found, part in trained_rows(trained) if found]
    assert ("events", "teacher-before") in written and ("events", "student-before") in written
    assert [part for table, part in written if table == "cases"] == ["repository"]


def test_a_run_tells_it(record: Callable[..., Any]) -> None:
    outcome = record("method={name: dual_kd, teacher: adapted, adapt_steps: 2}").outcome
    own = outcome.table("cases").query("client_id == -1")
    events = outcome.table("events")
    is_weak = own.query("is_ref_empty == False").groupby("class_name", observed=True)["dsc"].mean().mean() < 0.1
    assert (events["kind"] == "weak_start").any() == is_weak


@pytest.mark.parametrize(
    ("method", "unused"),
    [
        ("{name: local}", {"repository"}),
        ("{name: local, is_warm: true}", set()),
        ("{name: fedavg}", {"repository"}),
        ("{name: dual_kd}", set()),
        ("{name: fedgkt}", {"repository"}),
        ("{name: teacher_only}", {"training", "federation", "student", "labels"}),
    ],
)
def test_what_a_method_does_not_read_is_known(load: Callable[..., Any], method: str, unused: set[str]) -> None:
    scenario = load(f"method={method}")
    own = METHODS.get(scenario.method.name)(scenario.method, scenario)
    assert set(unused_blocks(own)) == unused
