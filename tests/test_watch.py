"""Events in words."""

from __future__ import annotations

import time

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
    assert step(lines, 20) == "training unet 8: step 20 of 100"
    clock.append(10.0)
    assert step(lines, 40) == "training unet 8: step 40 of 100, about 30 s left"  # 2 steps a second, 60 to go


def test_a_second_training_does_not_inherit_the_pace_of_the_first(clock: list[float]) -> None:
    lines = Lines()
    step(lines, 20), step(lines, 100)
    clock.append(1000.0)
    assert step(lines, 20) == "training unet 8: step 20 of 100"
    clock.append(1010.0)
    assert step(lines, 40) == "training unet 8: step 40 of 100, about 30 s left"


def test_two_networks_that_are_trained_side_by_side_have_each_its_own_pace(clock: list[float]) -> None:
    lines = Lines()

    def told(network: str, number: int) -> str:
        return str(lines.passing("teacher_step", {"network": network, "step": number, "total": 100, "loss": 0.5}))

    told("unet 8", 20), told("unet 16", 20)
    clock.append(10.0)
    assert told("unet 8", 60) == "training unet 8: step 60 of 100, about 10 s left"
    assert told("unet 16", 30) == "training unet 16: step 30 of 100, about 70 s left"


def test_what_stays_is_told_with_the_time_since_the_start(clock: list[float]) -> None:
    lines = Lines()
    clock.append(12.0)
    assert (
        lines.permanent("evaluated", {"round": 4, "dsc": 0.5})
        == "[  12.0 s]   round 5: DSC 0.500, mean of sites, on their test cases"
    )
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


def round_line(lines: Lines, number: int) -> str:
    return str(lines.passing("round", {"round": number, "total": 6, "clients": 2}))


def test_the_first_round_does_not_count_for_the_pace(clock: list[float]) -> None:
    """It takes 100 s because workers start in it; the others take 10 s."""
    lines = Lines()
    said = []
    for number, now in enumerate((0.0, 100.0, 110.0)):
        clock.append(now)
        said.append(round_line(lines, number))
    assert said == ["round 1 of 6, 2 clients", "round 2 of 6, 2 clients", "round 3 of 6, 2 clients, about 40 s left"]


def run_line(lines: Lines, number: int, left: list[str]) -> str:
    about = {"name": "knees", "method": left[0], "settings": "num_shots=2", "seed": 1}
    return str(lines.permanent("run", {**about, "index": number - 4, "number": number, "total": 8, "left": left})).split("] ")[1]


def test_runs_of_a_study_tell_their_place_their_settings_and_the_time_left(clock: list[float]) -> None:
    """The study goes on with its fourth run. The teacher is trained in 1,000 s before its rounds, which take 60 s."""
    lines, left = Lines(), ["local", "local", "dual_kd", "local", "dual_kd"]
    assert run_line(lines, 4, left) == "knees: run 4 of 8 - local - num_shots=2 - seed 1"
    clock.append(1000.0)
    lines.permanent("round", {"round": 0, "total": 6, "clients": 2})
    clock.append(1060.0)
    assert run_line(lines, 5, left[1:]) == "knees: run 5 of 8 - local - num_shots=2 - seed 1 - about 4 min left"
    clock.append(1140.0)
    assert run_line(lines, 6, left[2:]) == "knees: run 6 of 8 - dual_kd - num_shots=2 - seed 1 - about 4 min left"
    clock.append(1440.0)  # dual_kd took 300 s, local (60 + 80) / 2 = 70 s
    assert run_line(lines, 7, left[3:]) == "knees: run 7 of 8 - local - num_shots=2 - seed 1 - about 6 min left"


def test_a_pipe_is_told_what_is_being_done_where_nothing_else_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "SILENCE_S", 0.5)
    with watch.watch(quiet=False) as progress:
        progress("round", round=2, total=6, clients=2)
        time.sleep(1.3)
    told = capsys.readouterr().err
    assert told.splitlines()[0].endswith("]   starting") and "  at work: round 3 of 6, 2 clients\n" in told
