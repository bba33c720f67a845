"""The simulated clock: what a run's tables say equals what one reckons by hand from bytes at the seam, steps and lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

TWO_SITES = (
    "clients[0].count=1",
    "clients[0].link={up_mbps: 8, down_mbps: 16, latency_ms: 25}",
    "clients[1].link={up_mbps: 80, down_mbps: 80, latency_ms: 0}",
    "clients[0].compute_factor=2.0",
    "clients[1].compute_factor=0.5",
    "clock={step_s: 3.0, server_s: 0.25}",
)
"""At 3 s a step, two steps take the first site 3 s and the second 12 s."""


@pytest.fixture(scope="module")
def two_sites(record: Callable[..., Any]) -> Any:
    return record("method={name: fedavg}", *TWO_SITES)


def num_bytes(envelope: Any) -> int:
    return int(sum(blob.nbytes for blob in envelope.values()))


def test_a_round_of_two_sites_takes_what_a_hand_calculation_gives(two_sites: Any) -> None:
    rows = two_sites.outcome.run.table("rounds")
    for (_, download, replies), simulated_s in zip(two_sites.rounds, rows["simulated_s"], strict=True):
        down, (up_0, up_1) = num_bytes(download), [num_bytes(reply.upload) for reply in replies]
        first = (0.025 + 8 * down / 16e6) + 2 * 3.0 / 2.0 + (0.025 + 8 * up_0 / 8e6)
        second = 8 * down / 80e6 + 2 * 3.0 / 0.5 + 8 * up_1 / 80e6
        assert simulated_s == pytest.approx(max(first, second) + 0.25, rel=1e-12)
        assert second > first


def test_what_is_simulated_is_the_same_in_every_run(two_sites: Any, record: Callable[..., Any]) -> None:
    again = record("method={name: fedavg}", *TWO_SITES, fresh=True)
    for table in ("rounds", "training", "transfers"):
        one, other = (which.outcome.run.table(table)["simulated_s"] for which in (two_sites, again))
        assert one.notna().all() and np.array_equal(one, other)
    assert two_sites.outcome.run.table("training")["simulated_s"].tolist() == [3.0, 12.0] * 2


def test_the_clock_counts_the_steps_of_a_teacher_s_adaptation_too(record: Callable[..., Any]) -> None:
    training = record("method={name: dual_kd, teacher: adapted, adapt_steps: 2}").outcome.run.table("training")
    assert training[training["round"] == 0]["num_steps_taken"].tolist() == [4, 4, 4]
    assert training["num_steps"].tolist() == [2] * 6
    alone = record("method={name: fedavg}").outcome.run.table("training")["flops"]
    assert (training["flops"].to_numpy()[:3] > alone.to_numpy()[:3]).all() and alone.gt(0).all()


def test_a_clock_changes_no_model_and_no_byte(two_sites: Any, record: Callable[..., Any]) -> None:
    without = record("method={name: fedavg}", *TWO_SITES[:-1])
    assert without.outcome.models == two_sites.outcome.models
    columns = ["round", "client_id", "direction", "kind", "num_bytes"]
    one, other = (which.outcome.table("transfers")[columns] for which in (without, two_sites))
    assert one.equals(other)
