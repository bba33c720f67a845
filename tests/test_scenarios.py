"""The gallery: every scenario and study that ships resolves, and editors know its schema."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from raykd.commands.options import plan_scenario, plan_study
from raykd.launch import check_plans
from raykd.scenario.errors import DataError
from raykd.scenario.study import is_study

FOLDER = Path(__file__).parent.parent / "scenarios"
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if not path.name.startswith("_"))
every_file = pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(FOLDER)) for path in FILES])


def test_there_are_scenarios() -> None:
    assert FOLDER / "smoke.yaml" in FILES


@every_file
def test_resolves_and_contradicts_nothing(path: Path, tmp_path: Path) -> None:
    plans = plan_study(path, [], tmp_path)[0] if is_study(path) else [plan_scenario(path, [], tmp_path)]
    assert plans
    try:
        check_plans(plans)
    except DataError as error:
        sources = {block.source.name for plan in plans for block in (plan.scenario.repository, *plan.scenario.clients)}
        if sources == {"phantom"}:
            raise
        pytest.skip(f"its data are not here: {error}")


@every_file
def test_names_the_schema_for_editors(path: Path) -> None:
    """In the comment at its head, by a path that leads to the folder of the gallery."""
    lines = path.read_text(encoding="utf-8").splitlines()
    head = itertools.takewhile(lambda line: line.startswith("#"), lines)
    (named,) = [line.split("$schema=")[1] for line in head if line.startswith("# yaml-language-server: $schema=")]
    assert (path.parent / named).resolve().parent == FOLDER
    assert Path(named).name == ("study.schema.json" if is_study(path) else "scenario.schema.json")
