"""From the `cases` table to statements about methods: patients are the unit, clients are fixed strata, seeds are averaged first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import wilcoxon

MODELS = ("global", "personal", "teacher")
"""Which model a client deploys: the first one that was evaluated there in the run's last round."""

HIGHER_IS_BETTER = {"dsc": True, "nsd": True, "hd95_mm": False, "assd_mm": False}
NUM_RESAMPLES = 4000
KEYS = ["method", "seed", "client_id", "patient_id", "case_id"]

Metric = Literal["dsc", "nsd", "hd95_mm", "assd_mm"]


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95% interval; NaN where there is too little to say so."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Score:
    """How well one method does.

    Attributes:
        method: its name.
        macro: mean over clients of the mean over their cases.
        worst_client: the client with the worst mean.
        worst: the mean of that client, and the interval of that client's mean.
        per_client: client_id to its mean and interval.
        num_cases: cases over all clients.
    """

    method: str
    macro: Estimate
    worst_client: int
    worst: Estimate
    per_client: Mapping[int, Estimate]
    num_cases: int


@dataclass(frozen=True)
class Difference:
    """Method a minus method b over the cases that both were judged on.

    Attributes:
        macro: mean over clients of the mean difference of their cases.
        p_value: Wilcoxon signed-rank test of the cases' differences, zeros after Pratt; NaN without cases.
        num_cases: cases in common.
    """

    macro: Estimate
    p_value: float
    num_cases: int


def deployed_cases(cases: pd.DataFrame, models: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The rows that say how a method's model fares in the end: test cases of the clients, last round, one model a client.

    Args:
        cases: the `cases` table of one or several runs.
        models: method to model, where another than the first of `MODELS` present is deployed.
    """
    rows = cases[(cases["split"] == "test") & (cases["client_id"] >= 0)]
    last = rows.groupby("run_id", observed=True)["round"].transform("max")
    rows = rows[rows["round"] == last]
    kept = []
    for _, client in rows.groupby(["run_id", "client_id"], observed=True):
        present = set(client["model"])
        first = next((model for model in MODELS if model in present), "")
        chosen = (models or {}).get(client["method"].iloc[0], first)
        kept.append(client[client["model"] == chosen])
    return pd.concat(kept) if kept else rows


def case_scores(deployed: pd.DataFrame, metric: Metric = "dsc") -> pd.DataFrame:
    """One row a method, seed, client and case, whose `score` is the mean over the classes that have a value. Where a table does not
    say whose case it is, every case is a patient."""
    valued = deployed.dropna(subset=[metric])
    case_ids = valued["case_id"].astype(str)
    patients = valued["patient_id"].astype(object).fillna(case_ids) if "patient_id" in valued else case_ids
    valued = valued.assign(case_id=case_ids, patient_id=patients.astype(str))
    scores = valued.groupby(KEYS, observed=True)[metric].mean().rename("score").reset_index()
    return scores.astype({"client_id": "int64"})


def score_methods(scores: pd.DataFrame, rng: np.random.Generator, *, metric: Metric = "dsc") -> tuple[Score, ...]:
    """Every method's macro mean, worst client and clients, best macro mean first.

    Args:
        scores: from `case_scores` of the same metric.
        rng: draws the bootstrap's resamples.
        metric: decides which end is the worst.
    """
    sign = 1.0 if HIGHER_IS_BETTER[metric] else -1.0
    results = []
    for method, rows in scores.groupby("method", observed=True):
        clients, draws_CB = _bootstrap(rows, rng)
        per_client = {c: _estimate(values, draws) for (c, values), draws in zip(clients.items(), draws_CB, strict=True)}
        worst = min(per_client, key=lambda c: (sign * per_client[c].value, c))
        macro = Estimate(float(np.mean([e.value for e in per_client.values()])), *_interval(draws_CB.mean(axis=0)))
        num_cases = sum(len(values) for values in clients.values())
        results.append(Score(str(method), macro, worst, per_client[worst], per_client, num_cases))
    return tuple(sorted(results, key=lambda score: (-sign * score.macro.value, score.method)))


def paired_difference(scores_a: pd.DataFrame, scores_b: pd.DataFrame, rng: np.random.Generator) -> Difference:
    """Compare two methods on the cases and seeds that both have.

    Args:
        scores_a, scores_b: from `case_scores`, of one method each.
        rng: draws the bootstrap's resamples.
    """
    pairs = scores_a.merge(scores_b, on=["seed", "client_id", "patient_id", "case_id"], suffixes=("_a", "_b"))
    if pairs.empty:
        return Difference(Estimate(np.nan, np.nan, np.nan), np.nan, 0)
    pairs["score"] = pairs["score_a"] - pairs["score_b"]
    clients, draws_CB = _bootstrap(pairs, rng)
    differences = np.concatenate(list(clients.values()))
    p_value = float(wilcoxon(differences, zero_method="pratt").pvalue) if np.any(differences) else 1.0
    macro = Estimate(float(np.mean([values.mean() for values in clients.values()])), *_interval(draws_CB.mean(axis=0)))
    return Difference(macro, p_value, len(differences))


def _bootstrap(rows: pd.DataFrame, rng: np.random.Generator) -> tuple[dict[int, NDArray[np.float64]], NDArray[np.float64]]:
    """The patients' scores by client, their cases and seeds averaged, and the resampled mean of each client (clients x resamples).

    A client with a single patient has NaN resamples: its spread between patients is not known, and zero would feign certainty.
    """
    means = rows.groupby(["client_id", "patient_id"], observed=True)["score"].mean()
    clients = {cast(int, c): values.to_numpy(dtype=np.float64) for c, values in means.groupby(level="client_id")}
    draws = []
    for values in clients.values():
        picks = rng.integers(len(values), size=(NUM_RESAMPLES, len(values)))
        draws.append(values[picks].mean(axis=1) if len(values) > 1 else np.full(NUM_RESAMPLES, np.nan))
    return clients, np.stack(draws)


def _estimate(values: NDArray[np.float64], draws_B: NDArray[np.float64]) -> Estimate:
    return Estimate(float(values.mean()), *_interval(draws_B))


def _interval(draws_B: NDArray[np.float64]) -> tuple[float, float]:
    """The percentile interval of Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3."""
    low, high = np.quantile(draws_B, [0.025, 0.975])
    return float(low), float(high)
