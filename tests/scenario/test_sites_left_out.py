"""Sites that take no part, named by hand or left out in turn by a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raykd.scenario.errors import ScenarioError
from raykd.scenario.load import scenario_from_dict
from raykd.scenario.schema import Scenario
from raykd.scenario.study import load_study

PHANTOM = {"name": "synthetic", "num_cases": 4}


def _scenario(**changes: Any) -> Scenario:
    data = {
        "name": "sites",
        "classes": ["femoral_cartilage"],
        "repository": {"source": PHANTOM, "teacher": {"network": {"name": "plain"}}},
        "clients": [
            {"group": "community", "count": 2, "source": PHANTOM, "num_test": 1},
            {"group": "university", "source": PHANTOM, "num_test": 1},
        ],
        "student": {"network": {"name": "plain"}},
        "method": {"name": "average"},
    }
    return scenario_from_dict(data | changes, Path()).scenario


@pytest.mark.parametrize(
    ("names", "want"),
    [
        ([], []),
        ("university", ["university"]),
        (["community-1"], ["community-1"]),
        ("community", ["community-0", "community-1"]),
        (["community-0", "university"], ["community-0", "university"]),
    ],
)
def test_held_out_names_sites_or_groups(names: Any, want: list[str]) -> None:
    built = _scenario(held_out=names)
    assert [member.name for member in built.members() if member.held_out] == want
    again = Scenario.model_validate_json(built.model_dump_json())
    assert again.content_hash() == built.content_hash()


def _untested(**changes: Any) -> dict[str, Any]:
    return {"clients": [{"group": name, "source": PHANTOM, "num_test": 0} for name in ("a", "b")], **changes}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"held_out": "univ"}, "held_out: must name sites or groups of the scenario, got univ"),
        ({"held_out": "univercity"}, "did you mean 'university'?"),
        ({"held_out": ["community", "university"]}, "held_out: must leave a site that trains"),
        ({"held_out": 3}, "held_out: "),
        (_untested(), "clients[0].num_test: must be at least 1 at one site, or a site must be in held_out"),
    ],
)
def test_what_leaves_nobody_to_train_or_to_test_is_refused(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        _scenario(**changes)
    assert part in str(refused.value)


def test_the_validation_cases_of_a_site_that_is_held_out_are_none() -> None:
    """It tests on all that it has, so a target would never be judged."""
    groups = [{"group": name, "source": PHANTOM, "num_test": 1, "num_validation": int(name == "b")} for name in ("a", "b")]
    target: dict[str, Any] = {"clients": groups, "federation": {"rounds": 2, "stop": {"dsc": 0.8}}}
    assert _scenario(**target).federation.stop.dsc == 0.8
    with pytest.raises(
        ScenarioError, match=r"federation\.stop\.dsc: is judged on validation cases, and no client that trains has any"
    ):
        _scenario(**target, held_out="b")


def test_a_federation_may_be_tested_at_the_site_that_is_held_out_alone() -> None:
    assert [member.group.num_test for member in _scenario(**_untested(held_out="b")).members()] == [0, 0]


BASE = """name: base
classes: [femoral_cartilage]
repository:
  source: {name: synthetic, num_cases: 5}
  teacher: {network: {name: plain}}
clients:
  - {group: community, count: 2, source: {name: synthetic, num_cases: 3}, spacing_mm: [{uniform: [2, 4]}, 1, 1], num_test: 1}
  - {group: university, name: basel, source: {name: synthetic, num_cases: 3}, num_test: 1}
student: {network: {name: plain}}
method: {name: average}
"""


def _study(folder: Path, text: str, *overrides: str) -> Any:
    (folder / "base.yaml").write_text(BASE)
    (folder / "study.yaml").write_text("base: base.yaml\n" + text)
    return load_study(folder / "study.yaml", overrides)


def test_a_study_leaves_out_each_site_in_turn_and_changes_nothing_else(tmp_path: Path) -> None:
    cells = _study(tmp_path, "leave_one_site_out: true\nseeds: [1, 2]\n").cells
    assert [(cell.varied["held_out"], cell.loaded.scenario.seed) for cell in cells] == [
        (name, seed) for seed in (1, 2) for name in ("community-0", "community-1", "basel")
    ]
    assert [[m.name for m in cell.loaded.scenario.members() if m.held_out] for cell in cells[:3]] == [
        ["community-0"],
        ["community-1"],
        ["basel"],
    ]
    assert cells[0].cell_id == "average--held_out=community-0--seed1"
    rest = {cell.loaded.scenario.model_copy(update={"held_out": ()}).content_hash() for cell in cells[:3]}
    assert len(rest) == 1


def test_a_study_counts_the_sites_of_each_cell(tmp_path: Path) -> None:
    cells = _study(tmp_path, "leave_one_site_out: true\nvary:\n  clients[0].count: [1, 3]\n").cells
    assert [cell.varied["held_out"] for cell in cells] == [
        "community",
        "basel",
        "community-0",
        "community-1",
        "community-2",
        "basel",
    ]
    assert len(_study(tmp_path, "leave_one_site_out: false\n").cells) == 1


@pytest.mark.parametrize(
    ("text", "overrides", "part"),
    [
        ("leave_one_site_out: true\nvary: {held_out: [basel]}\n", (), "the study also sets held_out"),
        ("leave_one_site_out: true\n", ("held_out=basel",), "the study itself sets held_out"),
        ("leave_one_site_out: true\n", ("clients=[]",), "clients"),
    ],
)
def test_a_study_that_leaves_open_who_is_left_out_is_refused(
    tmp_path: Path, text: str, overrides: tuple[str, ...], part: str
) -> None:
    with pytest.raises(ScenarioError) as refused:
        _study(tmp_path, text, *overrides)
    assert part in str(refused.value)
