"""Writes docs/methods.md from what every method says of itself: `python docs/make_methods.py`. A test keeps the two equal."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from raykd.scenario.registry import METHODS

HEAD = """# Methods

Every method runs on the same clients, labels, starts, budget and statistics. `scenarios/methods/` has a scenario for each,
`raykd list methods --json` the same facts for programs, [Every key of a scenario](scenarios.md) their settings, and
[A method of your own](plugins.md) what it takes to add one.

*Travels*: what crosses the links in a round, by kind. *Deploys*: the model that a site uses in the end. A method that cannot run
in a scenario says so in `raykd check`.

| method | what it does | travels | deploys | needs |
|---|---|---|---|---|
"""


def markdown() -> str:
    """The page."""
    rows, notes = [], []
    for name in METHODS.names():
        cls = METHODS.get(name)
        facts = cls.facts()
        summary = (inspect.getdoc(cls) or "").splitlines()[0].replace("|", "\\|")
        travels, needs = ", ".join(facts["travels"]) or "nothing", "; ".join(facts["needs"])
        rows.append(f"| [`{name}`](#{name}) | {summary} | {travels} | {facts['deploys']} | {needs} |")
        notes.append(f"### {name}\n\n{inspect.getdoc(sys.modules[cls.__module__])}\n")
    return HEAD + "\n".join(rows) + "\n\n## Sources, and what differs from them\n\n" + "\n".join(notes)


if __name__ == "__main__":
    (Path(__file__).parent / "methods.md").write_text(markdown(), encoding="utf-8")
