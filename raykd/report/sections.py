"""The tables of the report, as cells that a template prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from raykd.report.answer import compare
from raykd.report.costs import Cost
from raykd.report.evidence import REPOSITORY, Evidence
from raykd.report.wording import NONE, data_size, duration, number, readable, short, signed
from raykd.results.reader import Run
from raykd.results.statistics import Estimate, Score, case_scores

METRICS = {"dsc": "DSC", "nsd": "NSD", "hd95_mm": "HD95 (mm)"}
NUM_EVENTS = 40
COMPARED = (
    "Method",
    "DSC, mean over sites",
    "DSC, worst site",
    "Worst site",
    "DSC, difference to the first",
    "NSD",
    "HD95, mm",
    "Received by a site",
    "Sent by a site",
    "Time of the rounds",
    "Simulated time",
    "Seeds",
)


@dataclass(frozen=True)
class Cell:
    """A cell: what it shows, the number by which its column is sorted (None: by its words), and a smaller line beneath."""

    words: str
    value: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """A table: its headings and its rows of cells."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def digits_of(metric: str) -> int:
    """Decimals worth printing."""
    return 1 if metric.endswith("_mm") else 2


def federation_table(evidence: Evidence) -> Table:
    """Who has what: the repository and every client of the first run that lists them."""
    clients = evidence.tables["clients"]
    first = clients[clients["run_id"] == clients["run_id"].iloc[0]] if len(clients) else clients
    headings = (
        "Site",
        f"Spacing, mm ({'R × A × S' if evidence.has_bodies else 'I × J × K'})",
        "Scanner",
        "Labelled / unlabelled / test scans",
        "Structures labelled",
        "Model",
        "Line",
    )
    rows = [_repository_row(evidence.scenario.get("repository") or {})]
    rows += [_client_row(evidence, row) for row in first.to_dict("records")]
    return Table(headings, tuple(tuple(Cell(words) for words in row) for row in rows))


def _repository_row(repository: Mapping[str, Any]) -> tuple[str, ...]:
    source, teacher = repository.get("source") or {}, repository.get("teacher") or {}
    spacing = repository.get("spacing_mm") or source.get("spacing_mm") or []
    network = (teacher.get("network") or {}).get("name", NONE)
    held_out = repository.get("num_validation", 0)
    count = f"all of {source['num_cases']}, {held_out} held out" if "num_cases" in source else f"all, {held_out} held out"
    grid = " × ".join(short(edge) for edge in spacing) or "as its source"
    return "repository (external)", grid, str(source.get("name", NONE)), count, "all", f"{network} (teacher)", NONE


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


def comparison_table(
    evidence: Evidence, rankings: Mapping[str, Sequence[Score]], scores: pd.DataFrame, costs: Mapping[str, Cost]
) -> Table:
    """One row a method, best DSC first, methods without scores last.

    Args:
        evidence: all runs.
        rankings: metric to its ranking.
        scores: the DSC of each case.
        costs: by method.
    """
    by_metric = {metric: {score.method: score for score in ranking} for metric, ranking in rankings.items()}
    order = [score.method for score in rankings["dsc"]]
    order += [method for method in evidence.methods if method not in order]
    seeds = evidence.tables["cases"].groupby("method")["seed"].nunique()
    rows = []
    for method in order:
        scored, cost = by_metric["dsc"].get(method), costs[method]
        rows.append((
            Cell(method),
            estimate_cell(scored.macro) if scored else Cell(NONE),
            estimate_cell(scored.worst) if scored else Cell(NONE),
            Cell(evidence.name(scored.worst_client) if scored else NONE),
            _behind(scores, order[0], method),
            *(_macro(by_metric[metric].get(method), metric) for metric in ("nsd", "hd95_mm")),
            Cell(data_size(cost.bytes_down), cost.bytes_down),
            Cell(data_size(cost.bytes_up), cost.bytes_up),
            *(Cell(duration(s), None if np.isnan(s) else s) for s in (cost.wall_s, cost.simulated_s)),
            Cell(str(seeds.get(method, 0)), float(seeds.get(method, 0))),
        ))  # fmt: skip
    return Table(COMPARED, tuple(rows))


