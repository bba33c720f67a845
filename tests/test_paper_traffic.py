"""The traffic that the paper's setting asks for, by its arithmetic: 4 clients, 30 rounds, a student of 10.9 MiB."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from raykd.data.federation import holdings
from raykd.federation.transport import seal
from raykd.models._base import build_network
from raykd.numerics.params import state_of
from raykd.planning.rehearsal import rehearse
from raykd.scenario.load import load_scenario

ROOT = Path(__file__).parent.parent
NUM_ROUNDS = 2
"""That are gone through; all 30 are alike."""
PAPER = [
    "student.network={name: paper_vnet}",
    "repository.teacher.network={name: paper_vnet}",
    f"federation={{rounds: {NUM_ROUNDS}}}",
]
MIB = 2**20


def crossed(*overrides: str) -> dict[tuple[bool, str], int]:
    """Bytes of a plan, before and in the rounds, by direction."""
    scenario = load_scenario(ROOT / "scenarios/base/four-knees.yaml", [*PAPER, *overrides]).scenario
    held, repository = holdings(scenario, ROOT)
    rehearsal = rehearse(scenario, ROOT, [split for _, split in held], repository[1], range(4), 1)
    found: dict[tuple[bool, str], int] = defaultdict(int)
    for row in rehearsal.transfers:
        found[row["round"] >= 0, row["direction"]] += row["num_bytes"]
    return dict(found)


def in_thirty_rounds(found: dict[tuple[bool, str], int]) -> float:
    """MiB of 30 rounds and of what was before them."""
    return sum(num * (30 / NUM_ROUNDS if is_in_rounds else 1) for (is_in_rounds, _), num in found.items()) / MIB


def test_the_student_of_the_paper_is_10_9_mib() -> None:
    network = {"name": "paper_vnet"}
    scenario = load_scenario(ROOT / "scenarios/base/four-knees.yaml", [f"student.network={network}".replace("'", "")]).scenario
    model = state_of(build_network(scenario.student.network, 4, 0))
    assert sum(value.nbytes for value in model.values()) / MIB == pytest.approx(10.9, abs=0.01)
    assert seal(model)["params"].nbytes / MIB == pytest.approx(10.9, abs=0.01)  # the header is 9 kB


def test_fedavg_and_dual_kd_send_what_the_arithmetic_says() -> None:
    """FedAvg: 4 * 30 * 21.8 MiB. dual_kd: the teacher once besides, 4 * (10.9 + 30 * 21.8) MiB = 2.6 GiB."""
    fedavg, dual_kd = crossed("method={name: fedavg}"), crossed("method={name: dual_kd, preset: paper-intent}")
    assert fedavg[True, "down"] == fedavg[True, "up"] == dual_kd[True, "down"] == dual_kd[True, "up"]
    assert in_thirty_rounds(fedavg) == pytest.approx(4 * 30 * 21.8, rel=2e-3)
    assert in_thirty_rounds(dual_kd) == pytest.approx(4 * (10.9 + 30 * 21.8), rel=2e-3)
    assert in_thirty_rounds(dual_kd) / 1024 == pytest.approx(2.6, abs=0.01)
    assert dual_kd[False, "down"] / MIB == pytest.approx(4 * 10.9, rel=2e-3)


def test_top_one_per_cent_up_and_eight_bits_down_send_a_seventh() -> None:
    """10.9 / 3.99 MiB down and 10.9 / 74.7 up: 2.73 + 0.146 of 21.8 MiB a round and client, 7.6 times less."""
    codecs = "traffic={up: {params: [{name: top_k, share: 0.01}]}, down: {params: [{name: int8}]}}"
    plain, coded = (sum(crossed("method={name: fedavg}", *more).values()) for more in ((), (codecs,)))
    assert plain / coded == pytest.approx(7.6, abs=0.05)
