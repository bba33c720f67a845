"""Sites that take no part: they are tested on and nothing else; and methods that need labels or a global model say so."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from raykd.data.federation import holdings
from raykd.methods._base import ServerStart
from raykd.models._base import build_network
from raykd.numerics.params import rename, state_of
from raykd.planning.rehearsal import Rehearsal, rehearse
from raykd.results.statistics import deployed_cases
from raykd.scenario.load import scenario_from_dict
from raykd.scenario.registry import METHODS
from raykd.scenario.schema import Scenario

SOURCE = {"name": "phantom", "num_cases": 4, "spacing_mm": [10.0, 8.0, 8.0], "field_of_view_mm": [100.0, 112.0, 112.0]}
NETWORK = {"name": "unet", "width": 4}
SCENARIO: dict[str, Any] = {
    "name": "held-out",
    "classes": ["femoral_cartilage"],
    "repository": {"source": SOURCE, "num_validation": 1, "teacher": {"network": NETWORK, "patch_shape": [16, 16, 16]}},
    "clients": [
        {"group": name, "source": SOURCE, "labels": {"num_shots": 1}, "num_test": 1, "num_validation": 1}
        for name in ("a", "b", "c")
    ],
    "student": {"network": NETWORK},
    "training": {"patch_shape": [16, 16, 16]},
    "federation": {"rounds": 3},
}


def _scenario(name: str, *overrides: str, **values: Any) -> Scenario:
    method = {"name": name, **({"preset": "raykd"} if name == "dual_kd" else {})}
    proxy = {"proxy": {"source": SOURCE}} if METHODS.get(name).needs_proxy else {}
    optimiser = METHODS.get(name).optimisers[0]
    training = SCENARIO["training"] | {"optimiser": optimiser}
    whole = copy.deepcopy(SCENARIO) | {"method": method, "training": training, **proxy, **values}
    return scenario_from_dict(whole, Path("/"), overrides).scenario


def _method(built: Scenario) -> Any:
    return METHODS.get(built.method.name)(built.method, built)


def _rehearsed(built: Scenario) -> Rehearsal:
    clients, (_, repository) = holdings(built, Path("/"))
    return rehearse(built, Path("/"), [split for _, split in clients], repository, [0, 0, 0], 1)


@pytest.mark.parametrize("name", ["fedavg", "dual_kd", "ditto", "scaffold"])
def test_a_site_that_is_held_out_sends_nothing_receives_nothing_to_train_on_and_is_tested_with_shared_models(name: str) -> None:
    told = _rehearsed(_scenario(name, held_out="b", federation={"rounds": 3, "personal_rounds": 1}))
    assert {row["client_id"] for row in told.transfers} == {0, 2}
    assert {work.client_id for work in told.work if not work.is_evaluation} >= {0, 2}
    assert not [work for work in told.work if work.client_id == 1 and not work.is_evaluation]
    final = [work for work in told.work if work.is_evaluation and work.round_index == 2 and work.task == ("predict", "student")]
    # The others have a global and a personal model each; the phantom's four cases are all test cases at the site that is held out.
    assert {(work.client_id, work.amount) for work in final} == {(0, 2), (1, 4), (2, 2)}
    assert [work.client_id for work in final].count(1) == 1 and [work.client_id for work in final].count(0) == 2
    assert all(row["num_selected"] == 2 for row in told.rounds)


def test_sites_that_take_their_time_leave_out_who_is_held_out() -> None:
    federation = {"rounds": 3, "schedule": {"name": "buffered", "buffer_size": 2}}
    told = _rehearsed(_scenario("fedavg", held_out="b", federation=federation, clock={"step_s": 0.1}))
    assert {row["client_id"] for row in told.transfers} == {0, 2}


def test_one_trainer_of_all_data_takes_the_steps_of_those_that_take_part() -> None:
    works = [_rehearsed(_scenario("centralised", held_out=names)).work for names in ([], "b")]
    steps = [sum(work.amount for work in own if work.task[0] == "fit") for own in works]
    assert steps[1] * 3 == steps[0] * 2


@pytest.mark.parametrize("name", METHODS.names())
def test_a_method_has_the_global_model_that_it_says_it_has(name: str) -> None:
    built = _scenario(name, held_out="b")
    method = _method(built)
    student, teacher = (state_of(build_network(network, 2, 0)) for network in (method.student_network(), built.student.network))
    server = method.init_server(ServerStart(student, rename(teacher, "params", "teacher")))
    has_model = bool(method.global_model(server)) and method.is_trained
    if method.needs_teacher:
        assert not method.problems()  # the teacher can be used anywhere
    else:
        assert method.has_global_model == has_model
        assert any("held_out: b" in sentence for sentence in method.problems()) is not has_model


@pytest.mark.parametrize("name", METHODS.names())
def test_a_federation_without_a_label_is_refused_unless_a_teacher_or_the_server_has_some(name: str) -> None:
    def is_refused(*overrides: str) -> bool:
        found = _method(_scenario(name, *overrides)).problems()
        return any("needs a site with labelled cases, got none" in sentence for sentence in found)

    unlabelled = "clients.*.labels.num_shots=0"
    assert is_refused(unlabelled) is (name not in {"dual_kd", "semi_fl", "ssfl", "teacher_only"})
    assert is_refused(unlabelled, "clients.*.labels.num_unlabelled=0") is (name != "teacher_only")
    assert is_refused("held_out=[a,b]", "clients[2].labels.num_shots=0") is is_refused(unlabelled)
    assert not is_refused("clients[0].labels.num_shots=0")


def test_a_site_without_a_model_of_its_own_is_scored_with_the_global_one() -> None:
    import pandas as pd

    rows = [(client, model) for client in (0, 1) for model in ("global", "personal") if (client, model) != (1, "personal")]
    cases = pd.DataFrame(
        [
            {"run_id": "r", "method": "ditto", "client_id": client, "model": model, "split": "test", "round": 1, "dsc": 0.5}
            for client, model in rows
        ]
    )
    kept = deployed_cases(cases, {"r": "personal"})
    assert list(zip(kept["client_id"], kept["model"], strict=True)) == [(0, "personal"), (1, "global")]
