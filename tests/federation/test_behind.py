"""Writing behind the driver's back: in order, nothing lost, errors told, and really beside the next round."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raykd.federation.behind import Behind
from raykd.federation.checkpoint import Checkpoints
from raykd.federation.driver import Driver
from raykd.federation.shelf import Shelf
from raykd.runtime.in_process import InProcessBackend


def test_things_are_done_in_their_order_one_at_a_time() -> None:
    behind, done = Behind(), list[int]()

    def note(number: int) -> None:
        time.sleep(0.02 if number == 0 else 0.0)
        done.append(number)

    for number in range(5):
        behind.do(functools.partial(note, number))
    behind.close(lambda: done.append(-1))
    assert done == [0, 1, 2, 3, 4, -1]


def fail() -> None:
    raise OSError("the disk is full")


def test_an_error_is_told_at_the_next_turn_and_once() -> None:
    behind, done = Behind(), list[int]()
    behind.do(fail)
    with pytest.raises(OSError, match="full"):
        behind.do(lambda: done.append(1))
    behind.close(lambda: None)
    assert not done


def test_the_last_thing_is_done_where_what_was_given_failed_and_that_is_told() -> None:
    behind, done = Behind(), list[int]()
    behind.do(fail, lambda: done.append(1))
    with pytest.raises(OSError, match="full"):
        behind.close(lambda: done.append(2))
    assert done == [2]


class Sink:
    """Takes rows; those of the first round only once the second one is under way."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, str]] = []
        self.second_round = threading.Event()

    def write(self, table: str, rows: Any, part: str) -> None:
        if part == "round-00000":
            assert self.second_round.wait(60), "the second round must begin while the first is written"
        self.parts.append((table, part))


def test_a_round_is_written_while_the_next_one_runs(load: Callable[..., Any], tmp_path: Path) -> None:
    scenario, sink = load("method={name: fedavg}"), Sink()

    def note(event: str, **values: Any) -> None:
        if event == "client" and values["round"] == 1:
            sink.second_round.set()

    backend = InProcessBackend(note)
    checkpoints = Checkpoints(Shelf(tmp_path / "checkpoints"))
    driver = Driver(scenario, tmp_path, backend, sink, note, threading.Event(), checkpoints)
    models = dict(driver.run(driver.prepare()))
    assert set(models) and ("rounds", "round-00000") in sink.parts and ("rounds", "round-00001") in sink.parts
    assert sink.parts.index(("rounds", "round-00000")) < sink.parts.index(("rounds", "round-00001"))
