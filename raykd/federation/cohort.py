"""Who takes part in a round, and who of them does not answer: drawn, so that it is the same in every run of a scenario and seed."""

from __future__ import annotations

from dataclasses import dataclass

from raykd.numerics.rng import numpy_generator
from raykd.scenario.schema import Federation


@dataclass(frozen=True)
class Cohort:
    """The clients of one round, by ascending id: those selected, and those of them that answer."""

    selected: tuple[int, ...]
    completed: tuple[int, ...]

    @property
    def dropped(self) -> tuple[int, ...]:
        """Selected, but silent."""
        return tuple(client_id for client_id in self.selected if client_id not in self.completed)


def draw_cohort(federation: Federation, num_clients: int, seed: int, round_index: int) -> Cohort:
    """Selects max(1, round(participation * num_clients)) clients without replacement; each then drops out with `client_dropout`.

    A simulated dropout is part of the scenario; a crashed worker is not, and is never reported as one.
    """
    size = max(1, round(federation.participation * num_clients))
    selected = sorted(numpy_generator(seed, "cohort", round_index).choice(num_clients, size=size, replace=False).tolist())
    answers = [
        numpy_generator(seed, "dropout", round_index, client_id).random() >= federation.client_dropout for client_id in selected
    ]
    return Cohort(tuple(selected), tuple(client_id for client_id, answer in zip(selected, answers, strict=True) if answer))
