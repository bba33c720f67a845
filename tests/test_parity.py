"""Every method gives the same bits in this process, on one Ray worker and on two. None of the three sees what another had
cached.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raykd.launch import Plan, launch
from raykd.scenario.registry import METHODS

pytestmark = pytest.mark.timeout(1500)  # all methods run in one fixture
NAMES = METHODS.names()
STRESS = ("federation.client_dropout=0.3", "federation.rounds=2")


@pytest.fixture(scope="module")
def in_process(record: Callable[..., Any]) -> Callable[[str], Any]:
    """By method, the reference run with a cache of its own."""
    known: dict[str, Any] = {}

    def in_process(name: str) -> Any:
        if name not in known:
            known[name] = record(f"method={{name: {name}}}", *STRESS, again=True).outcome
        return known[name]

    return in_process


@pytest.fixture(scope="module", params=[pytest.param(1, marks=pytest.mark.slow), 2], ids=["one slot", "two slots"])
def on_ray(
    request: pytest.FixtureRequest,
    ray_cluster: None,
    cache: Path,
    load: Callable[..., Any],
    outcome_at: Callable[[Path], Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """By method, a run on workers that go from method to method, as the cells of a study do."""
    for folder in cache.iterdir():
        shutil.rmtree(folder)
    root = tmp_path_factory.mktemp(f"slots-{request.param}")
    plans = []
    for name in NAMES:
        scenario = load(f"method={{name: {name}}}", *STRESS, f"resources.slots={request.param}")
        plans.append(Plan(root / name, name, scenario, root))
    launch(plans, backend="ray")
    return {name: outcome_at(root / name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_tables_agree_to_the_last_bit(
    name: str, in_process: Callable[[str], Any], on_ray: dict[str, Any], assert_same_tables: Callable[..., None]
) -> None:
    assert not in_process(name).table("cases").empty
    assert_same_tables(in_process(name), on_ray[name])


@pytest.mark.parametrize("name", NAMES)
def test_final_models_agree_to_the_last_bit(name: str, in_process: Callable[[str], Any], on_ray: dict[str, Any]) -> None:
    assert in_process(name).models
    assert in_process(name).models == on_ray[name].models


def test_the_ray_runs_had_the_slots_that_they_were_given(on_ray: dict[str, Any], request: pytest.FixtureRequest) -> None:
    asked = {outcome.run.scenario["resources"]["slots"] for outcome in on_ray.values()}
    had = {outcome.run.manifest["num_slots"] for outcome in on_ray.values()}
    assert len(had) == 1 and had == asked


CLOCK = ("method={name: fedavg}", "clock={step_s: 1}", "clients[1].compute_factor=0.3", "federation.rounds=3")
SPARSE = "{up: {params: [{name: top_k, share: 0.05}, {name: qsgd}]}, down: {params: [{name: int8}]}}"
LOW_RANK = "{up: {params: [{name: power_sgd}, {name: fp16}]}}"
THIN = "kept_classes: 2, kept_share: 0.2, kept_within_mm: 20"
EIGHT_BITS = "traffic={up: {logits: [{name: int8}]}, down: {logits: [{name: int8}]}}"
SETTINGS = {
    "deadline": (*CLOCK, "federation.schedule={name: deadline, deadline_s: 5}"),
    "buffered": (*CLOCK, "federation.schedule={name: buffered, buffer_size: 2}"),
    "sparse": (*CLOCK, f"traffic={SPARSE}", "federation.client_dropout=0.3"),
    "low rank": (*CLOCK, f"traffic={LOW_RANK}"),
    "thin scores": (f"method={{name: fedmd, {THIN}}}", EIGHT_BITS, "clock={step_s: 1}"),
    "thin responses": (f"method={{name: dual_kd, knowledge: responses, {THIN}}}", EIGHT_BITS, "clock={step_s: 1}"),
}
"""Who is late and who answers first, what codecs draw and what they keep for later, and which voxels are sent."""


@pytest.fixture(scope="module")
def elsewhere(ray_cluster: None, load: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs of all settings on workers of one cluster."""
    root = tmp_path_factory.mktemp("settings")
    scenarios = {name: load(*words) for name, words in SETTINGS.items()}
    launch([Plan(root / name, scenario.method.name, scenario, root) for name, scenario in scenarios.items()], backend="ray")
    return root


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_agree_to_the_last_bit_and_second(
    name: str, elsewhere: Path, record: Callable[..., Any], outcome_at: Callable[..., Any], assert_same_tables: Callable[..., None]
) -> None:
    here, there = record(*SETTINGS[name], fresh=True).outcome, outcome_at(elsewhere / name)
    assert_same_tables(here, there)
    assert here.models and here.models == there.models
    for table in ("rounds", "training", "transfers"):
        assert here.run.table(table)["simulated_s"].equals(there.run.table(table)["simulated_s"])
