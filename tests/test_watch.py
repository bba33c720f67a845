"""Events in words."""

from __future__ import annotations

import pytest

from raykd import watch
from raykd.watch import Lines


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands at its last element."""
    times = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: times[-1])
    return times


def step(lines: Lines, number: int) -> str:
    return str(lines.passing("teacher_step", {"network": "unet 8", "step": number, "total": 100, "loss": 0.5}))


def test_the_time_left_follows_the_pace(clock: list[float]) -> None:
    lines = Lines()
    assert step(lines, 20) == "unet 8: step 20 of 100"
    clock.append(10.0)
    assert step(lines, 40) == "unet 8: step 40 of 100, 30 s left"  # 2 steps a second, 60 to go


def test_a_second_training_does_not_inherit_the_pace_of_the_first(clock: list[float]) -> None:
    lines = Lines()
    step(lines, 20), step(lines, 100)
    clock.append(1000.0)
    assert step(lines, 20) == "unet 8: step 20 of 100"
    clock.append(1010.0)
    assert step(lines, 40) == "unet 8: step 40 of 100, 30 s left"


def test_what_stays_is_told_with_the_time_since_the_start(clock: list[float]) -> None:
    lines = Lines()
    clock.append(12.0)
    assert lines.permanent("evaluated", {"round": 4, "dsc": 0.5}) == "[  12.0 s]   round 5: mean DSC 0.500 on held-out cases"
    assert lines.permanent("client", {"client_id": 0, "round": 1, "loss": 0.1}) is None


def test_a_gpu_that_torch_does_not_see_is_told_of_once() -> None:
    lines = Lines()
    told = [lines.permanent("gpu_unseen", {}) for _ in range(2)]
    assert told[0] is not None and "run on the CPU" in told[0] and told[1] is None


def test_a_model_that_has_learnt_nothing_is_told_before_the_rounds(clock: list[float]) -> None:
    told = Lines().permanent("weak_start", {"detail": "the teacher reaches a mean DSC of 0.020"})
    assert told == "[   0.0 s]   beware: the teacher reaches a mean DSC of 0.020"


def test_a_lost_worker_is_told(clock: list[float]) -> None:
    told = Lines().permanent("worker_lost", {"slot": 0, "work": "local_update", "attempt": 1, "reason": "ActorDiedError: gone"})
    assert told is not None and "local_update" in told and "ActorDiedError: gone" in told
