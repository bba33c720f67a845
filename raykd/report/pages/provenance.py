"""Where the numbers come from: runs, machines, versions."""

from __future__ import annotations

from collections.abc import Iterator

from raykd.report.blocks import Block, Cell, Facts, Row, Table, Text
from raykd.report.evidence import Evidence
from raykd.report.material import Material
from raykd.report.wording import NONE, data_size
from raykd.results.reader import Run

KEY = "provenance"
TITLE = "Where the numbers come from"
NEEDS = "a run"
WORDS = (
    "Every number on this page comes from the tables of the runs below. The same scenario and seed give the same numbers: "
    "raykd run RUN_DIR/scenario.yaml --out NEW_DIR"
)


def page(material: Material) -> list[Block]:
    """What all runs have in common, and one row a run with the rest."""
    evidence = material.evidence
    rows = [dict(_provenance(evidence, run)) for run in evidence.runs]
    shared = {key: words for key, words in rows[0].items() if key != "Run" and all(row[key] == words for row in rows)}
    headings = tuple(key for key in rows[0] if key not in shared)
    cells = [
        Row(tuple(Cell(row[key]) for key in headings), material.keys(evidence.labels[run.run_id]))
        for run, row in zip(evidence.runs, rows, strict=True)
    ]
    facts: list[Block] = [Facts(tuple(shared.items()))] if shared else []
    return [Text(WORDS), *facts, Table("Runs", headings, tuple(cells), is_sortable=False)]


def _provenance(evidence: Evidence, run: Run) -> Iterator[tuple[str, str]]:
    manifest = run.manifest
    machine = manifest.get("machine") or {}
    memory = data_size(float(machine.get("memory_bytes", float("nan"))))
    yield "Run", run.run_id
    yield "Method", evidence.labels[run.run_id]
    yield "Seed", str(run.scenario.get("seed", 0))
    for key, heading in (
        ("status", "Status"),
        ("started_at", "Started"),
        ("ended_at", "Ended"),
        ("scenario_hash", "Scenario hash"),
    ):
        yield heading, str(manifest.get(key) or NONE).replace("T", " ").replace("+00:00", " UTC")
    yield "Commit", str(manifest.get("git_commit") or NONE)[:12]
    yield "Machine", f"{machine.get('num_cpus', '?')} CPUs, {memory}, {machine.get('platform', '')}"
    packages = ("raykd", "python", "torch", "ray", "monai", "torchio")
    yield "Versions", ", ".join(f"{name} {manifest[name]}" for name in packages if manifest.get(name))
