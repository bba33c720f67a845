"""A pool is shared by patient: nobody's patient is another's, every client has what it needs, the order of clients is nothing."""

from __future__ import annotations

import copy
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raykd.data.division import Drawer, _shares, divide, word
from raykd.data.federation import client_site, holdings, list_cases
from raykd.data.heterogeneity.label_budget import split_patients
from raykd.data.pools import Pools, pool_source
from raykd.data.sources._base import CaseKey
from raykd.data.sources.phantom import PhantomSource
from raykd.numerics.rng import generator
from raykd.scenario.errors import DataError, ScenarioError
from raykd.scenario.load import scenario_from_dict
from raykd.scenario.schema import Scenario
from raykd.scenario.sites import PoolSplit

IID = PoolSplit()
SITE = PoolSplit(by="column", column="site")
GRADE = PoolSplit(by="dirichlet", column="grade", alpha=0.3)
QUANTITY = PoolSplit(by="quantity", alpha=0.3)


def cases(num_patients: int, visits: int = 1) -> list[CaseKey]:
    return [CaseKey(f"p{patient:03d}v{visit}", f"p{patient:03d}") for patient in range(num_patients) for visit in range(visits)]


def drawers(*names: str, needs: int = 0) -> list[Drawer]:
    return [Drawer(name, name, needs) for name in names]


def traits_of(keys: list[CaseKey], **columns: list[Any]) -> dict[CaseKey, dict[str, Any]]:
    return {key: {name: values[index] for name, values in columns.items()} for index, key in enumerate(keys)}


def sizes(shares: dict[str, list[CaseKey]]) -> dict[str, int]:
    return {name: len(keys) for name, keys in shares.items()}


@st.composite
def pools(draw: st.DrawFn) -> tuple[list[CaseKey], dict[CaseKey, dict[str, Any]], PoolSplit, list[Drawer], int]:
    """Any pool and split of clients called A, B, ..., which are also the values of the column `site`."""
    names = [chr(ord("A") + index) for index in range(draw(st.integers(1, 5)))]
    visits = draw(st.lists(st.integers(1, 3), min_size=len(names) * 3, max_size=40))
    keys = [CaseKey(f"c{p:02d}-{v}", f"p{p:02d}") for p, count in enumerate(visits) for v in range(count)]
    by = draw(st.sampled_from(["iid", "column", "dirichlet", "quantity"]))
    column = {"column": "site", "dirichlet": draw(st.sampled_from(["site", "grade"]))}.get(by)
    split = PoolSplit(by=by, column=column, alpha=draw(st.floats(1e-3, 1e3)))  # type: ignore[arg-type]
    grades = draw(st.lists(st.integers(0, 9), min_size=len(visits), max_size=len(visits)))
    traits = {key: {"site": names[int(key.patient_id[1:]) % len(names)], "grade": grades[int(key.patient_id[1:])]} for key in keys}
    needs = draw(st.lists(st.integers(1, 3), min_size=len(names), max_size=len(names)))
    return keys, traits, split, [Drawer(n, n, need) for n, need in zip(names, needs, strict=True)], draw(st.integers(0, 999))


@given(pools())
@settings(max_examples=150, deadline=None)
def test_any_split_gives_every_patient_to_one_client_and_loses_none(pool: Any) -> None:
    keys, traits, split, clients, seed = pool
    shares = divide(keys, traits, split, clients, seed, "pool")
    held = [key for share in shares.values() for key in share]
    assert Counter(held) == Counter(keys)
    owners: dict[str, set[str]] = {}
    for name, share in shares.items():
        for key in share:
            owners.setdefault(key.patient_id, set()).add(name)
    assert all(len(names) == 1 for names in owners.values())


