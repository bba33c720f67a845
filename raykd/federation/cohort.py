"""Who takes part in a round, and who of them does not answer: drawn, so that it is the same in every run of a scenario and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raykd.federation.protocols import Row
from raykd.numerics.rng import numpy_generator
from raykd.scenario.sites import Availability, Client
from raykd.scenario.timing import Federation


@dataclass(frozen=True)
class Cohort:
    """The clients of one round, by ascending id: those selected, and those of them that answer."""

    selected: tuple[int, ...]
    completed: tuple[int, ...]

    @property
    def dropped(self) -> tuple[int, ...]:
        """Selected, but silent."""
        return tuple(client_id for client_id in self.selected if client_id not in self.completed)


def availability_of(members: Sequence[Client], rounds: int) -> list[Availability]:
    """When each client takes part: one that is held out joins after the last round."""
    return [Availability(joins=rounds) if member.held_out else member.group.availability for member in members]


def draw_cohort(federation: Federation, availability: Sequence[Availability], seed: int, round_index: int) -> Cohort:
    """Selects participation of the clients that are there, at least one, without replacement; some of them then drop out.

    A simulated dropout is part of the scenario; a crashed worker is not, and is never reported as one.

    Args:
        federation: its `participation`, and the `client_dropout` of clients that have no probability of their own.
        availability: of each client, by id.
        seed: of the scenario.
        round_index: from 0. A round in which nobody is there has an empty cohort.
    """
    present = [client_id for client_id, own in enumerate(availability) if is_present(own, round_index)]
    size = min(len(present), max(1, round(federation.participation * len(present))))
    places = (
        sorted(numpy_generator(seed, "cohort", round_index).choice(len(present), size=size, replace=False).tolist()) if size else []
    )
    selected = [present[place] for place in places]
    completed = [client_id for client_id in selected if not is_dropped(federation, availability, seed, round_index, client_id)]
    return Cohort(tuple(selected), tuple(completed))


def is_dropped(federation: Federation, availability: Sequence[Availability], seed: int, round_index: int, client_id: int) -> bool:
    """Whether a client that is selected in a round does not answer."""
    own = availability[client_id].dropout
    dropout = federation.client_dropout if own is None else own
    return bool(numpy_generator(seed, "dropout", round_index, client_id).random() < dropout)


def is_present(availability: Availability, round_index: int) -> bool:
    """Whether a client has joined and not yet left."""
    return availability.joins <= round_index and (availability.leaves is None or round_index < availability.leaves)


def cohort_events(cohort: Cohort, availability: Sequence[Availability], round_index: int) -> list[Row]:
    """Rows of `events`: who dropped out, whose first round this is where it is not the first of all, and who has just left."""
    told = []
    for client_id in cohort.dropped:
        setting = "federation.client_dropout" if availability[client_id].dropout is None else "availability.dropout"
        told.append((client_id, "dropout", f"drawn with {setting}"))
    for client_id, own in enumerate(availability):
        if own.joins == round_index > 0:
            told.append((client_id, "joined", f"availability.joins: {own.joins} is its first round"))
        if own.leaves == round_index:
            told.append((client_id, "left", f"availability.leaves: {own.leaves} is the first round without it"))
    return [{"round": round_index, "client_id": client_id, "kind": kind, "detail": detail} for client_id, kind, detail in told]
