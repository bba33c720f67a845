"""Who has what: the repository and every client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from raykd.report.blocks import Block, Cell, Keys, Row, Table, Text
from raykd.report.evidence import REPOSITORY, Evidence
from raykd.report.material import Material
from raykd.report.wording import NONE, number, plural, readable, short
from raykd.results.statistics import case_scores

KEY = "federation"
TITLE = "The federation"
NEEDS = "a scenario with clients"
AS_IN_SOURCE = "as in its source"


def page(material: Material) -> list[Block]:
    """Who takes part: each site as the first run that has it lists it."""
    evidence = material.evidence
    pooling = " and ".join(sorted(evidence.pooling_methods))
    exception = f", except under {pooling}, which pools them as a yardstick" if pooling else ""
    words = (
        f"Every site keeps its scans{exception}. It differs from the others in voxel spacing, scanner, number of labelled scans "
        f"and line. {teacher_sentence(evidence)}"
    )
    return [Text(words), _table(material)]


def _table(material: Material) -> Table:
    evidence = material.evidence
    clients = evidence.tables["clients"]
    first = clients.drop_duplicates("client_id")
    headings = (
        "Site",
        f"Spacing, mm ({'R × A × S' if evidence.has_bodies else 'I × J × K'})",
        "Scanner",
        "Labelled / unlabelled / test scans",
        "Structures labelled",
        "Model",
        "Line",
    )
    rows: list[tuple[tuple[str, ...], Keys]] = [(_repository_row(evidence.scenario.get("repository") or {}), {})]
    rows += [(_client_row(evidence, row), material.keys(client_id=int(row["client_id"]))) for row in first.to_dict("records")]
    return Table("Who has what", headings, tuple(Row(tuple(map(Cell, words)), keys) for words, keys in rows), is_sortable=False)


def _repository_row(repository: Mapping[str, Any]) -> tuple[str, ...]:
    source, teacher = repository.get("source") or {}, repository.get("teacher") or {}
    spacing = repository.get("spacing_mm") or source.get("spacing_mm") or []
    network = (teacher.get("network") or {}).get("name", NONE)
    held_out = repository.get("num_validation", 0)
    count = f"all of {source['num_cases']}, {held_out} held out" if "num_cases" in source else f"all, {held_out} held out"
    grid = " × ".join(short(edge) for edge in spacing) or "as its source"
    return "repository (external)", grid, str(source.get("protocol") or AS_IN_SOURCE), count, "all", f"{network} (teacher)", NONE


def _client_row(evidence: Evidence, row: Mapping[Any, Any]) -> tuple[str, ...]:
    def known(column: str) -> str:
        return NONE if pd.isna(row[column]) else short(row[column])

    size = "" if pd.isna(row["num_params"]) else f", {row['num_params'] / 1e6:.2g} M values"
    return (
        evidence.name(row["client_id"]),
        " × ".join(known(f"spacing_{axis}_mm") for axis in "ijk"),
        known("scanner"),
        f"{known('num_labelled')} / {known('num_unlabelled')} / {known('num_test')}",
        readable(known("label_classes")),
        f"{known('network')}{size}",
        f"{known('link_down_mbps')} down, {known('link_up_mbps')} up, Mbit/s",
    )


def teacher_sentence(evidence: Evidence) -> str:
    """How the teacher does on the repository's held-out cases; "" where that is not recorded."""
    cases = evidence.tables["cases"]
    rows = cases[(cases["client_id"] == REPOSITORY) & (cases["model"] == "teacher")]
    rows = rows[rows["run_id"] == rows["run_id"].iloc[0]] if len(rows) else rows
    if rows["dsc"].isna().all():
        return ""
    scores = case_scores(rows)["score"]
    scans = plural(len(scores), "held-out scan")
    return f"On {scans} of its own repository, the teacher reaches a mean DSC of {number(scores.mean())}."
