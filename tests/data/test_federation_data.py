"""What repository and clients hold: disjoint splits, labels only where they are paid for, and the same bits every time."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raykd.data.case import Case
from raykd.data.federation import (
    ClientData,
    RepositoryData,
    build_client_data,
    build_repository_data,
    client_site,
    list_cases,
)
from raykd.data.sources._base import CaseKey
from raykd.federation.description import client_row
from raykd.scenario.errors import DataError
from raykd.scenario.load import scenario_from_dict
from raykd.scenario.schema import Scenario

SOURCE = {"name": "phantom", "num_cases": 5, "spacing_mm": [10.0, 8.0, 8.0], "field_of_view_mm": [100.0, 112.0, 112.0]}
GROUP = {"source": SOURCE, "labels": {"num_shots": 1}, "num_test": 1, "num_validation": 1}
SCENARIO: dict[str, Any] = {
    "name": "splits",
    "seed": 3,
    "classes": ["femoral_cartilage", "tibial_cartilage"],
    "repository": {"source": SOURCE, "num_validation": 2, "teacher": {"network": {"name": "unet", "width": 4}}},
    "clients": [
        {"group": "twins", "count": 2, "scanner": {"noise": 0.1}, **GROUP},
        {"group": "thick", "spacing_mm": [20.0, 8.0, 8.0], **GROUP},
    ],
    "student": {"network": {"name": "unet", "width": 4}},
    "method": {"name": "fedavg"},
}
SPLITS = ("labelled", "unlabelled", "validation", "test")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYKD_CACHE", str(tmp_path_factory.mktemp("cases")))
        yield


def scenario(*overrides: str, **values: Any) -> Scenario:
    return scenario_from_dict(copy.deepcopy(SCENARIO) | values, Path("/"), overrides).scenario


def client_data(built: Scenario, name: str) -> ClientData:
    (client,) = (client for client in built.members() if client.name == name)
    return build_client_data(built, client, Path("/"))


def repository_data(built: Scenario) -> RepositoryData:
    return build_repository_data(built, Path("/"))


def all_cases(data: ClientData) -> list[Case]:
    return [case for split in SPLITS for case in getattr(data, split)]


def assert_same_bits(one: ClientData, other: ClientData) -> None:
    for split in SPLITS:
        a, b = getattr(one, split), getattr(other, split)
        assert [case.case_id for case in a] == [case.case_id for case in b]
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x.image_CIJK, y.image_CIJK) and np.array_equal(x.affine, y.affine) and x.record == y.record
            assert (x.label_IJK is None) == (y.label_IJK is None)
            assert x.label_IJK is None or torch.equal(x.label_IJK, y.label_IJK)


def test_a_client_s_cases_fall_into_splits_of_the_sizes_asked_for() -> None:
    data = client_data(scenario(), "twins-0")
    assert [len(getattr(data, split)) for split in SPLITS] == [1, 2, 1, 1]
    assert len({case.patient_id for case in all_cases(data)}) == 5


def test_unlabelled_cases_have_no_label_and_all_others_have_one() -> None:
    data = client_data(scenario(), "twins-0")
    assert all(case.label_IJK is None for case in data.unlabelled)
    for case in data.labelled + data.validation + data.test:
        assert case.label_IJK is not None and set(case.label_IJK.unique().tolist()) == {0, 1, 2}


def test_the_repository_trains_on_all_labels_but_those_held_out() -> None:
    data = repository_data(scenario())
    assert (len(data.train), len(data.validation)) == (3, 2)
    assert len({case.case_id for case in data.train + data.validation}) == 5
    assert all(case.label_IJK is not None for case in data.train + data.validation)


def test_no_two_owners_share_a_subject() -> None:
    built = scenario()
    repository = repository_data(built)
    cases = [*repository.train, *repository.validation]
    for client in built.members():
        cases += all_cases(build_client_data(built, client, Path("/")))
    assert len(cases) == 20 and len({case.patient_id for case in cases}) == 20
    # Different names might still be one anatomy: no two volumes of one shape are alike.
    volumes = [case.image_CIJK.numpy().tobytes() for case in cases]
    assert len(set(volumes)) == 20


def test_the_same_seed_gives_the_same_bits_from_an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = client_data(scenario(), "twins-1")
    from_cache = client_data(scenario(), "twins-1")
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))
    assert_same_bits(first, from_cache)
    assert_same_bits(first, client_data(scenario(), "twins-1"))


def test_the_same_seed_gives_the_same_bits_whatever_the_order_of_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forwards = {name: client_data(scenario(), name) for name in ("twins-0", "twins-1", "thick")}
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))
    turned = scenario(clients=list(reversed(copy.deepcopy(SCENARIO["clients"]))))
    for name, data in reversed(forwards.items()):
        assert_same_bits(data, client_data(turned, name))


def test_another_seed_gives_other_subjects() -> None:
    one, other = (client_data(scenario(f"seed={seed}"), "twins-0") for seed in (3, 4))
    volumes = {case.image_CIJK.numpy().tobytes() for case in all_cases(one)}
    assert not volumes & {case.image_CIJK.numpy().tobytes() for case in all_cases(other)}


def test_more_shots_keep_test_validation_and_the_shots_before() -> None:
    one, two = (client_data(scenario(f"clients[0].labels.num_shots={shots}"), "twins-0") for shots in (1, 2))
    ids = {split: [[case.case_id for case in getattr(data, split)] for data in (one, two)] for split in SPLITS}
    assert ids["test"][0] == ids["test"][1] and ids["validation"][0] == ids["validation"][1]
    assert ids["labelled"][1][:1] == ids["labelled"][0] and len(ids["labelled"][1]) == 2


def test_the_classes_that_a_site_outlines_limit_its_labelled_cases_alone() -> None:
    full = client_data(scenario(), "twins-0")
    limited = client_data(scenario("clients[0].labels.classes=[tibial_cartilage]"), "twins-0")
    for all_classes, some in zip(full.labelled, limited.labelled, strict=True):
        assert all_classes.label_IJK is not None and some.label_IJK is not None
        assert torch.equal(some.label_IJK, torch.where(all_classes.label_IJK == 2, 2, 0).to(torch.uint8))
    for split in ("validation", "test"):
        for a, b in zip(getattr(full, split), getattr(limited, split), strict=True):
            assert torch.equal(a.label_IJK, b.label_IJK)
    assert all(case.label_IJK is None for case in limited.unlabelled)


def test_each_site_has_its_own_grid() -> None:
    built = scenario()
    thick, twin = client_data(built, "thick"), client_data(built, "twins-0")
    assert thick.spacing_mm == pytest.approx((20.0, 8.0, 8.0)) and twin.spacing_mm == pytest.approx((10.0, 8.0, 8.0))
    assert all(case.shape == (5, 14, 14) for case in all_cases(thick))
    assert all(case.shape == (10, 14, 14) for case in repository_data(built).train)


def test_scanners_change_the_images_of_their_site_and_no_label() -> None:
    plain, noisy = (client_data(scenario(f"clients[0].scanner.noise={noise}"), "twins-0") for noise in (0.0, 0.1))
    for a, b in zip(all_cases(plain), all_cases(noisy), strict=True):
        assert not torch.equal(a.image_CIJK, b.image_CIJK)
        assert a.label_IJK is None or torch.equal(a.label_IJK, b.label_IJK)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "override",
    ["clients[0].spacing_mm=[11.0,8.0,8.0]", "clients[0].scanner.noise=0.2", "clients[0].source.protocol=t1_fse", "seed=4"],
)
def test_a_cached_case_is_not_taken_for_one_prepared_otherwise(override: str) -> None:
    before, after = (client_data(scenario(*overrides), "twins-0") for overrides in ((), (override,)))
    by_id = {case.case_id: case for case in all_cases(before)}
    for case in all_cases(after):
        assert not torch.equal(case.image_CIJK, by_id[case.case_id].image_CIJK)


def test_a_prepared_case_says_what_was_drawn_for_it() -> None:
    record = client_data(scenario(), "twins-0").labelled[0].record
    assert record["phantom.side"] in ("left", "right") and any(key.startswith("scanner.") for key in record)


def test_too_few_cases_are_refused_with_the_client_s_name_before_any_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    built = scenario("clients[0].num_test=5")
    site = client_site(built, built.members()[0], Path("/"))
    monkeypatch.setattr(type(site.source), "load", lambda self, key: pytest.fail("a case was loaded"))
    with pytest.raises(DataError, match="twins-0"):
        list_cases(built, Path("/"))
    list_cases(scenario(), Path("/"))


@pytest.mark.parametrize("split", ["labelled", "validation", "test"])
def test_a_case_that_must_have_a_label_and_has_none_is_refused(split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    built = scenario()
    (bad,) = getattr(client_data(built, "twins-0"), split)
    source = type(client_site(built, built.members()[0], Path("/")).source)
    load = source.load

    def without_label(self: Any, key: Any) -> Case:
        case = load(self, key)
        return dataclasses.replace(case, label_IJK=None) if key.case_id == bad.case_id else case

    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))
    monkeypatch.setattr(source, "load", without_label)
    with pytest.raises(DataError, match=f"twins-0.*{bad.case_id}.*must have a label"):
        client_data(built, "twins-0")


def test_building_data_touches_no_global_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index] # noqa: NPY002
    client_data(scenario("clients[0].scanner.motion=1"), "twins-0")
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # type: ignore[index] # noqa: NPY002


def test_a_thicker_site_writes_down_what_its_source_had() -> None:
    built = scenario()
    assert not any("native." in name for case in client_data(built, "twins-0").test for name in case.record)
    (case,) = client_data(built, "thick").test
    (member,) = (client for client in built.members() if client.name == "thick")
    label = client_site(built, member, Path("/")).source.load(CaseKey(case.case_id, case.patient_id)).label_IJK
    assert label is not None
    for index, name in enumerate(built.classes, start=1):
        # 100 mm in slices of 20 mm: the site covers all that its source has.
        assert case.record[f"native.{name}_mm3"] == int((label == index).sum()) * 10 * 8 * 8 > 0


def test_a_site_that_is_held_out_is_tested_on_all_its_cases_and_the_others_keep_theirs() -> None:
    with_all, without = scenario(), scenario(held_out="twins-1")
    data = client_data(without, "twins-1")
    assert [len(getattr(data, split)) for split in SPLITS] == [0, 0, 0, 5]
    assert data.spacing_mm == client_data(with_all, "twins-1").spacing_mm
    assert_same_bits(client_data(without, "twins-0"), client_data(with_all, "twins-0"))
    row = client_row(without, next(m for m in without.members() if m.name == "twins-1"), data)
    assert (row["is_held_out"], row["num_labelled"], row["num_test"]) == (True, 0, 5)


def test_a_pool_is_shared_alike_whoever_is_held_out() -> None:
    share = {"source": {"name": "pool", "pool": "all"}, "labels": {"num_shots": 1}, "num_test": 1}
    groups = [{"group": name, **share} for name in ("a", "b", "c")]
    pools = {"all": {"source": SOURCE | {"num_cases": 9}, "split": {"by": "quantity", "alpha": 0.2}}}
    ids = [
        {name: {case.case_id for case in all_cases(client_data(built, name))} for name in ("a", "b", "c")}
        for built in (scenario(clients=groups, pools=pools), scenario(clients=groups, pools=pools, held_out=["b"]))
    ]
    assert ids[0] == ids[1]


def test_a_site_without_test_cases_trains_on_all_and_one_that_holds_nothing_is_refused() -> None:
    alone = {"group": "small", "source": SOURCE | {"num_cases": 1}, "labels": {"num_shots": 1}, "num_test": 0}
    built = scenario(clients=[alone, SCENARIO["clients"][1]])
    assert [len(getattr(client_data(built, "small"), split)) for split in SPLITS] == [1, 0, 0, 0]
    nothing = alone | {"labels": {"num_shots": 0, "num_unlabelled": 0}}
    with pytest.raises(DataError, match="small: a site must hold a case, got none of its 1"):
        list_cases(scenario(clients=[nothing, SCENARIO["clients"][1]]), Path("/"))
