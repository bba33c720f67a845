"""Codecs in a federation: what is aggregated is what arrived, what a client keeps for later is its own, and the tables say so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raykd.federation.transport import is_coded, seal, unseal
from raykd.launch import Plan, check_plans
from raykd.numerics.params import select
from raykd.scenario.errors import ScenarioError

ROOT = Path(__file__).parents[2]
FEDAVG = "method={name: fedavg}"
CODED = (
    "traffic={up: {params: [{name: top_k, share: 0.05}, {name: qsgd}]}, down: {params: [{name: int8}], teacher: [{name: fp16}]}}"
)
LOW_RANK = "traffic={up: {params: [{name: power_sgd}, {name: fp16}]}}"
THIN = "method={name: fedmd, kept_classes: 2, kept_share: 0.2, kept_confidence: 0.5}"
Record = Callable[..., Any]


def test_no_codecs_are_no_change(record: Record) -> None:
    plain, empty = record(FEDAVG), record(FEDAVG, "traffic={up: {params: []}}")
    assert plain.outcome.models == empty.outcome.models
    for (_, one, _), (_, other, _) in zip(plain.rounds, empty.rounds, strict=True):
        assert all(np.array_equal(one[kind], other[kind]) for kind in one)


def test_the_server_averages_what_arrived(record: Record) -> None:
    recording = record(FEDAVG, CODED)
    _, download, replies = recording.rounds[-1]
    assert is_coded(download) and all(is_coded(reply.upload) for reply in replies)
    arrived = [unseal(reply.upload, unseal(download)) for reply in replies]
    model = recording.outcome.tensors("global")
    for key, value in select(arrived[0], "params").items():
        mean = sum(upload[key].double() for upload in arrived) / len(arrived)
        assert np.allclose(model[key], mean.to(value.dtype).numpy(), atol=1e-7)


def test_transfers_name_the_codecs_and_count_the_values_that_a_message_stands_for(record: Record) -> None:
    transfers, plain = (record("method={name: dual_kd}", *more).outcome.table("transfers") for more in ((CODED,), ()))
    told = transfers.groupby(["direction", "kind"], observed=True).codec.agg(set).to_dict()
    assert told == {("down", "params"): {"int8"}, ("down", "teacher"): {"fp16"}, ("up", "params"): {"top_k+qsgd"}}
    keys = ["round", "client_id", "direction", "kind"]
    both = transfers.merge(plain, on=keys, suffixes=("", "_plain"))
    assert len(both) == len(plain) and (both.num_values == both.num_values_plain).all()
    assert (both.num_bytes < both.num_bytes_plain).all() and (both.simulated_s < both.simulated_s_plain).all()


def test_coding_is_measured_and_work_that_is_measured_holds_it(record: Record) -> None:
    """Two sites of half the speed and one of full speed; a clock that counts steps does not ask what else took time."""
    training = record(FEDAVG, CODED, "clients[0].compute_factor=0.5").outcome.run.table("training")
    assert (training["coding_s"] > 0).all()
    measured = (training["train_s"] + training["coding_s"]) / np.where(training["client_id"] < 2, 0.5, 1.0)
    assert np.allclose(training["simulated_s"], measured, rtol=1e-12)
    clocked = record(FEDAVG, CODED, "clock={step_s: 3}").outcome.run.table("training")
    assert set(clocked["simulated_s"]) == {6.0} and (clocked["coding_s"] > 0).all()


def test_clients_keep_what_was_not_sent_and_no_link_carries_it(record: Record) -> None:
    recording = record(FEDAVG, CODED)
    for jobs, download, replies in recording.rounds:
        assert all(("memory" in job.state) == (job.round_index > 0) for job in jobs)
        assert all("memory" in reply.state and "memory" not in reply.upload for reply in replies) and "memory" not in download


def test_the_teacher_that_is_judged_is_the_one_that_arrived(record: Record) -> None:
    recording = record("method={name: dual_kd}", CODED)
    arrived = unseal(recording.teacher)
    model = recording.outcome.tensors("teacher")
    for key, value in arrived.items():
        assert np.array_equal(model[key.replace("teacher/", "params/")], value.numpy())


@pytest.mark.parametrize(
    "overrides",
    [(FEDAVG, CODED), (FEDAVG, LOW_RANK), ("method={name: fedbn}", LOW_RANK), (THIN,)],
    ids=["top_k", "power_sgd", "fedbn", "thinned"],
)
def test_a_resumed_run_is_the_run_that_was_not_cut_off(
    overrides: tuple[str, ...],
    load: Callable[..., Any],
    record: Record,
    tmp_path: Path,
    cut_and_resumed: Callable[..., Any],
    assert_same_tables: Callable[..., None],
) -> None:
    scenario = load(*overrides)
    straight, resumed = record(*overrides).outcome, cut_and_resumed(scenario, tmp_path / "run")
    assert_same_tables(straight, resumed)
    assert straight.models == resumed.models


def test_personal_rounds_send_nothing_and_keep_what_waits(record: Record) -> None:
    recording = record(FEDAVG, CODED, "federation={rounds: 2, personal_rounds: 1}")
    (_, _, first), (_, _, last) = recording.rounds
    for before, after in zip(first, last, strict=True):
        assert np.array_equal(before.state["memory"], after.state["memory"]) and not is_coded(after.upload)
    assert set(recording.outcome.table("transfers")["round"]) == {0}


def test_a_group_has_codecs_of_its_own(record: Record) -> None:
    recording = record(FEDAVG, "traffic={up: {params: [{name: int8}]}}", "clients[1].traffic={up: {params: [{name: fp16}]}}")
    up = recording.outcome.table("transfers").query("direction == 'up'")
    assert up.groupby("client_id").codec.first().tolist() == ["int8", "int8", "fp16"]


@pytest.mark.parametrize(
    ("traffic", "path", "rule"),
    [
        ("{up: {params: [{name: topk}]}}", "traffic.up.params[0]", "unknown codec 'topk'; did you mean 'top_k'?"),
        ("{up: {parms: []}}", "traffic.up.parms", "unknown key; did you mean 'params'?"),
        ("{up: {params: [{name: top_k, share: 0}]}}", "traffic.up.params[0].share", "must be more than 0"),
        ("{down: {params: [{name: top_k}]}}", "traffic.down.params[0]", "clients that missed a round hold other models"),
        ("{up: {logits: [{name: stc}]}}", "traffic.up.logits[0]", "of logits the receiver holds nothing that changed"),
        ("{up: {params: [{name: int8}, {name: fp16}]}}", "traffic.up.params[0]", "must come last"),
        ("{up: {params: [{name: top_k}, {name: stc}]}}", "traffic.up.params[1]", "must come first"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(traffic: str, path: str, rule: str, load: Callable[..., Any]) -> None:
    with pytest.raises(ScenarioError) as refusal:
        load(FEDAVG, f"traffic={traffic}")
    assert path in str(refusal.value) and rule in str(refusal.value)


def test_a_method_that_packs_its_parameters_has_no_codecs_for_them(load: Callable[..., Any], tmp_path: Path) -> None:
    scenario = load("method={name: fedkd}", LOW_RANK)
    with pytest.raises(ScenarioError, match="method fedkd packs its parameters itself"):
        check_plans([Plan(tmp_path / "run", "fedkd", scenario, ROOT)])
    check_plans([Plan(tmp_path / "run", "fedkd", load("method={name: fedkd}"), ROOT)])


def test_sealing_for_a_checkpoint_is_not_coded(record: Record) -> None:
    recording = record(FEDAVG, CODED)
    assert not any(is_coded(reply.state) for reply in recording.replies) and not is_coded(seal(unseal(recording.replies[0].state)))
