"""Work under way at the sites while the server goes on: what a checkpoint keeps of a schedule without rounds in step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from raykd.federation.protocols import Row
from raykd.federation.shelf import Place


@dataclass
class Flight:
    """One client at work on one of the server's models.

    Attributes:
        client_id: whose.
        version: the model that it was sent: the number of server updates before it.
        start_s: simulated time at which it was sent.
        received_s: time at which it has received all of it.
        finish_s: time at which it answers; None: its work has not been carried out here yet.
        training: its row of `training`.
        events: why its answer does not count; empty where it does.
        num_labelled, num_unlabelled: cases that it holds.
    """

    client_id: int
    version: int
    start_s: float
    received_s: float
    finish_s: float | None = None
    training: Row = field(default_factory=dict)
    events: list[Row] = field(default_factory=list)
    num_labelled: int = 0
    num_unlabelled: int = 0


@dataclass
class Air:
    """All that is under way, and what it needs.

    Attributes:
        now_s: simulated time since the first round began.
        flights: by when they were sent.
        versions: where the models lie that flights started from.
        uploads: where the answers lie of flights that were carried out, by client.
        states: and what these clients keep.
    """

    now_s: float = 0.0
    flights: list[Flight] = field(default_factory=list)
    versions: dict[int, Place] = field(default_factory=dict)
    uploads: dict[int, Place] = field(default_factory=dict)
    states: dict[int, Place] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All but the places."""
        return {"now_s": self.now_s, "flights": [asdict(flight) for flight in self.flights]}

    @classmethod
    def from_json(cls, told: Mapping[str, Any], places: Mapping[str, dict[int, Place]]) -> Air:
        """From `to_json` and the places by attribute. Raises what a wrong type raises."""
        return cls(float(told["now_s"]), [Flight(**flight) for flight in told["flights"]], **places)
