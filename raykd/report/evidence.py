"""What a report is made of: the runs that can be compared, their tables under readable labels, and notes on what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from raykd.results.questions import Comparison
from raykd.results.reader import Run, deployed_models, find_run_dirs, open_run, told_apart
from raykd.results.schema import TABLES
from raykd.results.sites import named_shortly
from raykd.results.statistics import deployed_cases
from raykd.scenario.errors import RaykdError

REPOSITORY, POOLED = -1, -2
NOT_BODIES = {"casting_ct"}
"""Anatomies that are nobody's."""


@dataclass(frozen=True)
class Evidence:
    """The runs of a report.

    Attributes:
        comparison: the runs that are compared, grouped into cells for `raykd.results.questions`.
        tables: table name to frame; the `method` column holds labels that tell apart every setting that differs between runs.
        labels: run_id to the label of its method.
        deployed: test cases of the clients, last round, deployed model.
        client_names: site to name; `client_id` of every table is the site's number, the same in every run.
        notes: sentences on what is missing or was left out.
    """

    comparison: Comparison
    tables: dict[str, pd.DataFrame]
    labels: dict[str, str]
    deployed: pd.DataFrame
    client_names: dict[int, str]
    notes: tuple[str, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        """Those that are compared."""
        return self.comparison.runs

    @property
    def scenario(self) -> dict[str, Any]:
        """The scenario of the first run."""
        return self.runs[0].scenario

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods' labels, in the order in which the runs were given."""
        return tuple(dict.fromkeys(self.labels.values()))

    @property
    def pooling_methods(self) -> frozenset[str]:
        """Methods that bring all scans together: yardsticks, because a federation is there to avoid just that."""
        training = self.tables["training"]
        return frozenset(training.loc[training["client_id"] == POOLED, "method"])

    @property
    def nsd_tolerance(self) -> str:
        """The tolerance of NSD in words: a length, the range of those of the cases, or that of the scenario of an earlier run."""
        used = self.deployed["nsd_tolerance_mm"].dropna().astype(float)
        if used.empty:
            wanted = (self.scenario.get("evaluation") or {}).get("nsd_tolerance_mm", 1.0)
            return "the finest voxel edge of each case" if wanted == "auto" else f"{wanted:g} mm"
        low, high = f"{used.min():.3g}", f"{used.max():.3g}"
        return f"{low} mm" if low == high else f"{low} to {high} mm (its case's tolerance)"

    @property
    def has_bodies(self) -> bool:
        """Whether any source may hold people, to whom right, front and head up mean something."""
        owners = [self.scenario.get("repository") or {}, *(self.scenario.get("clients") or [])]
        owners += (self.scenario.get("pools") or {}).values()
        sources = [owner.get("source") or {} for owner in owners]
        return any(source.get("anatomy") not in NOT_BODIES for source in sources if source.get("name") != "pool")

    @property
    def planes(self) -> tuple[str, str, str]:
        """What a reader calls a slice perpendicular to I, J, K in RAS+."""
        if self.has_bodies:
            return "sagittal slice", "coronal slice", "axial slice"
        return "slice across I", "slice across J", "slice across K"

    def name(self, client_id: int) -> str:
        """A client's name in the report."""
        special = {REPOSITORY: "repository", POOLED: "all sites pooled"}
        return special.get(int(client_id)) or self.client_names.get(int(client_id), f"site {client_id}")


def collect(paths: Iterable[str | Path]) -> Evidence:
    """Open all runs below `paths`; what cannot be read becomes a note.

    Raises:
        RaykdError: a path holds no run at all, or not a single run can be read.
    """
    opened: list[Run] = []
    notes: list[str] = []
    for directory in find_run_dirs(paths):
        try:
            opened.append(_checked(open_run(directory)))
        except RaykdError as error:
            notes.append(f"Left out, because it cannot be read: {error}.")
    if not opened:
        raise RaykdError("no run could be read, so there is nothing to report on: " + " ".join(notes))
    runs = told_apart(opened)
    try:
        return _assemble(runs, notes)
    except RaykdError:
        return _assemble_readable(runs, notes)


def _assemble_readable(runs: Sequence[Run], notes: list[str]) -> Evidence:
    """The runs that can be read whole, so that no mean is over less than it says; where there is none, what can be read of all."""
    damaged = {run.run_id: dict(_damaged_tables(run)) for run in runs}
    whole = [run for run in runs if not damaged[run.run_id]]
    reasons = [reason for tables in damaged.values() for reason in tables.values()]
    if whole:
        return _assemble(whole, [*notes, *(f"Left out, because it cannot be read: {reason}." for reason in reasons)])
    told = [f"Taken to be empty, because it cannot be read: {reason}." for reason in reasons]
    return _assemble([replace(run, without=frozenset(damaged[run.run_id])) for run in runs], [*notes, *told])


def _checked(run: Run) -> Run:
    """The same run. Raises `RaykdError` where its scenario has blocks of another kind than scenarios have."""
    wrong = [name for name in ("repository", "method", "evaluation", "pools") if not isinstance(run.scenario.get(name) or {}, dict)]
    clients = run.scenario.get("clients") or []
    if not isinstance(clients, list) or not all(isinstance(group, dict) for group in clients):
        wrong.append("clients")
    if wrong:
        raise RaykdError(f"{run.path / 'scenario.yaml'}: '{wrong[0]}' is not what a scenario has there; run the scenario again")
    return run


def _damaged_tables(run: Run) -> Iterator[tuple[str, str]]:
    """The tables of a run that cannot be read, each with the reason."""
    for name in TABLES:
        try:
            run.table(name)
        except RaykdError as error:
            yield name, str(error)


def _choose(runs: Sequence[Run]) -> tuple[tuple[Run, ...], list[str]]:
    """The finished runs, or all where none is finished; and what to say of the others."""
    done = tuple(run for run in runs if run.manifest["status"] == "done")
    unfinished = [run for run in runs if run.manifest["status"] != "done"]
    states = ", ".join(f"{run.path.name} ({run.manifest['status']})" for run in unfinished)
    if unfinished and done:
        return done, [f"Left out, because they are not finished: {states}."]
    if unfinished:
        return tuple(runs), [f"No run is finished: {states}. The numbers are those of the last round each run evaluated."]
    return done, []


def _assemble(readable: Sequence[Run], notes: Sequence[str]) -> Evidence:
    """Every table read once.

    Raises:
        RaykdError: a table of a run cannot be read.
    """
    runs, unfinished = _choose(readable)
    comparison = Comparison(runs)
    frames = {name: comparison.table(name) for name in TABLES}
    labels = {str(run_id): str(label) for run_id, label in comparison.settings["label"].items()}
    tables = {name: frame.assign(method=frame["run_id"].astype(str).map(labels)) for name, frame in frames.items()}
    deployed = deployed_cases(tables["cases"], deployed_models(runs))
    evidence = Evidence(comparison, tables, labels, deployed, dict(comparison.names), ())
    return replace(evidence, notes=(*notes, *unfinished, *comparison.notes, *_gaps(evidence)))


def _without_score(evidence: Evidence) -> Iterator[str]:
    """A sentence on sites whose test cases have no score at all: means are over the others."""
    has_score = evidence.deployed.groupby("client_id")["dsc"].count() > 0
    if silent := [evidence.name(int(site)) for site in has_score.index[~has_score]]:
        yield f"Sites without a score, and so in no mean, as no reference of theirs holds a class: {named_shortly(silent)}."


def _gaps(evidence: Evidence) -> Iterator[str]:
    """A sentence for whatever a reader may look for and not find."""
    tables = evidence.tables
    if evidence.deployed.empty:
        yield "No test case has been evaluated yet, so nothing can be said about quality."
    elif evidence.deployed["nsd"].isna().all():
        yield "Surface distances (NSD, HD95) were not computed in the last evaluated round."
    yield from _without_score(evidence)
    judged = tables["cases"][tables["cases"]["nsd"].notna()]
    if counted := sorted(set(judged.loc[judged["nsd_tolerance_mm"].isna(), "method"])):
        yield f"NSD and HD95 of an earlier raykd count voxels of surfaces, not area, and do not compare: {named_shortly(counted)}."
    if tables["clients"].empty:
        yield "The table of clients is missing, so sites go by their numbers."
    silent = sorted(set(evidence.methods) - set(evidence.deployed["method"]))
    if silent and not evidence.deployed.empty:
        yield f"Without an evaluated test case, and so absent from comparisons: {named_shortly(silent)}."
    seeds = tables["cases"].groupby("method")["seed"].agg(frozenset)
    if seeds.nunique() > 1:
        yield "Methods were run with different seeds; differences between two methods use the seeds that both have."
    events = tables["events"]
    weak = events[events["kind"] == "weak_start"]
    for detail, rows in weak.groupby("detail", sort=False):
        yield f"Beware: {detail} ({named_shortly(tuple(dict.fromkeys(rows['method'])))})."
    if events["kind"].isin(["worker_lost"]).any():
        yield "Workers were lost in a run; their updates were repeated with the same draws, see the events."