def _macro(score: Score | None, metric: str) -> Cell:
    return estimate_cell(score.macro, digits_of(metric)) if score else Cell(NONE)


def estimate_cell(estimate: Estimate, digits: int = 2) -> Cell:
    """A value above its interval."""
    detail = "" if np.isnan(estimate.low) else f"{number(estimate.low, digits)} to {number(estimate.high, digits)}"
    return Cell(number(estimate.value, digits), estimate.value, detail)


def _behind(scores: pd.DataFrame, best: str, method: str) -> Cell:
    if method == best:
        return Cell("first", 0.0)
    macro = compare(scores, method, best).macro
    if np.isnan(macro.value):
        return Cell(NONE)
    bounds = "" if np.isnan(macro.low) else f"{signed(macro.low)} to {signed(macro.high)}"
    return Cell(signed(macro.value), macro.value, bounds)


def class_table(evidence: Evidence, metrics: Sequence[str]) -> Table:
    """Mean and standard deviation over scans of every site, class and method."""
    rows = []
    for key, group in evidence.deployed.groupby(["client_id", "class_name", "method"], observed=True, sort=True):
        client_id, name, method = cast(tuple[int, str, str], key)
        cells = [Cell(evidence.name(client_id)), Cell(readable(name)), Cell(method)]
        for metric in metrics:
            values = group.groupby("case_id", observed=True)[metric].mean().dropna()
            words = f"{number(values.mean(), digits_of(metric))} ± {number(values.std(), digits_of(metric))}"
            cells.append(
                Cell(words, float(values.mean())) if len(values) > 1 else Cell(number(float(values.mean()), digits_of(metric)))
            )
        rows.append(tuple(cells))
    return Table(("Site", "Structure", "Method", *(METRICS[metric] for metric in metrics)), tuple(rows))


def teacher_sentence(evidence: Evidence) -> str:
    """How the teacher does on the repository's held-out cases; "" where that is not recorded."""
    cases = evidence.tables["cases"]
    rows = cases[(cases["client_id"] == REPOSITORY) & (cases["model"] == "teacher")]
    rows = rows[rows["run_id"] == rows["run_id"].iloc[0]] if len(rows) else rows
    if rows["dsc"].isna().all():
        return ""
    scores = case_scores(rows)["score"]
    return f"On {len(scores)} held-out scans of its own repository, the teacher reaches a mean DSC of {number(scores.mean())}."


def event_table(evidence: Evidence) -> Table:
    """The first events, one row each."""
    events = evidence.tables["events"].sort_values(["method", "seed", "round"], kind="stable").head(NUM_EVENTS)
    columns = ["method", "seed", "round", "client_id", "kind", "detail"]
    rows = [
        (Cell(str(method)), Cell(str(seed), float(seed)), Cell("before" if index < 0 else str(index + 1), float(index)),
         Cell(evidence.name(client_id)), Cell(readable(str(kind))), Cell("" if pd.isna(detail) else str(detail)))
        for method, seed, index, client_id, kind, detail in events[columns].itertuples(index=False)
    ]  # fmt: skip
    return Table(("Method", "Seed", "Round", "Site", "What", "Detail"), tuple(rows))


def byte_table(costs: Mapping[str, Cost], kinds: Sequence[str]) -> Table:
    """Bytes a site by method, direction and kind."""
    rows = []
    for method, cost in costs.items():
        for direction, sizes in (("received", cost.down), ("sent", cost.up)):
            cells = [Cell(data_size(sizes.get(kind, 0.0)), sizes.get(kind, 0.0)) for kind in kinds]
            rows.append((Cell(method), Cell(direction), *cells))
    return Table(("Method", "Direction", *kinds), tuple(rows))


def provenance(evidence: Evidence) -> tuple[dict[str, str], Table]:
    """What all runs have in common, by heading; and one row a run with the rest."""
    rows = [dict(_provenance(evidence, run)) for run in evidence.runs]
    shared = {key: words for key, words in rows[0].items() if key != "Run" and all(row[key] == words for row in rows)}
    headings = tuple(key for key in rows[0] if key not in shared)
    return shared, Table(headings, tuple(tuple(Cell(row[key]) for key in headings) for row in rows))


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
