"""How long a message takes on a client's line."""

from __future__ import annotations

import math
from typing import Literal

from raykd.numerics.rng import numpy_generator
from raykd.scenario.sites import Link

Direction = Literal["down", "up"]

SEGMENT_BYTES = 1460
"""Payload of a TCP segment in an Ethernet frame of 1500 bytes."""


def goodput_mbps(link: Link, direction: Direction) -> float:
    """Megabits of a payload that a line carries in a second.

    Packets that are lost are sent again, 1 / (1 - p) times each on average, so a rate R leaves R (1 - p). One TCP connection also
    backs off at every loss and carries at most (MSS / RTT) sqrt(3 / 2) / sqrt(p) (Mathis et al., ACM SIGCOMM Computer
    Communication Review 27(3), 1997, https://doi.org/10.1145/263932.264023). The smaller of the two counts; without loss it is R.
    """
    rate = link.down_mbps if direction == "down" else link.up_mbps
    if link.loss == 0.0:
        return rate
    round_trip_s = 2.0 * link.latency_ms / 1e3
    bound = 8e-6 * SEGMENT_BYTES * math.sqrt(1.5 / link.loss) / round_trip_s if round_trip_s else math.inf
    return min(rate * (1.0 - link.loss), bound)


def link_seconds(num_bytes: float, direction: Direction, link: Link, *, with_latency: bool = True) -> float:
    """Seconds that bytes take on a link: 8 bytes / (Mbit/s * 10^6), plus the latency once a message."""
    return 8.0 * num_bytes / (goodput_mbps(link, direction) * 1e6) + (link.latency_ms / 1e3 if with_latency else 0.0)


def jitter_seconds(link: Link, seed: int, message: str, round_index: int, client_id: int) -> float:
    """What one message waits beyond the latency, drawn from an exponential distribution of mean `jitter_ms`.

    Args:
        link: of the client.
        seed: of the scenario.
        message: what it is in its round: hand-out, download, extra or upload.
        round_index, client_id: whose it is.
    """
    if link.jitter_ms == 0.0:
        return 0.0
    return float(numpy_generator(seed, f"jitter-{message}", round_index, client_id).exponential(link.jitter_ms / 1e3))