@given(pools())
@settings(max_examples=100, deadline=None)
def test_any_split_gives_every_client_the_patients_it_needs_where_there_are_enough(pool: Any) -> None:
    keys, traits, split, clients, seed = pool
    shares = divide(keys, traits, split, clients, seed, "pool")
    for client in clients:
        # A client's value has at least 3 patients and each needs at most 3, so that enough are there for any split.
        assert len({key.patient_id for key in shares[client.name]}) >= client.num_needed


@given(pools(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_clients_changes_no_share(pool: Any, shuffler: Any) -> None:
    keys, traits, split, clients, seed = pool
    turned = list(clients)
    shuffler.shuffle(turned)
    assert divide(keys, traits, split, turned, seed, "pool") == divide(keys, traits, split, clients, seed, "pool")


@given(pools(), st.integers(0, 2), st.integers(0, 1))
@settings(max_examples=100, deadline=None)
def test_labelled_unlabelled_validation_and_test_of_all_clients_have_no_patient_in_common(
    pool: Any, num_shots: int, num_validation: int
) -> None:
    keys, traits, split, clients, seed = pool
    seen: dict[str, tuple[str, str]] = {}
    for name, share in divide(keys, traits, split, clients, seed, "pool").items():
        rng = generator(seed, "split", name)
        try:
            parts = split_patients(share, num_shots=num_shots, num_validation=num_validation, num_test=1, rng=rng, owner=name)
        except DataError:
            continue  # this client needs more than the pool promised it
        for part, held in (("train", parts.labelled + parts.unlabelled), ("validation", parts.validation), ("test", parts.test)):
            for key in held:
                assert seen.setdefault(key.patient_id, (name, part)) == (name, part)


def test_iid_shares_are_equal_and_random() -> None:
    keys = cases(23)
    shares = divide(keys, {}, IID, drawers("a", "b", "c"), 0, "pool")
    assert sorted(sizes(shares).values()) == [7, 8, 8]
    assert shares["a"] != keys[:8] and shares["a"] == sorted(shares["a"], key=keys.index)
    assert divide(keys, {}, IID, drawers("a", "b", "c"), 1, "pool") != shares
    assert divide(keys, {}, IID, drawers("a", "b", "c"), 0, "another") != shares


def test_iid_shares_are_alike_in_any_covariate() -> None:
    keys = cases(2000)
    share = divide(keys, {}, IID, drawers("a", "b"), 5, "pool")["a"]
    # Half of the first 1000 patients, hypergeometric: mean 500, variance 1000 / 4 / 2 = 125, standard deviation 11.
    assert abs(sum(int(key.patient_id[1:]) < 1000 for key in share) - 500) < 60


def test_a_column_gives_each_client_the_patients_of_its_value() -> None:
    keys = cases(9)
    traits = traits_of(keys, site=["x", "y", "z"] * 3)
    shares = divide(keys, traits, SITE, [Drawer("one", "x", 1), Drawer("two", "z", 1)], 0, "pool")
    assert shares == {"one": keys[0::3], "two": keys[2::3]}


def test_clients_with_one_value_share_its_patients_equally() -> None:
    keys = cases(12)
    traits = traits_of(keys, site=["x"] * 8 + ["y"] * 4)
    shares = divide(keys, traits, SITE, [Drawer("x-0", "x", 1), Drawer("x-1", "x", 1), Drawer("y", "y", 1)], 0, "pool")
    assert sizes(shares) == {"x-0": 4, "x-1": 4, "y": 4} and shares["y"] == keys[8:]


def test_numbers_and_text_name_the_same_value() -> None:
    keys = cases(4)
    traits = traits_of(keys, site=[3.0, "3", 4.0, 9000001.0])
    shares = divide(keys, traits, SITE, [Drawer("three", 3.0, 1), Drawer("big", "9000001", 1)], 0, "pool")
    assert shares == {"three": keys[:2], "big": keys[3:]}
    assert word(9000002.0) != word(9000001.0) and word(0.25) == "0.25"


def test_dirichlet_shares_of_each_value_have_the_moments_of_the_distribution() -> None:
    """A share of Dirichlet(alpha, alpha, alpha) has mean 1/3 and variance 2 / (9 (3 alpha + 1))."""
    keys, alpha = cases(200), 0.5
    traits = traits_of(keys, grade=["low"] * 100 + ["high"] * 100)
    split = PoolSplit(by="dirichlet", column="grade", alpha=alpha)
    shares = [
        sum(key in set(keys[:100]) for key in divide(keys, traits, split, drawers("a", "b", "c"), seed, "pool")["b"]) / 100
        for seed in range(300)
    ]
    variance = 2 / (9 * (3 * alpha + 1))
    assert np.mean(shares) == pytest.approx(1 / 3, abs=4 * math.sqrt(variance / 300))
    assert np.var(shares) == pytest.approx(variance, rel=0.25)


def test_a_large_concentration_makes_every_client_like_the_pool_and_a_small_one_unlike() -> None:
    keys = cases(300)
    traits = traits_of(keys, grade=["a", "b", "c"] * 100)
    spreads = []
    for alpha in (1e4, 1e-3):
        shares = divide(keys, traits, PoolSplit(by="dirichlet", column="grade", alpha=alpha), drawers("x", "y", "z"), 3, "pool")
        counts = [Counter(traits[key]["grade"] for key in share) for share in shares.values()]
        spreads.append([count[grade] for count in counts for grade in "abc"])
    assert all(abs(count - 100 / 3) < 3 for count in spreads[0])
    assert sorted(spreads[1]) == [0] * 6 + [100] * 3


def test_numbers_are_cut_at_their_quartiles() -> None:
    """With a tiny alpha each stratum goes to one client, so that clients hold unions of quartiles of 0..39."""
    keys = cases(40)
    traits = traits_of(keys, grade=[float(value) for value in range(40)])
    split = PoolSplit(by="dirichlet", column="grade", alpha=1e-3)
    for seed in range(5):
        for share in divide(keys, traits, split, drawers("a", "b"), seed, "pool").values():
            held = {int(traits[key]["grade"]) for key in share}
            assert all(
                set(range(start, start + 10)) <= held or not set(range(start, start + 10)) & held for start in (0, 10, 20, 30)
            )


def test_quantity_makes_sizes_unlike_and_covariates_alike() -> None:
    keys = cases(400)
    traits = traits_of(keys, grade=["a", "b"] * 200)
    shares = divide(keys, traits, QUANTITY, drawers("x", "y", "z"), 2, "pool")
    assert max(sizes(shares).values()) > 2 * min(sizes(shares).values())
    large = max(shares.values(), key=len)
    # Hypergeometric around one half with a standard deviation of at most sqrt(n) / 2.
    assert abs(sum(traits[key]["grade"] == "a" for key in large) - len(large) / 2) < 2.5 * math.sqrt(len(large))


def test_a_client_that_comes_off_badly_is_given_what_it_needs_by_those_who_have_most() -> None:
    keys = cases(30)
    without = divide(keys, {}, PoolSplit(by="quantity", alpha=1e-3), drawers("a", "b", "c"), 0, "pool")
    assert sorted(sizes(without).values()) == [0, 0, 30]
    shares = divide(keys, {}, PoolSplit(by="quantity", alpha=1e-3), drawers("a", "b", "c", needs=6), 0, "pool")
    assert sorted(sizes(shares).values()) == [6, 6, 18]


def test_more_need_than_patients_leaves_the_refusal_to_the_split_and_no_client_without_any() -> None:
    shares = divide(cases(5), {}, QUANTITY, drawers("a", "b", needs=4), 0, "pool")
    assert sum(sizes(shares).values()) == 5 and min(sizes(shares).values()) >= 1


def test_an_unknown_column_is_refused_with_the_nearest_covariate() -> None:
    keys = cases(4)
    with pytest.raises(DataError, match=r"pools\.knees\.split\.column.*got 'site'; did you mean 'sites'"):
        divide(keys, traits_of(keys, sites=["x"] * 4), SITE, drawers("x"), 0, "knees")
    with pytest.raises(DataError, match="its source tells nothing of its cases"):
        divide(keys, {}, SITE, drawers("x"), 0, "knees")


def test_every_value_without_patients_is_refused_at_once() -> None:
    keys = cases(4)
    with pytest.raises(DataError) as refused:
        divide(keys, traits_of(keys, site=["north", "south"] * 2), SITE, drawers("nord", "south", "w"), 0, "knees")
    lines = str(refused.value).splitlines()
    assert len(lines) == 2 and "nord: value" in lines[0] and "did you mean 'north'?" in lines[0] and lines[1].startswith("w: value")


def test_a_patient_seen_at_two_sites_is_refused_by_name() -> None:
    keys = cases(2, visits=2)
    with pytest.raises(DataError, match=r"'x' and 'y' of patient 'p001' \(case 'p001v1'\)"):
        divide(keys, traits_of(keys, site=["x", "x", "x", "y"]), SITE, drawers("x"), 0, "knees")


SOURCE = {"name": "phantom", "num_cases": 12, "spacing_mm": [10.0, 8.0, 8.0], "field_of_view_mm": [100.0, 112.0, 112.0]}
SCENARIO: dict[str, Any] = {
    "name": "pooled",
    "seed": 3,
    "classes": ["femoral_cartilage"],
    "repository": {"source": {**SOURCE, "num_cases": 3}, "num_validation": 1, "teacher": {"network": {"name": "unet", "width": 4}}},
    "pools": {"knees": {"source": SOURCE}},
    "clients": [
        {"group": name, "source": {"name": "pool", "pool": "knees"}, "labels": {"num_shots": 1}, "num_test": 2}
        for name in ("north", "south", "west")
    ],
    "student": {"network": {"name": "unet", "width": 4}},
    "method": {"name": "fedavg"},
}


def scenario(*overrides: str, **values: Any) -> Scenario:
    return scenario_from_dict(copy.deepcopy(SCENARIO) | values, Path("/"), overrides).scenario


def keys_of(built: Scenario) -> dict[str, list[CaseKey]]:
    return {member.name: client_site(built, member, Path("/")).source.keys() for member in built.members()}


def test_clients_that_draw_on_a_pool_hold_all_its_cases_once_under_readable_names() -> None:
    built = scenario()
    list_cases(built, Path("/"))
    held = sorted(key.case_id for share in keys_of(built).values() for key in share)
    assert held == [f"knees-{index:03d}" for index in range(12)]
    assert len({key.patient_id for share in keys_of(built).values() for key in share}) == 12


def test_the_order_of_groups_changes_nobody_s_cases() -> None:
    turned = scenario(clients=list(reversed(copy.deepcopy(SCENARIO["clients"]))))
    assert keys_of(turned) == keys_of(scenario())


def test_a_case_is_the_same_whoever_holds_it_and_only_its_holder_can_load_it() -> None:
    built = scenario()
    north = client_site(built, built.members()[0], Path("/")).source
    key = north.keys()[0]
    whole = PhantomSource(built.pools["knees"].source, built.classes, built.seed, "pool:knees", Path("/"))
    assert north.load(key).case_id == key.case_id
    original = whole.load(CaseKey(f"pool:{key.case_id}", key.patient_id))
    assert np.array_equal(north.load(key).image_CIJK, original.image_CIJK)
    with pytest.raises(KeyError):
        client_site(built, built.members()[1], Path("/")).source.load(key)


def test_a_pool_split_by_column_takes_the_group_s_name_or_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    regions = ["north", "south", "far-west"]
    monkeypatch.setattr(PhantomSource, "traits", lambda self, key: {"region": regions[int(key.case_id[-3:]) % 3]})
    built = scenario(
        "pools.knees.split={by: column, column: region}", "clients[2].source={name: pool, pool: knees, value: far-west}"
    )
    held = {name: {int(key.case_id[-3:]) % 3 for key in share} for name, share in keys_of(built).items()}
    assert held == {"north": {0}, "south": {1}, "west": {2}}


def test_all_that_is_wrong_with_pools_is_said_at_once() -> None:
    built = scenario(
        "clients[0].source.pool=knee",
        "clients[1].source={name: pool, pool: knees, value: x}",
        "pools.spare={source: {name: pool, pool: knees}}",
    )
    with pytest.raises(ScenarioError) as refused:
        list_cases(built, Path("/"))
    said = {problem.path: str(problem) for problem in refused.value.problems}
    assert "did you mean 'knees'?" in said["clients[north].source.pool"]
    assert "split by iid" in said["clients[south].source.value"]
    assert said.keys() >= {"pools.spare.source", "pools.spare"}


def test_every_client_that_the_pool_leaves_short_is_named() -> None:
    with pytest.raises(DataError) as refused:
        list_cases(scenario("clients[*].num_test=6"), Path("/"))
    assert [line.split(":")[0] for line in str(refused.value).splitlines()] == ["north", "south", "west"]


def test_the_repository_cannot_draw_on_a_pool() -> None:
    built = scenario("repository.source={name: pool, pool: knees}")
    with pytest.raises(DataError, match="only clients can draw on a pool"):
        Pools(built, Path("/")).open_source(built.repository.source, "repository")


def test_a_pool_is_listed_once_for_all_its_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a thousand clients listing what all thousand hold would make preparation grow with the square of their number."""
    built = scenario()
    asked, pools = list[str](), Pools(built, Path("/"))
    monkeypatch.setattr("raykd.data.pools.pool_source", lambda *arguments: asked.append("opened") or pool_source(*arguments))
    shared = [client_site(built, member, Path("/"), pools) for member in built.members()]
    assert asked == ["opened"]
    alone = [client_site(built, member, Path("/")) for member in built.members()]
    assert [site.source.keys() for site in shared] == [site.source.keys() for site in alone]
    assert [site.fingerprint() for site in shared] == [site.fingerprint() for site in alone]


@given(st.permutations(["north", "south", "west", "own"]), st.sampled_from(["iid", "quantity", "column", "dirichlet"]))
@settings(max_examples=15, deadline=None)
def test_the_same_seed_gives_every_client_the_same_splits_whatever_the_order_of_groups(order: list[str], by: str) -> None:
    def splits(names: list[str]) -> dict[str, Any]:
        pooled = {group["group"]: group for group in copy.deepcopy(SCENARIO["clients"])}
        pooled["own"] = {**pooled["north"], "group": "own", "source": SOURCE}
        for group in pooled.values():
            group["labels"], group["num_test"] = {"num_shots": 1}, 1
            if by == "column" and group["group"] != "own":
                group["source"] = {**group["source"], "value": "left" if group["group"] == "west" else "right"}
        column = {"column": "side"} if by in ("column", "dirichlet") else {}
        built = scenario(
            clients=[pooled[name] for name in names], pools={"knees": {"source": SOURCE, "split": {"by": by, **column}}}
        )
        return {site.owner: split for site, split in holdings(built, Path("/"))[0]}

    told = splits(order)
    assert told == splits(["north", "south", "west", "own"])
    placed = [
        (key.patient_id, part)
        for split in told.values()
        for part in ("labelled", "unlabelled", "test")
        for key in getattr(split, part)
    ]
    assert len({patient for patient, _ in placed}) == len(placed) == 24


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_a_share_of_two_has_the_spread_of_a_beta_distribution(alpha: float) -> None:
    """Beta(alpha, alpha) has variance 1 / (4 (2 alpha + 1)), and its estimate from 4000 draws a relative error below 2 %."""
    split = PoolSplit(by="quantity", alpha=alpha)
    shares = [_shares(split, ["a", "b"], seed, "pool", "")[0] for seed in range(4000)]
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)
