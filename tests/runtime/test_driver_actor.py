"""What a driver actor remembers for those who follow it; a plain class until Ray makes it an actor."""

from __future__ import annotations

import pytest

from raykd.runtime import ray_session
from raykd.runtime.ray_session import DriverActor


def test_of_many_events_the_last_are_kept_and_none_is_told_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "NUM_KEPT", 5)
    monkeypatch.setattr(ray_session, "POLL_S", 0.0)
    driver = DriverActor({"name": "one"}, is_detached=False)
    driver.note("run", {"number": 0})
    told, seen = [], 0
    for number in range(40):
        driver.note("round", {"round": number})
        if number % 3 == 0:
            events, seen, _ = driver.poll(seen)
            told += events
    assert told == [("run", {"number": 0}), *(("round", {"round": number}) for number in range(40))]
    late, num_told, has_ended = driver.poll(0)
    assert (num_told, has_ended) == (41, False)
    assert 5 <= len(late) <= 10 and late[-1] == ("round", {"round": 39})
    assert driver.describe()["latest"] == {"run": {"number": 0}, "round": {"round": 39}}
