"""The words of a scenario for how rounds follow one another in time: the clock, the schedule, and what ends a run early."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from raykd.scenario.fields import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Strict


class Clock(Strict):
    """What work takes at the sites. Without it, simulated seconds hold the compute that was measured here."""

    step_s: PositiveFloat | None = None
    """Seconds of one optimiser step on a machine with `compute_factor: 1`; then nothing simulated depends on the machine that runs
    raykd. Absent: the local update as measured."""
    server_s: NonNegativeFloat = 0.0
    """Seconds that the server takes in a round, where `step_s` is given; otherwise as measured."""


class Schedule(Strict):
    """When the server goes on to its next model."""

    name: Literal["synchronous", "deadline", "buffered"] = "synchronous"
    """`synchronous`: when all have answered; `deadline`: then, or at the deadline without those that are late; `buffered`: whenever
    so many updates are in, while the other sites train on (FedBuff)."""
    deadline_s: PositiveFloat | None = None
    """Simulated seconds from the broadcast after which the server waits no longer. For `deadline`."""
    buffer_size: PositiveInt | None = None
    """Updates that make the server's next model [K]. For `buffered`."""
    concurrency: PositiveInt | None = None
    """Sites that train at a time [M_c]; absent: all. For `buffered`."""
    staleness_exponent: NonNegativeFloat | None = None
    """An update that started tau models ago is multiplied by (1 + tau)^-a [a]; 0: by 1; absent: 0.5. For `buffered`."""
    server_learning_rate: PositiveFloat | None = None
    """Factor on every update [eta_g]; absent: 1. For `buffered`."""

    @model_validator(mode="after")
    def _has_its_own_words(self) -> Schedule:
        needed = {"deadline": ("deadline_s",), "buffered": ("buffer_size",)}.get(self.name, ())
        known = {"buffered": ("buffer_size", "concurrency", "staleness_exponent", "server_learning_rate")}.get(self.name, needed)
        for key in needed:
            if getattr(self, key) is None:
                raise PydanticCustomError("schedule", "{key} must be given for name: {name}", {"key": key, "name": self.name})
        for key in self.model_fields_set - {"name", *known}:
            if getattr(self, key) is not None:
                raise PydanticCustomError("schedule", "has no meaning for name: {name}", {"name": self.name, "at": key})
        return self


class Stop(Strict):
    """Budgets: the run ends after the round in which the first is met, evaluated as at its end. Absent: `rounds` alone ends it."""

    dsc: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Mean DSC on the sites' validation cases, judged where rounds are evaluated; test cases decide nothing."""
    gigabytes: PositiveFloat | None = None
    """10^9 bytes over all links, both directions, the hand-out before the first round among them."""
    simulated_hours: PositiveFloat | None = None
    """At the sites' links and machines; needs `clock.step_s`, so that every run of a scenario ends at the same round."""


class Federation(Strict):
    """How the federation proceeds."""

    rounds: PositiveInt = 20
    """Broadcast, local update, upload, aggregate: so many times."""
    personal_rounds: NonNegativeInt = 0
    """How many of the rounds, the last ones, every site goes on alone from its own model: nothing travels, and `personal` is
    what it deploys."""
    participation: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the clients selected in a round (at least one)."""
    client_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Probability that a selected client does not answer."""
    schedule: Schedule = Schedule()
    stop: Stop = Stop()


def timing_problems(federation: Federation, clock: Clock, num_clients: int, num_validation: int) -> Iterator[tuple[str, str]]:
    """Key path and rule of what in a scenario's timing cannot be.

    Args:
        federation, clock: as written.
        num_clients: that train.
        num_validation: validation cases of the clients that train; one that is held out has none.
    """
    schedule, stop = federation.schedule, federation.stop
    if clock.step_s is None and schedule.name != "synchronous":
        yield "federation.schedule", f"{schedule.name} orders sites by time, so clock.step_s must be given"
    if clock.step_s is None and stop.simulated_hours is not None:
        yield "federation.stop.simulated_hours", "needs clock.step_s, so that it does not depend on the machine that runs raykd"
    if stop.dsc is not None and num_validation == 0:
        yield "federation.stop.dsc", "is judged on validation cases, and no client that trains has any; give clients num_validation"
    if schedule.name == "buffered":
        if federation.personal_rounds:
            yield "federation.personal_rounds", "must be 0 where schedule is buffered: sites have no rounds in common"
        if federation.participation != 1.0:
            yield "federation.participation", "must be 1 where schedule is buffered; limit schedule.concurrency instead"
        for key in ("buffer_size", "concurrency"):
            if (getattr(schedule, key) or 1) > num_clients:
                yield f"federation.schedule.{key}", f"must be at most the number of clients, {num_clients}"
