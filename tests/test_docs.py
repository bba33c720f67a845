"""What the documentation says is what the code does."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

from raykd.scenario.json_schema import json_schema, study_schema

ROOT = Path(__file__).parents[1]


def test_the_column_dictionary_is_the_schema() -> None:
    """docs/tables.md is generated; a column that changes must change there."""
    page = runpy.run_path(str(ROOT / "docs" / "make_tables.py"))["markdown"]()
    assert (ROOT / "docs" / "tables.md").read_text(encoding="utf-8") == page, "run python docs/make_tables.py"


def test_the_editors_schema_is_the_one_that_validates() -> None:
    """scenarios/*.schema.json are what `raykd schema` and `raykd schema --study` print."""
    for name, schema in (("scenario", json_schema()), ("study", study_schema())):
        stored = json.loads((ROOT / "scenarios" / f"{name}.schema.json").read_text(encoding="utf-8"))
        assert stored == schema, f"run raykd schema again for scenarios/{name}.schema.json"


def test_every_link_of_the_readme_leads_somewhere() -> None:
    """Relative links of README.md and of the pages under docs/."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    targets = [(page, target) for page in pages for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8"))]
    assert targets
    assert [f"{page.name}: {target}" for page, target in targets if not (page.parent / target).exists()] == []
