"""How many clients fit, and the sentence where not one does."""

from __future__ import annotations

from typing import Any

import pytest

from raykd.runtime.placement import slots_on, slots_that_fit
from raykd.scenario.errors import ResourceError
from raykd.scenario.schema import Resources


def _resources(cpus: float = 1.0, gpus: float = 0.0, slots: Any = "auto") -> Resources:
    return Resources(cpus_per_client=cpus, gpus_per_client=gpus, slots=slots)


def _node(name: str = "one", *, is_alive: bool = True, **has: float) -> dict[str, Any]:
    return {"NodeName": name, "Alive": is_alive, "Resources": has}


@pytest.mark.parametrize(
    ("node", "cpus", "gpus", "expected"),
    [
        ({"CPU": 8.0}, 1.0, 0.0, 8),
        ({"CPU": 8.0}, 3.0, 0.0, 2),
        ({"CPU": 2.0}, 0.5, 0.0, 4),
        ({"CPU": 1.0}, 0.1, 0.0, 10),  # 1 // 0.1 is 9 in floating point
        ({"CPU": 3.0}, 0.3, 0.0, 10),
        ({"CPU": 64.0, "GPU": 3.0}, 1.0, 0.4, 6),  # 2 on each GPU, though 7 go into 3
        ({"CPU": 64.0, "GPU": 2.0}, 1.0, 0.3, 6),  # 3 on each
        ({"CPU": 64.0, "GPU": 1.0}, 1.0, 0.1, 10),
        ({"CPU": 64.0, "GPU": 4.0}, 1.0, 0.6, 4),  # 1 on each, though 6 go into 4
        ({"CPU": 64.0, "GPU": 5.0}, 1.0, 2.0, 2),
        ({"CPU": 64.0, "GPU": 1.0}, 1.0, 1.0, 1),
        ({"CPU": 3.0, "GPU": 8.0}, 1.0, 0.5, 3),
        ({"CPU": 4.0, "GPU": 1.0}, 0.0, 0.5, 2),
        ({"GPU": 2.0}, 1.0, 1.0, 0),
        ({"CPU": 8.0}, 1.0, 0.5, 0),
    ],
)
def test_slots_of_a_node(node: dict[str, float], cpus: float, gpus: float, expected: int) -> None:
    assert slots_on(node, _resources(cpus, gpus)) == expected


def test_slots_of_several_nodes_add_up_without_spanning_them() -> None:
    nodes = [_node("one", CPU=3.0), _node("two", CPU=3.0)]
    assert slots_that_fit(nodes, _resources(cpus=2.0), num_clients=10) == 2


def test_nodes_of_one_name_count_each() -> None:
    assert slots_that_fit([_node("same", CPU=2.0), _node("same", CPU=2.0)], _resources(), num_clients=10) == 4


def test_a_dead_node_counts_for_nothing() -> None:
    nodes = [_node("one", CPU=2.0), _node("two", CPU=8.0, is_alive=False)]
    assert slots_that_fit(nodes, _resources(), num_clients=10) == 2


def test_no_more_slots_than_clients() -> None:
    assert slots_that_fit([_node(CPU=8.0)], _resources(), num_clients=3) == 3


def test_asked_slots_are_given_where_they_fit() -> None:
    assert slots_that_fit([_node(CPU=8.0)], _resources(slots=5), num_clients=10) == 5


def test_asked_slots_beyond_the_clients_are_cut() -> None:
    assert slots_that_fit([_node(CPU=8.0)], _resources(slots=5), num_clients=2) == 2


@pytest.mark.parametrize(
    ("node", "resources", "words"),
    [
        ({"CPU": 2.0}, _resources(64.0), ["64 CPU", "short of 62 CPU"]),
        ({"CPU": 2.0}, _resources(2.5), ["2.5 CPU", "short of 0.5 CPU"]),
        ({"CPU": 0.0}, _resources(1.0), ["short of 1 CPU"]),
        ({}, _resources(1.0), ["short of 1 CPU"]),
        ({"CPU": 2.0}, _resources(1.0, 1.0), ["short of 1 GPU"]),
        ({"CPU": 2.0}, _resources(1.0, 0.25), ["short of 0.25 GPU"]),
        ({"CPU": 2.0, "GPU": 1.0}, _resources(1.0, 2.0), ["short of 1 GPU"]),
        ({"CPU": 2.0, "GPU": 1.0}, _resources(4.0, 2.0), ["short of 2 CPU and 1 GPU"]),
        ({"CPU": 2.0, "GPU": 4.0}, _resources(3.0, 1.0), ["short of 1 CPU"]),
        ({"CPU": 2.0}, _resources(1.0, slots=3), ["3 clients", "got 2"]),
        ({"CPU": 8.0, "GPU": 1.0}, _resources(1.0, 0.4, slots=3), ["3 clients", "got 2"]),
        ({"CPU": 8.0, "GPU": 4.0}, _resources(1.0, 1.5), ["whole number above 1", "1.5"]),
    ],
)
def test_what_does_not_fit_is_refused_with_the_shortfall(node: dict[str, float], resources: Resources, words: list[str]) -> None:
    with pytest.raises(ResourceError) as caught:
        slots_that_fit([_node(**node)], resources, num_clients=10)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_the_refusal_names_the_best_node() -> None:
    nodes = [_node("small", CPU=1.0), _node("large", CPU=4.0), _node("dead", CPU=64.0, is_alive=False)]
    with pytest.raises(ResourceError, match="'large' has 4 CPU"):
        slots_that_fit(nodes, _resources(8.0), num_clients=1)


def test_no_node_alive_is_refused_with_a_sentence() -> None:
    with pytest.raises(ResourceError):
        slots_that_fit([_node(CPU=4.0, is_alive=False)], _resources(), num_clients=1)
