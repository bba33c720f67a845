"""Buffered asynchronous rounds: who answers when by hand, the limit in which they are FedAvg, and going on after a cut."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raykd.execution import run_plans
from raykd.launch import Plan, check_plans
from raykd.resume import resume_plan
from raykd.runtime.in_process import InProcessBackend
from raykd.scenario.errors import RunFailed, ScenarioError

ROOT = Path(__file__).parents[2]
FEDAVG = "method={name: fedavg}"
LINE = "{up_mbps: 1.0e+9, down_mbps: 1.0e+9, latency_ms: 0}"
SPEEDS = (
    "clock={step_s: 5.0}",
    f"clients[0].link={LINE}",
    f"clients[1].link={LINE}",
    "clients[0].compute_factor=0.25",
    "federation.rounds=4",
)
"""On lines that take no time worth telling, sites 0 and 1 take 40 s for their two steps, site 2 takes 10 s."""
BUFFER_OF_TWO = "federation.schedule={name: buffered, buffer_size: 2}"
SIMULATED = ("rounds", "training", "transfers")


@pytest.fixture(scope="module")
def two(record: Callable[..., Any]) -> Any:
    return record(FEDAVG, *SPEEDS, BUFFER_OF_TWO)


def test_sites_answer_in_the_order_of_a_hand_calculation(two: Any) -> None:
    """Model 1: site 2 at 10 s, then it waits; site 0 at 40 s. Model 2: site 1 at 40 s, of model 0; sites 0 and 2 are sent model 1
    at 40 s, site 2 is back at 50 s. Model 3: site 2 at 60 s, site 0 at 80 s, of model 1; site 1 is on model 1 since 40 s. Model 4:
    site 1 at 80 s, of model 1, and site 2, sent model 3 at 80 s, at 90 s.
    """
    training = two.outcome.run.table("training")
    by_hand = [(0, 2, 0), (0, 0, 0), (0, 1, 1), (1, 2, 0), (2, 2, 0), (1, 0, 1), (1, 1, 2), (3, 2, 0)]
    assert list(training[["round", "client_id", "staleness"]].itertuples(index=False, name=None)) == by_hand
    assert two.outcome.run.table("rounds")["simulated_s"].tolist() == pytest.approx([40, 10, 30, 10], abs=0.01)


def test_downloads_count_when_they_are_sent_and_uploads_when_they_arrive(two: Any) -> None:
    transfers = two.outcome.table("transfers")
    sent = transfers.groupby(["round", "direction"], observed=True)["client_id"].apply(sorted).to_dict()
    assert [sent[index, "up"] for index in range(4)] == [[0, 2], [1, 2], [0, 2], [1, 2]]
    assert [sent[index, "down"] for index in range(4)] == [[0, 1, 2], [0, 1, 2], [2], [0, 1, 2]]


def test_a_stale_update_counts_less(two: Any, tensors_in: Callable[..., dict[str, Any]]) -> None:
    """Model 2 is model 1 and half of site 2's update of it and half of site 1's of model 0 over sqrt(2)."""
    uploads = {(reply.training["round"], reply.client_id): tensors_in(reply.upload) for reply in two.replies}
    models = {jobs[0].round_index: tensors_in(download) for jobs, download, _ in two.rounds}
    for key, now in models[2].items():
        v, w = models[0][key].astype(float), models[1][key].astype(float)
        expected = w + 0.5 * (uploads[1, 2][key] - w) + 0.5 / np.sqrt(2) * (uploads[0, 1][key] - v)
        assert now == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_buffer_of_all_clients_is_fedavg_to_the_last_bit(record: Callable[..., Any]) -> None:
    """A site trains once on a model, so nobody gets ahead, at whatever speeds."""
    dropout = "federation.client_dropout=0.3"
    buffered = record(FEDAVG, *SPEEDS, dropout, "federation.schedule={name: buffered, buffer_size: 3}").outcome
    synchronous = record(FEDAVG, *SPEEDS, dropout).outcome
    assert buffered.models == synchronous.models
    assert buffered.table("cases").equals(synchronous.table("cases"))
    one, other = (run.run.table("rounds")["simulated_s"].to_numpy() for run in (buffered, synchronous))
    assert one == pytest.approx(other, rel=1e-9)


def test_the_order_in_which_work_is_done_here_changes_nothing(
    two: Any, record: Callable[..., Any], assert_same_tables: Callable[..., None]
) -> None:
    other = record(FEDAVG, *SPEEDS, BUFFER_OF_TWO, again=True).outcome
    assert_same_tables(two.outcome, other)
    assert two.outcome.models == other.models


def test_a_run_that_was_cut_off_goes_on_with_what_was_under_way(
    two: Any, load: Callable[..., Any], tmp_path: Path, outcome_at: Callable[..., Any], assert_same_tables: Callable[..., None]
) -> None:
    class Cut(Exception):
        pass

    class CutOff(InProcessBackend):
        def local_updates(self, jobs: Any, download: Any) -> Any:
            if jobs[0].round_index == 2:
                raise Cut
            return super().local_updates(jobs, download)

    def silent(event: str, **values: Any) -> None:
        pass

    plan = Plan(tmp_path / "run", "fedavg", load(FEDAVG, *SPEEDS, BUFFER_OF_TWO), ROOT)
    with pytest.raises(RunFailed, match="Cut"):
        run_plans([plan], CutOff(silent), silent, threading.Event())
    run_plans([resume_plan(plan.run_dir)], InProcessBackend(silent), silent, threading.Event())
    resumed = outcome_at(plan.run_dir)
    assert_same_tables(two.outcome, resumed)
    assert two.outcome.models == resumed.models
    for table in SIMULATED:
        assert two.outcome.run.table(table)["simulated_s"].equals(resumed.run.table(table)["simulated_s"])


def test_no_more_sites_train_than_there_are_places(record: Callable[..., Any]) -> None:
    words = "federation.schedule={name: buffered, buffer_size: 1, concurrency: 1, server_learning_rate: 0.5}"
    one_by_one = record(FEDAVG, *SPEEDS, words).outcome
    rounds = one_by_one.run.table("rounds")
    assert rounds["num_selected"].tolist() == rounds["num_completed"].tolist() == [1, 1, 1, 1]
    assert one_by_one.table("training")["staleness"].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("name", ["scaffold", "fedproto", "feddf", "rscfed"])
def test_a_method_that_needs_its_clients_in_step_is_refused(name: str, load: Callable[..., Any]) -> None:
    scenario = load(f"method={{name: {name}}}", *SPEEDS, BUFFER_OF_TWO)
    with pytest.raises(ScenarioError, match=f"method {name} needs its clients in step"):
        check_plans([Plan(Path("unused"), name, scenario, ROOT)])
