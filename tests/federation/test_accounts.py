"""What a round cost, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from raykd.federation.accounts import round_row, round_transfers
from raykd.federation.cohort import Cohort
from raykd.federation.protocols import LocalReply
from raykd.federation.transport import seal, sizes_of
from raykd.scenario.load import scenario_from_dict
from raykd.scenario.sites import Client

PAYLOAD = {"params/w": torch.zeros(1000)}
SIZES = sizes_of(seal(PAYLOAD))


@pytest.fixture
def members(tiny: dict[str, Any], tmp_path: Any) -> tuple[Client, ...]:
    """Two sites: 8 Mbit/s up and 16 down without latency, at full and at half speed."""
    link = {"up_mbps": 8, "down_mbps": 16, "latency_ms": 0}
    group = {**tiny["clients"][0], "count": 1, "link": link}
    clients = [{**group, "group": "fast"}, {**group, "group": "slow", "compute_factor": 0.5}]
    return scenario_from_dict({**tiny, "clients": clients}, tmp_path).scenario.members()


def reply(client_id: int, train_s: float, *, counts: bool = True) -> LocalReply:
    events = () if counts else ({"kind": "excluded"},)
    return LocalReply(client_id, {}, seal(PAYLOAD), 1, 0, {"train_s": train_s, "coding_s": 0.0}, events)


def test_a_dropped_client_was_sent_the_download_and_answers_nothing(members: tuple[Client, ...]) -> None:
    rows = round_transfers(members, 3, Cohort((0, 1), (0,)), SIZES, {}, {0: SIZES})
    assert [(row["client_id"], row["direction"]) for row in rows] == [(0, "down"), (0, "up"), (1, "down")]
    assert {row["num_bytes"] for row in rows} == {seal(PAYLOAD)["params"].nbytes} and {row["num_values"] for row in rows} == {1000}
    assert {row["round"] for row in rows} == {3}


def test_the_slowest_site_ends_the_simulated_round(members: tuple[Client, ...]) -> None:
    """Slow site: 2 s of training at half speed are 4 s; its bytes take 8 b / 16e6 down and 8 b / 8e6 up. The server adds 0.25 s."""
    replies = [reply(0, 3.0), reply(1, 2.0)]
    transfers = round_transfers(members, 0, Cohort((0, 1), (0, 1)), SIZES, {}, {0: SIZES, 1: SIZES})
    row = round_row(members, 0, Cohort((0, 1), (0, 1)), replies, transfers, 2, wall_s=4.0, server_s=0.25)
    num_bytes = seal(PAYLOAD)["params"].nbytes
    assert row["simulated_s"] == pytest.approx(4.0 + 8 * num_bytes / 16e6 + 8 * num_bytes / 8e6 + 0.25)


def test_the_engine_is_what_is_left_of_the_wall_time(members: tuple[Client, ...]) -> None:
    """5 s of training on 2 slots keep them busy for 2.5 s of 4 s; the server took 0.25 s."""
    row = round_row(members, 0, Cohort((0, 1), (0, 1)), [reply(0, 3.0), reply(1, 2.0)], [], 2, wall_s=4.0, server_s=0.25)
    assert row["engine_s"] == pytest.approx(1.25)
    assert row["wall_s"] == 4.0 and row["server_s"] == 0.25


def test_counts(members: tuple[Client, ...]) -> None:
    row = round_row(members, 0, Cohort((0, 1), (1,)), [reply(1, 1.0, counts=False)], [], 1, wall_s=1.0, server_s=0.0)
    assert (row["num_selected"], row["num_completed"], row["num_dropped"]) == (2, 0, 1)
