"""Time on a line by hand: loss as retransmission and as what bounds one TCP connection, jitter as an address."""

from __future__ import annotations

import numpy as np
import pytest

from raykd.federation.lines import goodput_mbps, jitter_seconds, link_seconds
from raykd.scenario.sites import Link


def test_lost_packets_are_sent_again() -> None:
    """Without latency nothing bounds the connection: 20 % loss leaves 8 of 10 Mbit/s."""
    link = Link(up_mbps=10, down_mbps=50, latency_ms=0, loss=0.2)
    assert goodput_mbps(link, "up") == pytest.approx(8.0) and goodput_mbps(link, "down") == pytest.approx(40.0)
    assert link_seconds(1_000_000, "up", link) == pytest.approx(1.0)


def test_one_connection_over_a_long_line_is_bound_by_mathis() -> None:
    """1460 bytes in a round trip of 40 ms are 0.292 Mbit/s; sqrt(3/2) / sqrt(0.0001) is 122.47, so 35.76 of 100 Mbit/s."""
    link = Link(up_mbps=100, down_mbps=10, latency_ms=20, loss=1e-4)
    assert goodput_mbps(link, "up") == pytest.approx(35.762, rel=1e-4)
    assert goodput_mbps(link, "down") == pytest.approx(10 * (1 - 1e-4))


def test_a_line_without_loss_carries_its_rate() -> None:
    assert goodput_mbps(Link(up_mbps=10, latency_ms=500), "up") == 10.0


def test_jitter_is_drawn_at_the_message_s_address_with_the_mean_that_is_stated() -> None:
    link = Link(jitter_ms=4.0)
    waits = [jitter_seconds(link, 7, "upload", round_index, 2) for round_index in range(2000)]
    assert np.mean(waits) == pytest.approx(0.004, rel=0.1) and min(waits) >= 0.0
    assert waits[5] == jitter_seconds(link, 7, "upload", 5, 2) != jitter_seconds(link, 7, "download", 5, 2)
    assert jitter_seconds(Link(), 7, "upload", 5, 2) == 0.0
