"""A run's tables as curves: names, steps and values, as experiment trackers take them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from raykd.results.reader import Run
from raykd.results.sites import Sites
from raykd.results.statistics import site_scores_by_round


@dataclass(frozen=True)
class Point:
    """One value of a curve.

    Attributes:
        tag: its name, in folders: `score/dsc` (that of the report), `dsc/global`, `dsc_by_site/university`.
        step: rounds done, 0 before the first; of the teacher's curves, optimiser steps.
        value: finite.
    """

    tag: str
    step: int
    value: float


def points_of(run: Run) -> Iterator[Point]:
    """Every point that the tables hold so far: losses, scores, bytes, seconds, clients, events and the teacher's loss."""
    for tag, values in _curves(run):
        known = values[np.isfinite(values)]
        for step, value in zip(known.index.astype(int).tolist(), known.tolist(), strict=True):
            yield Point(tag, step, float(value))


def settings_of(run: Run) -> dict[str, str]:
    """What a tracker may filter runs by: method, scenario, seed and every setting of the scenario, by key path."""
    told = {"run_id": run.run_id, "method": str(run.manifest.get("method", "")), "status": str(run.manifest["status"])}
    return told | dict(_flat(run.scenario))


def _curves(run: Run) -> Iterator[tuple[str, pd.Series]]:
    rounds, training, transfers, events = run.rounds, run.training, run.transfers, run.events
    names = Sites.of((run,), run.clients).names
    for column in training.columns:
        if column.startswith(("loss_", "share_", "weight_", "trust_")):
            yield f"training/{column}", _by_round(training, column, "mean")
    for column in ("num_completed", "num_dropped", "wall_s", "engine_s", "server_s", "simulated_s"):
        yield f"rounds/{column}", _by_round(rounds, column, "sum")
    for direction, rows in transfers.groupby("direction", observed=True):
        yield f"bytes/{direction}", _by_round(rows, "num_bytes", "sum")
    for kind, rows in events.groupby("kind", observed=True):
        yield f"events/{kind}", _by_round(rows.assign(count=1), "count", "sum")
    score = site_scores_by_round(run.cases, run.manifest.get("deployed")).groupby(level="round").mean()
    yield "score/dsc", score.set_axis(score.index.astype(int) + 1)
    yield from _scores(run.cases, names)
    for role, rows in run.teachers.groupby("role", observed=True):
        yield f"repository/loss_{role}", rows.set_index("step")["loss"]


def _scores(cases: pd.DataFrame, names: Mapping[Any, str]) -> Iterator[tuple[str, pd.Series]]:
    judged = cases[(cases["split"] == "test") & (cases["client_id"] >= 0)]
    for model, rows in judged.groupby("model", observed=True):
        by_site = rows.groupby(["round", "client_id"])["dsc"].mean().reset_index()
        yield f"dsc/{model}", _by_round(by_site, "dsc", "mean")
        for client_id, own in by_site.groupby("client_id"):
            yield f"dsc_by_site/{names.get(client_id, str(client_id))}/{model}", _by_round(own, "dsc", "mean")
        for name, own in rows.groupby("class_name", observed=True):
            yield f"dsc_by_class/{name}/{model}", _by_round(own, "dsc", "mean")


def _by_round(rows: pd.DataFrame, column: str, how: Literal["mean", "sum"]) -> pd.Series:
    groups = rows.groupby("round")[column]
    values = (groups.mean() if how == "mean" else groups.sum(min_count=1)).astype(float).dropna()
    values.index = values.index.astype(int) + 1
    return values


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _flat(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(child, dict) for child in value):
        for index, child in enumerate(value):
            yield from _flat(child, f"{path}.{index}")
    else:
        yield path, str(value)
