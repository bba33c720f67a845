"""A plan promises the bytes that a run sends, knows what is held and what fits, and counts once what cells share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from raykd.cli import app
from raykd.data.cache import entries
from raykd.federation.protocols import Row
from raykd.launch import Plan
from raykd.planning.accounts import Accounts, Priced, link_columns, slot_loads, traffic_rows
from raykd.planning.forecast import Book, Forecast, _block, _Planner, _shape, cell_costs, forecast
from raykd.planning.machines import fitting_slots, memory_shortfall
from raykd.planning.pricing import Prices, per_unit
from raykd.planning.rehearsal import Rehearsal, Work, num_passes
from raykd.scenario.errors import DataError
from raykd.scenario.load import scenario_from_dict
from raykd.scenario.registry import METHODS
from raykd.scenario.schema import Resources

ROOT = Path(__file__).parent.parent
Load = Callable[..., Any]
LARGE = {"NodeName": "large", "Alive": True, "Resources": {"CPU": 8.0, "memory": 64.0 * 2**30}}


def planned(load: Load, *overrides: str) -> Forecast:
    return forecast(load(*overrides), ROOT, [LARGE])


def crossing(rows: Any) -> dict[tuple[bool, str, str], tuple[int, int, int]]:
    """Messages, smallest and all bytes of rows of `transfers`, by before or in the rounds, direction and kind."""
    found: dict[tuple[bool, str, str], list[int]] = {}
    for row in rows:
        found.setdefault((row["round"] < 0, row["direction"], row["kind"]), []).append(int(row["num_bytes"]))
    return {key: (len(sizes), min(sizes), sum(sizes)) for key, sizes in found.items()}


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("method={name: fedavg}",),
        ("method={name: local, is_warm: true}",),
        ("method={name: finetune}",),
        ("method={name: teacher_only}",),
        ("method={name: centralised}",),
        ("method={name: fedavg}", "federation={rounds: 3, personal_rounds: 1, participation: 0.7, client_dropout: 0.3}"),
        (
            "traffic.up={params: [{name: top_k, share: 0.05}, {name: qsgd}]}",
            "traffic.down={params: [{name: int8}], teacher: [{name: fp16}]}",
        ),
        ("method={name: fedavg}", "traffic={up: {params: [{name: power_sgd}, {name: fp16}]}}"),
        (
            "method={name: dual_kd, knowledge: responses, kept_share: 0.2, kept_within_mm: 20}",
            "traffic.down={logits: [{name: int8}]}",
        ),
        ("method={name: fedmd, kept_classes: 2, kept_share: 0.2, kept_confidence: 0.5}", "traffic.up={logits: [{name: int8}]}"),
    ],
    ids=lambda overrides: " ".join(overrides) or "dual_kd",
)
def test_a_plan_predicts_the_bytes_that_a_run_sends(load: Load, record: Callable[..., Any], overrides: tuple[str, ...]) -> None:
    sent = crossing(record(*overrides).outcome.table("transfers").to_dict("records"))
    plan = planned(load, *overrides)
    promised = {
        (row["stage"] == "before the first round", row["direction"], row["kind"]): (
            row["num_messages"],
            row["bytes_min"],
            row["bytes_total"],
        )
        for row in plan.traffic
    }
    assert promised == sent
    for direction in ("down", "up"):
        assert plan.bytes_crossing(direction) == sum(total for (_, way, _), (_, _, total) in sent.items() if way == direction)


def test_a_plan_names_the_clients_as_the_run_does(load: Load, record: Callable[..., Any]) -> None:
    clients = record("method={name: fedavg}").outcome.table("clients")
    plan = planned(load, "method={name: fedavg}")
    for row, ran in zip(plan.clients, clients.to_dict("records"), strict=True):
        shared = [name for name in ran if name in row and name not in ("scenario", "method", "seed")]
        assert len(shared) > 12
        assert {name for name in shared if row[name] is None} == {name for name in shared if pd.isna(ran[name])}
        told = [name for name in shared if row[name] is not None]
        assert {name: row[name] for name in told} == {name: pytest.approx(ran[name]) for name in told}


def test_seconds_on_a_link_are_those_of_the_run(load: Load, record: Callable[..., Any]) -> None:
    transfers = record("method={name: fedavg}").outcome.table("transfers")
    for row in planned(load, "method={name: fedavg}").clients:
        own = transfers[transfers.client_id == row["client_id"]]
        assert row["link_s"] == pytest.approx(own.simulated_s.sum())
        assert row["link_s_per_round"] == pytest.approx(own.simulated_s.sum() / 2)


@pytest.mark.parametrize("schedule", ["{name: synchronous}", "{name: deadline, deadline_s: 9}", "{name: buffered, buffer_size: 2}"])
def test_with_a_clock_a_plan_tells_the_sites_time_as_the_run_writes_it(
    load: Load, record: Callable[..., Any], schedule: str
) -> None:
    words = ("method={name: fedavg}", "clock={step_s: 2}", "clients[0].compute_factor=0.3", f"federation.schedule={schedule}")
    words += ("federation.rounds=4", "federation.stop.simulated_hours=0.008")
    rounds = record(*words).outcome.run.table("rounds")
    plan = planned(load, *words)
    assert plan.simulated_s == rounds["simulated_s"].sum()
    assert plan.rounds == len(rounds) and (len(rounds) < 4) == ("simulated_hours" in plan.ends)


def test_a_site_whose_machine_is_too_small_is_named(load: Load) -> None:
    plan = planned(load, "method={name: fedavg}", "clients[1].memory_gib=0.05", "clients[0].memory_gib=1000")
    (sentence,) = plan.shortfalls
    assert sentence.startswith("client university needs about") and "has memory_gib 0.05" in sentence


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_can_be_planned(load: Load, name: str) -> None:
    scenario = load(f"method={{name: {name}}}")
    method = METHODS.get(name)(scenario.method, scenario)
    if method.problems():
        pytest.skip(f"{name} needs another scenario: {method.problems()[0]}")
    plan = forecast(scenario, ROOT, [LARGE])
    assert plan.rounds == (2 if method.is_trained else 0)
    assert plan.total_s > 0 and (plan.seconds["rounds"] > 0) == method.is_trained


def test_a_plan_trains_no_teacher_and_keeps_nothing_but_the_cases_it_read(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))
    plan = planned(load)
    # The two groups of clients and the repository have a source each.
    assert [entry.kind for entry in entries()] == ["cases"] * 3
    # Three clients of three cases and the repository's two; a teacher and a warm student.
    assert (plan.num_cases, plan.num_models) == (11, 2)
    assert planned(load).num_cases == 11 - 3


def test_what_is_in_the_cache_costs_nothing_again(load: Load, record: Callable[..., Any]) -> None:
    record()
    plan = planned(load)
    assert (plan.num_cases, plan.num_models, plan.seconds["prepare"]) == (0, 0, 0.0)


def test_cells_of_a_study_pay_for_a_shared_teacher_once(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "cache"))
    methods = ("{name: teacher_only}", "{name: finetune}", "{name: fedavg}")
    plans = [Plan(tmp_path, "m", load(f"method={method}", f"seed={seed}"), ROOT) for seed in (1, 2) for method in methods]
    costs = cell_costs(plans, [LARGE])
    assert [cost.num_models for cost in costs] == [1, 0, 0, 1, 0, 0]
    assert [cost.num_cases for cost in costs] == [11, 0, 0, 11, 0, 0]


def test_more_local_steps_take_proportionally_longer(load: Load) -> None:
    """The price of a step is measured once, so that the two plans differ by the count alone."""
    one, ten = (load("method={name: fedavg}", f"training.num_local_steps={steps}") for steps in (1, 10))
    seconds = []
    for scenario in (one, ten):
        rehearsal = Rehearsal(work=[Work(0, 0, ("fit", "student"), scenario.training.num_local_steps)])
        member = scenario.members()[0]
        accounts = Accounts([Priced(member, 1, 1, 100, Prices(100, {("fit", "student"): 0.5}))], 1)
        seconds.append(accounts.wall_s(rehearsal.work, is_evaluation=False))
    assert seconds == [0.5, 5.0]


def account(load: Load, num_slots: int) -> Accounts:
    prices = Prices(1000, {("fit", "student"): 0.5, ("predict", "student"): 0.1}, bytes_training=20.0, bytes_held=9.0)
    members = load("clients[0].compute_factor=0.25").members()
    return Accounts([Priced(member, 2, 3, 1000 * (1 + member.client_id), prices) for member in members], num_slots)


WORK = [
    Work(0, 0, ("fit", "student"), 4),
    Work(0, 1, ("fit", "student"), 2),
    Work(0, 2, ("fit", "student"), 2),
    Work(1, 1, ("fit", "student"), 6),
    Work(1, 2, ("predict", "student"), 10, is_evaluation=True),
]


def test_a_round_lasts_as_long_as_its_busiest_slot(load: Load) -> None:
    # Clients 0 and 2 share slot 0: round 0 takes (4 + 2) * 0.5 s there, round 1 takes 6 * 0.5 s in slot 1.
    assert account(load, 2).wall_s(WORK, is_evaluation=False) == pytest.approx(3.0 + 3.0)
    assert account(load, 1).wall_s(WORK, is_evaluation=False) == pytest.approx(4.0 + 3.0)


def test_work_on_volumes_costs_by_the_voxel(load: Load) -> None:
    # Client 2 has three times the voxels of the case that was measured.
    assert account(load, 1).wall_s(WORK, is_evaluation=True) == pytest.approx(10 * 0.1 * 3)


def test_memory_is_that_of_the_slot_that_holds_most(load: Load) -> None:
    # 2 * 20 + 3 * 9 bytes a voxel; slot 0 has 1000 + 3000 voxels, slot 1 has 2000.
    assert account(load, 2).bytes_held() == 4000 * 67
    assert account(load, 3).bytes_held() == 3000 * 67


def test_at_the_sites_a_round_lasts_as_long_as_the_slowest_link_and_machine(load: Load) -> None:
    transfers = [{"round": at, "client_id": 1, "simulated_s": 0.25} for at in (-1, 0, 0)]
    rehearsal = Rehearsal(work=WORK, transfers=transfers, rounds=[{"server_s": 0.01}, {"server_s": 0.02}])
    # Group 0 (clients 0 and 1) computes at a quarter of the speed here: 2.0 / 0.25 s in round 0, 3.0 / 0.25 s in round 1.
    assert account(load, 1).simulated_s(rehearsal) == pytest.approx(8.0 + 12.0 + 0.03)


def row(round_index: int, client_id: int, direction: str, num_bytes: int, kind: str = "params") -> Row:
    return {
        "round": round_index,
        "client_id": client_id,
        "direction": direction,
        "kind": kind,
        "codec": "none",
        "num_bytes": num_bytes,
        "simulated_s": num_bytes / 100,
    }


def test_a_client_s_rounds_are_those_in_which_it_took_part() -> None:
    transfers = [
        row(-1, 0, "down", 500, "teacher"),
        row(0, 0, "down", 30),
        row(0, 0, "up", 10),
        row(2, 0, "down", 50),
        row(1, 1, "up", 7),
    ]
    assert link_columns(transfers, 0) == {
        "bytes_down": 580,
        "bytes_up": 10,
        "bytes_down_per_round": 40.0,
        "bytes_up_per_round": 5.0,
        "link_s_per_round": pytest.approx(0.45),
        "link_s": pytest.approx(5.9),
    }
    assert [
        (r["stage"], r["direction"], r["kind"], r["bytes_min"], r["bytes_max"], r["num_messages"]) for r in traffic_rows(transfers)
    ] == [
        ("before the first round", "down", "teacher", 500, 500, 1),
        ("in the rounds", "down", "params", 30, 50, 2),
        ("in the rounds", "up", "params", 7, 10, 2),
    ]


def test_clients_are_dealt_to_slots_in_turn() -> None:
    assert slot_loads([(0, 1.0), (1, 2.0), (2, 4.0), (4, 8.0)], 2) == [13.0, 2.0]


def test_a_unit_is_timed_after_one_to_warm_up() -> None:
    counts: list[int] = []
    assert per_unit(counts.append) >= 0
    assert counts[0] == 1 and counts[1] > 1


def test_a_teacher_s_passes_are_its_stochastic_ones_and_one_for_features() -> None:
    from raykd.methods._context import KnowledgeRequest

    assert num_passes(KnowledgeRequest(num_passes=8, layers=("bottleneck",))) == 9
    assert num_passes(KnowledgeRequest(num_passes=0)) == 1


def test_too_few_cpus_are_named_and_the_plan_goes_on() -> None:
    small = {"NodeName": "small", "Alive": True, "Resources": {"CPU": 2.0}}
    slots, shortfalls = fitting_slots([small], Resources(cpus_per_client=4.0), 3)
    assert slots == 1 and len(shortfalls) == 1
    assert "small" in shortfalls[0] and "short of 2 CPU" in shortfalls[0]


def test_too_little_memory_is_named_with_the_slots_that_would_fit() -> None:
    node = {"NodeName": "n", "Alive": True, "Resources": {"CPU": 4.0, "memory": 5.0 * 2**30}}
    dead = {**node, "NodeName": "dead", "Alive": False}
    (sentence,) = memory_shortfall([node, dead], Resources(), 3, 2.0 * 2**30)
    assert "3 workers of about 2.0 GiB" in sentence and "resources.slots to 2" in sentence
    assert memory_shortfall([node, dead], Resources(), 2, 2.0 * 2**30) == []
    # Of two nodes, each holds what fits it alone: 2 + 2, though 10 GiB would hold 5.
    assert memory_shortfall([node, node], Resources(), 5, 2.0 * 2**30) and not memory_shortfall(
        [node, node], Resources(), 4, 2.0 * 2**30
    )


def plan_command(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["plan", *map(str, words)])


@pytest.fixture
def scenario(tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny scenario as a file, on the large machine."""
    monkeypatch.setattr("raykd.planning.forecast.this_node", lambda: LARGE)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**tiny, "method": {"name": "fedavg"}}))
    return path


