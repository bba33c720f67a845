"""Who does what next: balanced by what clients cost, in chunks, taken over, put back."""

from __future__ import annotations

from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raykd.runtime.dispatch import CHUNKS_A_SLOT, MAX_CHUNK, Costs, Queues
from raykd.runtime.placement import FIRST_DEADLINE_S, LEAST_DEADLINE_S, deadline_s


def drained(queues: Queues, slots: list[int]) -> list[tuple[int, list[int]]]:
    """All chunks, the slots asking in turn."""
    chunks, idle = [], 0
    for slot in cycle(slots):
        taken = queues.take(slot)
        idle = 0 if taken else idle + 1
        if idle == len(slots):
            return chunks
        if taken:
            chunks.append((slot, taken))
    raise AssertionError


@given(
    st.dictionaries(st.integers(0, 300), st.floats(0.0, 50.0), min_size=0, max_size=120),
    st.integers(1, 5),
)
def test_every_client_is_handed_out_once(cost: dict[int, float], num_slots: int) -> None:
    chunks = drained(Queues(cost, {}, range(num_slots)), list(range(num_slots)))
    assert sorted(client_id for _, taken in chunks for client_id in taken) == sorted(cost)
    assert all(len(taken) <= MAX_CHUNK for _, taken in chunks)


def test_homes_are_balanced_longest_first() -> None:
    """7, 6 | 5, 4, 3: longest first gives 7 + 4 + 3 and 6 + 5, within a third of the best; equal counts would give 7 + 6 + 5."""
    homes: dict[int, int] = {}
    Queues({0: 7.0, 1: 6.0, 2: 5.0, 3: 4.0, 4: 3.0}, homes, range(2))
    load = [sum(cost for client_id, cost in enumerate((7.0, 6.0, 5.0, 4.0, 3.0)) if homes[client_id] == slot) for slot in (0, 1)]
    assert sorted(load) == [11.0, 14.0]


def test_a_client_keeps_its_home_while_that_is_not_overloaded() -> None:
    homes = {0: 0, 1: 1, 2: 0, 3: 1}
    Queues(dict.fromkeys(range(4), 1.0), homes, range(2))
    assert homes == {0: 0, 1: 1, 2: 0, 3: 1}
    Queues({0: 5.0, 1: 1.0, 2: 5.0, 3: 1.0}, homes, range(2))
    assert homes[0] != homes[2]


def test_a_slot_that_has_run_out_takes_over_from_the_fullest_queue() -> None:
    """Slot 0 has two clients and slot 1 one that costs as much: when slot 1 is done it takes the last of slot 0, not the next."""
    queues = Queues({0: 3.0, 1: 2.0, 2: 5.0}, {0: 0, 1: 0, 2: 1}, range(2))
    assert queues.take(1) == [2]
    assert queues.take(1) == [1]
    assert [queues.take(0), queues.take(0), queues.take(1)] == [[0], [], []]


def test_a_client_is_moved_only_where_that_costs_less_than_waiting() -> None:
    cost, moving = {0: 5.0, 1: 1.0, 2: 5.0, 3: 1.0}, dict.fromkeys(range(4), 100.0)
    homes = {0: 0, 1: 1, 2: 0, 3: 1}
    queues = Queues(cost, homes, range(2), moving)
    assert homes == {0: 0, 1: 1, 2: 0, 3: 1}
    assert [queues.take(1) for _ in range(3)] == [[1], [3], []] and [queues.take(0) for _ in range(2)] == [[0], [2]]


def test_small_clients_are_handed_out_many_at_a_time() -> None:
    chunks = drained(Queues(dict.fromkeys(range(1000), 1e-4), {}, range(2)), [0, 1])
    assert len(chunks) < 1000 / 10
    assert len(drained(Queues(dict.fromkeys(range(CHUNKS_A_SLOT), 1e-4), {}, range(1)), [0])) == CHUNKS_A_SLOT


def test_lost_work_comes_back_one_client_at_a_time_and_first() -> None:
    queues = Queues(dict.fromkeys(range(100), 1e-4), {}, range(2))
    lost = queues.take(0)
    assert len(lost) > 1
    queues.put_back(lost)
    assert [queues.take(1) for _ in lost] == [[client_id] for client_id in lost]


def test_a_retired_slots_work_is_done_by_the_others() -> None:
    queues = Queues(dict.fromkeys(range(10), 1.0), {}, range(2))
    queues.retire(1)
    assert sorted(client_id for _, taken in drained(queues, [0]) for client_id in taken) == list(range(10))


def test_clients_that_were_not_timed_cost_what_the_others_do_on_average() -> None:
    costs = Costs()
    costs.note("local_update", 0, 2.0)
    costs.note("local_update", 1, 4.0)
    costs.note("evaluate", 2, 99.0)
    assert costs.expected("local_update", [0, 1, 2]) == {0: 2.0, 1: 4.0, 2: 3.0}


def test_the_first_time_does_not_count_once_there_is_another_and_half_of_what_was_known_does_after_that() -> None:
    costs = Costs()
    found = []
    for seconds in (9.0, 4.0, 2.0, 5.0):
        costs.note("local_update", 0, seconds)
        found.append(costs.of("local_update", 0))
    assert found == [9.0, 4.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("setting", "work", "last_s", "expected"),
    [
        (5.0, "local_update", 100.0, 5.0),
        ("auto", "local_update", None, FIRST_DEADLINE_S),
        ("auto", "evaluate", 1.0, LEAST_DEADLINE_S),
        ("auto", "local_update", 100.0, 2000.0),
        (5.0, "train_on_repository", None, float("inf")),
    ],
)
def test_deadlines(setting: str | float, work: str, last_s: float | None, expected: float) -> None:
    assert deadline_s(setting, work, last_s) == expected
