"""Budgets end a run after the round in which the first is met, evaluated as at its end."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raykd.execution import run_plans
from raykd.failpoints import arm
from raykd.federation.budget import reached, spent
from raykd.federation.score import mean_dsc
from raykd.launch import Plan
from raykd.resume import resume_plan
from raykd.runtime.in_process import InProcessBackend
from raykd.scenario.errors import RunFailed
from raykd.scenario.timing import Stop

FEDAVG = "method={name: fedavg}"
PATIENTS = itertools.count()


def row(
    client_id: int, dsc: float | None, *, split: str = "validation", model: str = "global", is_empty: bool = False
) -> dict[str, Any]:
    patient = f"{next(PATIENTS)}"
    ids = {"case_id": patient, "patient_id": patient}
    return {"client_id": client_id, "split": split, "model": model, "dsc": dsc, "is_ref_empty": is_empty, **ids}


def test_what_is_spent_is_told_in_the_words_of_the_scenario() -> None:
    totals = {"num_bytes": 2.5e9, "simulated_s": 7200.0}
    assert spent(Stop(), totals) == spent(Stop(gigabytes=2.6, simulated_hours=2.1), totals) == ""
    assert spent(Stop(gigabytes=2.5), totals) == "federation.stop.gigabytes: 2.5 of 2.5 have crossed"
    assert spent(Stop(simulated_hours=2), totals) == "federation.stop.simulated_hours: 2 of 2 have passed"


def test_a_target_is_measured_on_validation_cases_with_equal_weight_for_each_client() -> None:
    """Client 0: (0.9 + 0.5 + 0.7) / 3 = 0.7, client 1: 0.5; test cases, empty classes and the repository's cases do not count."""
    rows = [row(0, 0.9), row(0, 0.5), row(0, 0.7), row(1, 0.5), row(1, None, is_empty=True)]
    rows += [row(1, 1.0, split="test"), row(-1, 1.0, model="teacher")]
    assert mean_dsc(rows, "validation", "global") == mean_dsc(rows, "validation", "personal") == pytest.approx(0.6)
    # Where client 0 has a model of its own, that one counts there, and the shared one still counts at client 1.
    own = row(0, 0.2, model="personal")
    assert mean_dsc([*rows, own], "validation", "personal") == pytest.approx((0.2 + 0.5) / 2)
    assert mean_dsc([], "test", "global") is None
    assert reached(Stop(dsc=0.59), rows, "global") == "federation.stop.dsc: 0.6000 of 0.59 on validation cases"
    assert reached(Stop(dsc=0.61), rows, "global") == reached(Stop(), rows, "global") == reached(Stop(dsc=0.1), [], "global") == ""


def test_classes_are_averaged_before_cases_cases_before_patients_and_patients_before_sites() -> None:
    """Site 0: patient a has visits (0.2 + 0.4) / 2 = 0.3 and 0.9, so 0.6, patient b 0.8: 0.7. Site 1: 0.1. Together 0.4."""
    told = [(0, "a", "a1", 0.2), (0, "a", "a1", 0.4), (0, "a", "a2", 0.9), (0, "b", "b1", 0.8), (1, "a", "a1", 0.1)]
    rows = [row(site, dsc, split="test") | {"patient_id": who, "case_id": case} for site, who, case, dsc in told]
    assert mean_dsc(rows, "test", "global") == pytest.approx(0.4)


def test_a_run_ends_after_the_round_in_which_its_bytes_are_used_up(record: Callable[..., Any]) -> None:
    """Every round sends six models; a budget of 13 of them is met in the third of five rounds."""
    (message,) = {len(blob) for blob in record(FEDAVG).rounds[0][1].values()}
    outcome = record(FEDAVG, "federation.rounds=5", f"federation.stop.gigabytes={13 * message / 1e9}").outcome
    assert outcome.table("rounds")["round"].tolist() == [0, 1, 2]
    (event,) = outcome.table("events").to_dict("records")
    assert (event["round"], event["client_id"], event["kind"]) == (2, -1, "stopped")
    assert event["detail"].endswith("have crossed after 3 of 5 rounds")
    cases = outcome.table("cases").query("client_id >= 0")
    assert cases["round"].max() == 2 and cases[cases["round"] == 2]["nsd"].notna().all()
    assert outcome.run.manifest["status"] == "done" and "global.safetensors" in outcome.models


def silent(event: str, **values: Any) -> None:
    pass


class Learner(InProcessBackend):
    """Its models score 0.4 after the first round and 0.6 after the second, on validation cases alone."""

    def evaluate(self, jobs: Any, shared: Any) -> Any:
        for reply in super().evaluate(jobs, shared):
            marks = {-1: 0.0, 0: 0.4, 1: 0.6}
            yield replace(
                reply,
                cases=tuple(
                    case | {"dsc": marks[case["round"]] if case["split"] == "validation" else 0.0, "is_ref_empty": False}
                    for case in reply.cases
                ),
            )


def test_a_target_ends_a_run_and_is_evaluated_as_its_last_round(
    load: Callable[..., Any], tmp_path: Path, outcome_at: Callable[..., Any]
) -> None:
    words = ("clients[1].num_validation=1", "clients[1].source.num_cases=4", "federation.rounds=4", "federation.stop.dsc=0.5")
    plan = Plan(tmp_path / "run", "fedavg", load(FEDAVG, *words), tmp_path)
    run_plans([plan], Learner(silent), silent, threading.Event())
    outcome = outcome_at(plan.run_dir)
    assert outcome.table("rounds")["round"].tolist() == [0, 1]
    assert outcome.table("events")["detail"].tolist() == [
        "federation.stop.dsc: 0.6000 of 0.5 on validation cases after 2 of 4 rounds"
    ]
    cases = outcome.table("cases").query("client_id >= 0")
    assert cases[cases["round"] == 1]["nsd"].notna().all() and cases[cases["round"] == 0]["nsd"].isna().all()


def test_a_run_that_a_budget_ended_does_not_go_on_when_it_is_resumed(
    load: Callable[..., Any], tmp_path: Path, outcome_at: Callable[..., Any]
) -> None:
    """It dies after its last checkpoint and before its models are written."""

    words = ("federation.rounds=5", "clock={step_s: 3600}", "federation.stop.simulated_hours=3")
    plan = Plan(tmp_path / "run", "fedavg", load(FEDAVG, *words), tmp_path)
    arm("models.before_write=raise")
    with pytest.raises(RunFailed):
        run_plans([plan], InProcessBackend(silent), silent, threading.Event())
    arm("")
    run_plans([resume_plan(plan.run_dir)], InProcessBackend(silent), silent, threading.Event())
    assert outcome_at(plan.run_dir).table("rounds")["round"].tolist() == [0, 1]