def test_the_command_prints_clients_traffic_machines_and_time(scenario: Path) -> None:
    ended = plan_command(scenario)
    assert ended.exit_code == 0, ended.output
    words = ("community-1", "8.00 x 3.50 x 3.50", "in the rounds", "large: 8 CPU", "3 clients at once", "2 rounds", "all, here")
    assert [word for word in words if word not in ended.output] == []
    assert "\x1b" not in ended.output


def test_the_traffic_of_a_plan_is_one_block_at_80_columns(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One shared model goes down and up in 2 rounds to 3 clients, so what goes down in all is what comes up."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = plan_command(scenario).output.split("\n\nTraffic ")[1].split("\n\n")[0].splitlines()
    down, up = (line.split() for line in lines[-2:])
    assert (down[:2], up[:2]) == (["all", "down"], ["all", "up"])
    assert down[2:] == up[2:] == lines[-3].split()[-2:]
    assert max(map(len, lines)) <= 80


def test_the_command_prints_the_same_as_json(scenario: Path) -> None:
    plan = json.loads(plan_command(scenario, "--json", "--set", "federation.rounds=3").stdout)
    assert (plan["rounds"], plan["num_slots"], len(plan["clients"])) == (3, 3, 3)
    assert plan["bytes_up"] == sum(row["bytes_up"] for row in plan["clients"]) > 0
    assert plan["total_s"] == pytest.approx(sum(plan["seconds"].values()))


def test_what_does_not_fit_ends_with_2_and_is_named_beside_the_plan(scenario: Path) -> None:
    ended = plan_command(scenario, "--set", "resources.cpus_per_client=64")
    assert ended.exit_code == 2
    assert "64 CPU" in ended.stderr and "short of 56 CPU" in ended.stderr
    assert "in the rounds" in ended.stdout


def test_a_study_has_a_line_for_each_cell_that_differs_by_more_than_its_seed(scenario: Path) -> None:
    study = scenario.with_name("both.yaml")
    study.write_text("base: tiny.yaml\nmethods: [{name: teacher_only}, {name: fedavg}]\nseeds: [1, 2, 3]\n")
    ended = plan_command(study)
    assert ended.exit_code == 0, ended.output
    lines = [line.split() for line in ended.output.splitlines()]
    counts = {line[0]: line[1:4] for line in lines if line and line[0] in ("teacher_only", "fedavg", "all")}
    # Of each seed, the first cell prepares 11 cases (some of which other tests may have left) and trains the teacher.
    assert {name: int(runs) for name, (runs, _, _) in counts.items()} == {"teacher_only": 3, "fedavg": 3, "all": 6}
    assert counts["fedavg"][1:] == ["0", "0"] and counts["all"][1:] == counts["teacher_only"][1:]


def test_a_scenario_without_enough_cases_is_refused_before_anything_is_read(scenario: Path) -> None:
    ended = plan_command(scenario, "--set", "clients[0].num_test=9")
    assert isinstance(ended.exception, DataError) and "num_test" in str(ended.exception)


def test_clients_of_one_pool_have_the_grids_of_their_own_cases(tmp_path: Path, tiny: dict[str, Any]) -> None:
    """A pool of files is divided by hospital, and each hospital's volumes have a shape of their own."""
    lines = ["image,label,patient,site"]
    for name, shape in (("north", (2, 6, 5)), ("south", (2, 6, 2))):
        for index in range(3):
            label = np.arange(np.prod(shape)).reshape(shape) % 2
            for kind, values in (("im", label + 0.5 * index), ("seg", label.astype(np.uint8))):
                nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 1.0, 1.0, 1.0])), tmp_path / f"{name}{index}_{kind}.nii.gz")
            lines.append(f"{name}{index}_im.nii.gz,{name}{index}_seg.nii.gz,{name}{index},{name}")
    (tmp_path / "knees.csv").write_text("\n".join(lines))
    source = {"name": "folder", "manifest": "knees.csv"}
    group = {"source": {"name": "pool", "pool": "knees"}, "labels": {"num_shots": 1}, "num_test": 1}
    tiny |= {
        "classes": tiny["classes"][:1],
        "pools": {"knees": {"source": source, "split": {"by": "column", "column": "site"}}},
        "clients": [{"group": name, **group} for name in ("north", "south")],
    }
    planner = _Planner(scenario_from_dict(tiny, tmp_path).scenario, tmp_path, [LARGE], Book())
    assert [_shape(member, case) for member, (case, _) in zip(planner.members, planner.cases, strict=True)] == [
        (2, 6, 5),
        (2, 6, 2),
    ]


def test_a_spacing_that_is_left_open_is_that_of_the_site_itself(load: Load) -> None:
    """Two sites with one source resample different axes: what one leaves open is not what the other has there."""
    scenario = load("clients[0].spacing_mm=[6, null, null]", "clients[1].spacing_mm=[null, 4, null]")
    assert repr(_block(scenario, scenario.members()[0])) != repr(_block(scenario, scenario.members()[-1]))
