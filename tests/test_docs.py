"""What the documentation says is what the code does."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

from raykd.scenario.json_schema import json_schema, study_schema
from raykd.scenario.load import load_scenario
from raykd.scenario.registry import REGISTRIES
from raykd.scenario.study import load_study

ROOT = Path(__file__).parents[1]


def test_the_column_dictionary_is_the_schema() -> None:
    """docs/tables.md is generated; a column that changes must change there."""
    page = runpy.run_path(str(ROOT / "docs" / "make_tables.py"))["markdown"]()
    assert (ROOT / "docs" / "tables.md").read_text(encoding="utf-8") == page, "run python docs/make_tables.py"


def test_the_page_of_methods_is_what_they_say() -> None:
    """docs/methods.md is generated; a method that changes must change there."""
    page = runpy.run_path(str(ROOT / "docs" / "make_methods.py"))["markdown"]()
    assert (ROOT / "docs" / "methods.md").read_text(encoding="utf-8") == page, "run python docs/make_methods.py"


def test_the_page_of_keys_is_what_the_models_say() -> None:
    """docs/scenarios.md is generated; a setting that changes must change there."""
    page = runpy.run_path(str(ROOT / "docs" / "make_scenarios.py"))["markdown"]()
    assert (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8") == page, "run python docs/make_scenarios.py"
    for registry in REGISTRIES.values():
        for name in registry.names():
            assert f"### {registry.kind} {name}\n" in page
            for key in registry.get(name).Settings.model_fields:
                assert key == "name" or f"| `{key}` |" in page
    links, anchors = re.findall(r"\]\(#([^)]+)\)", page), re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    assert set(links) <= {title.lower().replace(" ", "-") for title in anchors}


def test_the_examples_of_the_page_on_studies_are_right(tmp_path: Path) -> None:
    """docs/studies.md: its scenario draws, and its study has as many cells as it says."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "studies.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "draws.yaml").write_text(f"extends: base/four-knees.yaml\n{blocks[0]}")
    (tmp_path / "study.yaml").write_text(blocks[1])
    shutil.copytree(ROOT / "scenarios" / "base", tmp_path / "base")
    clients = load_scenario(tmp_path / "draws.yaml").scenario.clients
    assert len(clients) == 8 and sum(group.source.num_cases for group in clients) == 80
    assert len(load_study(tmp_path / "study.yaml").cells) == 54


def test_the_editors_schema_is_the_one_that_validates() -> None:
    """scenarios/*.schema.json are what `raykd schema` and `raykd schema --study` print."""
    for name, schema in (("scenario", json_schema()), ("study", study_schema())):
        stored = json.loads((ROOT / "scenarios" / f"{name}.schema.json").read_text(encoding="utf-8"))
        assert stored == schema, f"run raykd schema again for scenarios/{name}.schema.json"


def test_every_promise_names_a_test_that_there_is() -> None:
    """docs/guarantees.md: each row of a promise links to tests, and they are in the files linked."""
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+ \| (.*\.\./tests/.*) \|$", text, re.MULTILINE)
    links = [link for row in rows for link in re.findall(r"\[`([^`]+)`\]\(\.\./(tests/[^)]+)\)", row)]
    assert len(links) >= len(rows) > 10
    for name, file in links:
        assert name == file or f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), name


def test_every_link_of_the_readme_leads_somewhere() -> None:
    """Relative links of README.md and of the pages under docs/."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    targets = [(page, target) for page in pages for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8"))]
    assert targets
    assert [f"{page.name}: {target}" for page, target in targets if not (page.parent / target).exists()] == []
