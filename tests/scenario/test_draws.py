"""What sites draw: by whom, from what, in which range, and what is written down of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from raykd.scenario.draws import Draw, Shares, draw_number, draw_shares, stream
from raykd.scenario.errors import ScenarioError
from raykd.scenario.load import dump_scenario, load_scenario, scenario_from_dict
from raykd.scenario.schema import Scenario
from raykd.scenario.study import load_study

GOOD = Path(__file__).parent / "good"
SOURCE = {"name": "synthetic", "num_cases": 9}


@pytest.fixture
def draw() -> Callable[..., Scenario]:
    """The scenario of these client groups."""

    def draw(*groups: dict[str, Any], seed: int = 0) -> Scenario:
        data = {"extends": "base.yaml", "seed": seed, "clients": [{"source": SOURCE, **group} for group in groups]}
        return scenario_from_dict(data, GOOD).scenario

    return draw


def test_a_group_that_draws_becomes_one_group_a_site(draw: Callable[..., Scenario]) -> None:
    scenario = draw({"group": "a", "count": 3, "labels": {"num_shots": {"uniform": [1, 8]}}}, {"group": "b", "count": 2})
    assert [(group.group, group.name, group.count) for group in scenario.clients] == [
        ("a", "a-0", 1),
        ("a", "a-1", 1),
        ("a", "a-2", 1),
        ("b", None, 2),
    ]
    assert [member.name for member in scenario.members()] == ["a-0", "a-1", "a-2", "b-0", "b-1"]
    for group in scenario.clients[:3]:
        assert group.drawn == {"labels.num_shots": group.labels.num_shots}
    assert scenario.clients[3].drawn == {}


def test_one_site_that_draws_keeps_its_name(draw: Callable[..., Scenario]) -> None:
    one, named = draw(
        {"group": "a", "compute_factor": {"uniform": [1, 2]}}, {"group": "b", "name": "c", "compute_factor": {"uniform": [1, 2]}}
    ).members()
    assert (one.name, named.name) == ("a", "c")
    assert one.group.compute_factor != named.group.compute_factor


def test_a_site_draws_the_same_whatever_else_the_file_says(draw: Callable[..., Scenario]) -> None:
    drawing = {"group": "a", "count": 2, "link": {"up_mbps": {"uniform": [1, 100]}}}
    other = {"group": "b", "count": 2, "compute_factor": {"uniform": [1, 100]}, "link": {"up_mbps": {"uniform": [1, 100]}}}

    def rates(*groups: dict[str, Any], seed: int = 0) -> dict[str, float]:
        return {member.name: member.group.link.up_mbps for member in draw(*groups, seed=seed).members()}

    alone = rates(drawing)
    assert rates(other, {**drawing, "count": 5}).items() >= alone.items()
    assert rates(drawing, other) == rates(other, drawing)
    assert len(set(rates(drawing, other).values())) == 4
    assert not set(rates(drawing, seed=1).values()) & set(alone.values())


def test_two_keys_of_a_site_draw_on_their_own(draw: Callable[..., Scenario]) -> None:
    spacing = {"uniform": [1.0, 5.0]}
    (group,) = draw({"group": "a", "spacing_mm": [spacing, spacing, spacing]}).clients
    assert group.spacing_mm is not None
    assert len(set(group.spacing_mm)) == 3
    assert group.drawn == {f"spacing_mm[{axis}]": value for axis, value in enumerate(group.spacing_mm)}


def test_a_run_s_own_scenario_is_read_back_without_drawing_again(tmp_path: Path) -> None:
    scenario = load_scenario(GOOD / "draws.yaml").scenario
    (tmp_path / "scenario.yaml").write_text(dump_scenario(scenario))
    assert load_scenario(tmp_path / "scenario.yaml", ["seed=999"]).scenario.clients == scenario.clients
    assert load_scenario(tmp_path / "scenario.yaml").scenario.content_hash() == scenario.content_hash()


def test_shares_of_a_total_add_up_among_the_sites_of_the_group() -> None:
    groups = load_scenario(GOOD / "draws.yaml").scenario.clients[:4]
    assert sum(group.source.num_cases for group in groups) == 60
    assert min(group.source.num_cases for group in groups) >= 1


def test_a_chosen_block_may_hold_draws_and_both_are_recorded(draw: Callable[..., Scenario]) -> None:
    scanner = {"choice": [{"noise": {"uniform": [0.1, 0.2]}}, {"blur_mm": {"uniform": [3, 4]}}]}
    groups = draw({"group": "a", "count": 12, "scanner": scanner}).clients
    noisy = [group for group in groups if group.scanner.noise]
    assert 0 < len(noisy) < 12
    for group in groups:
        if group in noisy:
            assert 0.1 <= group.scanner.noise <= 0.2 and group.scanner.blur_mm == 0
            assert group.drawn == {"scanner": {"noise": group.scanner.noise}, "scanner.noise": group.scanner.noise}
        else:
            assert 3 <= group.scanner.blur_mm <= 4 and group.scanner.noise == 0


def test_options_and_extending_files_reach_draws(draw: Callable[..., Scenario]) -> None:
    options = ["clients[0].labels.num_shots=5", "clients[0].link.up_mbps.normal=[7, 0]"]
    groups = load_scenario(GOOD / "draws.yaml", options).scenario.clients
    assert [(group.labels.num_shots, group.link.up_mbps) for group in groups[:4]] == [(5, 7)] * 4
    drawn = load_scenario(GOOD / "draws.yaml", ["clients.*.num_test={uniform: [20, 30]}"]).scenario.clients
    assert all(20 <= group.num_test <= 30 for group in drawn)


def test_a_study_s_cells_draw_by_their_seed_and_not_by_their_method(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text((GOOD / "base.yaml").read_text())
    (tmp_path / "draws.yaml").write_text((GOOD / "draws.yaml").read_text())
    (tmp_path / "study.yaml").write_text("base: draws.yaml\nmethods: [{name: dual}, {name: average}]\nseeds: [1, 2]\n")
    one, two, one_again, two_again = (cell.loaded.scenario.clients for cell in load_study(tmp_path / "study.yaml").cells)
    assert one == one_again and two == two_again
    assert one[0].drawn != two[0].drawn


def test_where_whole_numbers_are_expected_both_ends_are_drawn_as_often_as_the_rest() -> None:
    rng = stream(0, "test")
    values = [draw_number(Draw(uniform=(2, 5)), rng, True) for _ in range(4000)]
    counts = [values.count(value) for value in (2, 3, 4, 5)]
    assert sum(counts) == 4000
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize(
    ("draw", "law"),
    [
        (Draw(uniform=(-2, 6)), stats.uniform(-2, 8)),
        (Draw(normal=(5, 2)), stats.norm(5, 2)),
        (Draw(lognormal=(3, 0.5)), stats.lognorm(0.5, scale=3)),
    ],
    ids=["uniform", "normal", "lognormal"],
)
def test_numbers_follow_the_law_that_their_word_names(draw: Draw, law: Any) -> None:
    values = [draw_number(draw, stream(3, "site", number), False) for number in range(4000)]
    assert stats.kstest(values, law.cdf).pvalue > 0.001


def test_min_and_max_clip() -> None:
    draw = Draw(normal=(0, 10), min=-1, max=2)
    values = {draw_number(draw, stream(number), True) for number in range(200)}
    assert values == {-1, 0, 1, 2}


def test_choices_are_equally_likely_and_may_be_null(draw: Callable[..., Scenario]) -> None:
    classes = {"choice": [None, ["femur"], ["tibia"]]}
    groups = draw({"group": "a", "count": 600, "labels": {"classes": classes}}).clients
    counts = [sum(group.labels.classes == given for group in groups) for given in (None, ("femur",), ("tibia",))]
    assert sum(counts) == 600
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize(("alpha", "count", "total"), [(0.5, 4, 60), (1e-4, 5, 5), (1e-4, 5, 1000), (1e6, 3, 30), (2.0, 1, 7)])
def test_shares_are_whole_at_least_one_and_add_up(alpha: float, count: int, total: int) -> None:
    for number in range(50):
        shares = draw_shares(Shares(alpha=alpha, total=total), count, stream(number))
        assert len(shares) == count and sum(shares) == total and min(shares) >= 1
        if alpha == 1e6:
            assert shares == [10, 10, 10]


def test_shares_spread_as_a_dirichlet_distribution_does() -> None:
    """The variance of one share of k is (1 / k)(1 - 1 / k) / (k alpha + 1) of the total's square; each has its 1 apart."""
    shares = np.array([draw_shares(Shares(alpha=0.5, total=100_004), 4, stream(1, number)) for number in range(4000)])
    expected = 100_000**2 * (0.25 * 0.75 / 3)
    assert (shares - 1).var(axis=0).mean() == pytest.approx(expected, rel=0.05)
    assert (shares - 1).mean(axis=0) == pytest.approx(np.full(4, 25_000), rel=0.06)


def test_numbers_are_kept_to_six_digits_and_inside_their_range() -> None:
    for number in range(200):
        value = draw_number(Draw(uniform=(1 / 3, 0.3333334)), stream(number), False)
        assert 1 / 3 <= value <= 0.3333334
        value = draw_number(Draw(normal=(math.pi, 1)), stream(number), False)
        assert float(f"{value:.6g}") == value


def test_a_problem_of_a_group_that_draws_is_told_once_where_it_stands(draw: Callable[..., Scenario]) -> None:
    with pytest.raises(ScenarioError) as error:
        draw({"group": "b"}, {"group": "a", "count": 50, "num_test": -1, "labels": {"num_shots": {"uniform": [1, 8]}}})
    assert [str(problem) for problem in error.value.problems] == ["clients[1].num_test: must be at least 0, got -1"]


def test_the_record_of_what_was_drawn_is_not_drawn_from(draw: Callable[..., Scenario]) -> None:
    record = {"source": {"choice": ["a value that looks like a draw"]}}
    (group,) = draw({"group": "a", "drawn": record}).clients
    assert group.drawn == record
