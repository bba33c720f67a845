"""Rounds that wait for nobody: who is late is left out, and told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

FEDAVG = "method={name: fedavg}"
LINES = ("clients[0].link={up_mbps: 8, down_mbps: 8, latency_ms: 0}", "clients[1].link={up_mbps: 8, down_mbps: 8, latency_ms: 0}")
CLOCK = ("clock={step_s: 5.0}", "clients[1].compute_factor=0.5", *LINES)
"""Two steps take sites 0 and 1 10 s, site 2 20 s."""


@pytest.fixture(scope="module")
def message_s(record: Callable[..., Any]) -> float:
    """Seconds of one model on a line of 8 Mbit/s, which is a byte a microsecond."""
    download = record(FEDAVG, *CLOCK, "federation.schedule={name: deadline, deadline_s: 1000}").rounds[0][1]
    return float(sum(blob.nbytes for blob in download.values())) / 1e6


@pytest.fixture(scope="module")
def late(record: Callable[..., Any], message_s: float) -> Any:
    """Site 2 has sent half of its upload at the deadline."""
    return record(FEDAVG, *CLOCK, f"federation.schedule={{name: deadline, deadline_s: {20 + 1.5 * message_s!r}}}")


def test_a_deadline_that_all_meet_changes_nothing(record: Callable[..., Any], assert_same_tables: Callable[..., None]) -> None:
    in_time = record(FEDAVG, *CLOCK, "federation.schedule={name: deadline, deadline_s: 1000}").outcome
    synchronous = record(FEDAVG, *CLOCK).outcome
    assert_same_tables(in_time, synchronous)
    assert in_time.models == synchronous.models
    assert in_time.run.table("rounds")["simulated_s"].equals(synchronous.run.table("rounds")["simulated_s"])


def test_a_straggler_is_left_out_and_told(late: Any) -> None:
    rounds, events = late.outcome.run.table("rounds"), late.outcome.table("events")
    assert rounds["num_completed"].tolist() == [2, 2] and rounds["num_dropped"].tolist() == [1, 1]
    assert events["client_id"].tolist() == [2, 2] and set(events["kind"]) == {"straggler"}
    assert events["detail"].str.contains("work 20, upload").all()


def test_the_round_ends_at_the_deadline(late: Any, message_s: float) -> None:
    assert late.outcome.run.table("rounds")["simulated_s"].tolist() == pytest.approx([20 + 1.5 * message_s] * 2)


def test_of_a_late_upload_the_part_counts_that_had_crossed(late: Any, message_s: float) -> None:
    transfers = late.outcome.table("transfers")
    up = transfers[(transfers["direction"] == "up") & (transfers["round"] == 0)].set_index("client_id")["num_bytes"]
    assert up[0] == up[1] == round(message_s * 1e6)
    assert up[2] == pytest.approx(0.5 * up[0], abs=1)
    assert (transfers[transfers["direction"] == "down"]["num_bytes"] == up[0]).all()


def test_the_model_is_the_average_of_those_in_time(late: Any, tensors_in: Callable[..., dict[str, Any]]) -> None:
    first, second = ([tensors_in(reply.upload) for reply in replies[:2]] for _, _, replies in late.rounds)
    download = tensors_in(late.rounds[1][1])
    for key, value in download.items():
        assert value == pytest.approx((first[0][key].astype(float) + first[1][key]) / 2, rel=1e-6, abs=1e-7)
    assert second


def test_a_round_in_which_all_are_late_changes_no_model(record: Callable[..., Any]) -> None:
    nobody = record(FEDAVG, *CLOCK, "federation.schedule={name: deadline, deadline_s: 1}")
    (_, before, _), (_, after, _) = nobody.rounds
    assert all((before[kind] == after[kind]).all() for kind in before)
    assert nobody.outcome.run.table("rounds")["simulated_s"].tolist() == [1.0, 1.0]
    assert "up" not in set(nobody.outcome.table("transfers")["direction"].astype(str))
