"""The page on networks says what the networks are."""

from __future__ import annotations

import runpy
from pathlib import Path

from raykd.scenario.registry import NETWORKS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_the_generator_measures() -> None:
    page = runpy.run_path(str(DOCS / "make_networks.py"))["markdown"]()
    assert (DOCS / "networks.md").read_text(encoding="utf-8") == page, "run python docs/make_networks.py"


def test_every_network_is_on_the_page() -> None:
    page = (DOCS / "networks.md").read_text(encoding="utf-8")
    assert [name for name in NETWORKS.names() if page.count(f"| `{name}` |") != 2] == []
