"""Rounds as the tables tell them: personal rounds, evaluation, what the first round is preceded by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Record = Callable[..., Any]
FEDAVG = "method={name: fedavg}"


@pytest.fixture(scope="module")
def personal(record: Record) -> Any:
    """Two federated rounds, then two personal ones."""
    return record(FEDAVG, "federation.rounds=4", "federation.personal_rounds=2")


def test_nothing_travels_in_personal_rounds(personal: Any) -> None:
    transfers = personal.outcome.table("transfers")
    assert sorted(transfers["round"].unique()) == [0, 1]
    assert personal.outcome.table("rounds")["num_completed"].tolist() == [3, 3, 3, 3]


def test_a_personal_round_goes_on_from_the_sites_own_model(personal: Any, tensors_in: Callable[..., dict[str, Any]]) -> None:
    before = {reply.client_id: tensors_in(reply.upload) for reply in personal.rounds[1][2]}
    for job in personal.rounds[2][0]:
        start = tensors_in(job.own)
        assert all((start[key] == value).all() for key, value in before[job.client_id].items())


def test_the_global_model_is_the_last_average_and_personal_ones_differ(personal: Any, record: Record) -> None:
    models = personal.outcome.models
    assert len({models[name] for name in models if name.startswith("personal")}) == 3
    finals = personal.outcome.table("cases").query("round == 3 and split == 'test'")
    assert set(finals["model"].astype(str)) == {"global", "personal"}
    at_the_end_of_the_federation = personal.outcome.table("cases").query("round == 1 and model == 'global'")["dsc"].tolist()
    assert finals[finals["model"] == "global"]["dsc"].tolist() == at_the_end_of_the_federation


def test_a_site_that_was_never_selected_is_sent_the_average_once(record: Record) -> None:
    """One of three sites takes part in a round, so at least one meets its first personal round without a model."""
    recording = record(FEDAVG, "federation.rounds=8", "federation.personal_rounds=7", "federation.participation=0.34")
    transfers = recording.outcome.table("transfers")
    assert (transfers.query("round > 0")["direction"].astype(str) == "down").all()
    first = recording.rounds[0][0][0].client_id
    sent = transfers.query("round > 0")["client_id"].tolist()
    took_part = {job.client_id for job in recording.jobs}
    assert sorted(sent) == sorted(took_part - {first}) and sent


def test_surface_metrics_come_with_the_last_evaluation_only(personal: Any) -> None:
    cases = personal.outcome.table("cases").query("client_id >= 0")
    last = cases["round"] == cases["round"].max()
    assert cases[last]["nsd"].notna().all() and cases[~last]["nsd"].isna().all()


def test_a_pooled_trainer_has_no_personal_rounds(record: Record) -> None:
    outcome = record("method={name: centralised}", "federation.rounds=3", "federation.personal_rounds=1").outcome
    assert outcome.table("training")["client_id"].tolist() == [-2, -2, -2]
    assert set(outcome.table("cases").query("client_id >= 0")["model"].astype(str)) == {"global"}


def test_calibration_is_counted_of_every_model_in_the_end_and_changes_no_other_table(
    personal: Any, record: Record, assert_same_tables: Callable[..., None]
) -> None:
    cases, counted = personal.outcome.table("cases"), personal.outcome.table("calibration")
    keys = ["round", "client_id", "split", "case_id", "model"]
    last = cases[(cases["round"] == 3) | (cases["client_id"] < 0)]
    assert set(map(tuple, counted[keys].to_numpy())) == set(map(tuple, last[keys].to_numpy()))
    assert (counted["num_correct"] <= counted["num_voxels"]).all() and (counted["sum_confidence"] <= counted["num_voxels"]).all()
    without = record(FEDAVG, "federation.rounds=4", "federation.personal_rounds=2", "evaluation.calibration=never").outcome
    assert without.table("calibration").empty
    assert_same_tables(personal.outcome, without, but=("calibration",))
    assert without.models == personal.outcome.models
