"""How well every method does, its worst client, how far clients, patients and seeds spread, and how firm the order is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from raykd.results.statistics.intervals import NOTHING, TAILS, Estimate, columns_of
from raykd.results.statistics.sample import Sample
from raykd.results.statistics.scores import HIGHER_IS_BETTER, PATIENT, RANGES, Metric, patient_scores

SPREADS = [
    "method", *columns_of("macro", NOTHING), "worst_client", *columns_of("worst", NOTHING), *columns_of("gap", NOTHING), "sd_seeds",
    "sd_patients", "sd_clients", "num_seeds", "num_clients", "num_patients", "clients_are",
]  # fmt: skip
DECIMALS = 12
"""Of a mean; what differs beyond is rounding."""


@dataclass(frozen=True)
class Score:
    """How well one method does.

    Attributes:
        method: its name.
        macro: mean over trainings of the mean over clients of the mean over their patients.
        worst_client: the client with the worst mean.
        worst: the mean of that client, and the interval of that client's mean.
        per_client: client_id to its mean and interval.
        num_patients: over all clients.
        num_seeds: trainings; with one, intervals are over its patients alone.
    """

    method: str
    macro: Estimate
    worst_client: int
    worst: Estimate
    per_client: Mapping[int, Estimate]
    num_patients: int
    num_seeds: int


def score_methods(scores: pd.DataFrame, *, metric: Metric = "dsc") -> tuple[Score, ...]:
    """Every method's macro mean, worst client and clients, best macro mean first.

    Args:
        scores: from `case_scores` of the same metric.
        metric: decides which end is the worst.
    """
    sign = 1.0 if HIGHER_IS_BETTER[metric] else -1.0
    results = []
    for method, rows in scores.groupby("method", observed=True):
        sample = Sample(patient_scores(rows), RANGES[metric])
        per_client = {client: sample.of_client(client).macro()[0] for client in sample.clients}
        worst = min(per_client, key=lambda c: (sign * per_client[c].value, c))
        numbers = sample.num_patients, sample.num_seeds
        results.append(Score(str(method), sample.macro()[0], worst, per_client[worst], per_client, *numbers))
    return tuple(sorted(results, key=lambda score: (-sign * score.macro.value, score.method)))


def rank_methods(scores: pd.DataFrame, rng: np.random.Generator, *, metric: Metric = "dsc") -> pd.DataFrame:
    """How firm the order of methods is: all are ranked anew in every draw of the means that trainings and patients make likely,
    after Wiesenfarth et al., Scientific Reports 2021 (challengeR), who draw patients alone.

    Args:
        scores: from `case_scores` of the same metric.
        rng: makes the draws.
        metric: decides which end is the best.

    Returns:
        One row a method, best first: `rank` (1 is best), `rank_low` and `rank_high` (95% of draws), `share_first` (of draws in
        which it is alone or jointly first), `num_patients`, `num_seeds` (1: draws of patients alone). Empty where no patient was
        judged on all.
    """
    sample = Sample(patient_scores(scores))
    columns = ["method", "rank", "rank_low", "rank_high", "share_first", "num_patients", "num_seeds"]
    if sample.wide.empty:
        return pd.DataFrame(columns=columns)
    sign = -1.0 if HIGHER_IS_BETTER[metric] else 1.0
    draws_BV = sample.macro_draws_BV(rng).round(DECIMALS)
    ranks_BV = rankdata(sign * draws_BV, method="min", axis=1).astype(float)
    ranks_BV[np.isnan(draws_BV)] = np.nan
    is_known = not np.isnan(ranks_BV).any()
    low, high = np.quantile(ranks_BV, TAILS, axis=0, method="nearest") if is_known else np.full((2, len(sample.conditions)), np.nan)
    table = pd.DataFrame(
        {
            "method": [str(method) for method in sample.conditions],
            "rank": rankdata(sign * sample.macro_V.round(DECIMALS), method="min").astype(int),
            "rank_low": low,
            "rank_high": high,
            "share_first": (ranks_BV == 1).mean(axis=0) if is_known else np.nan,
            "num_patients": sample.num_patients,
            "num_seeds": sample.num_seeds,
        }
    )
    return table.sort_values(["rank", "method"], ignore_index=True)


def spreads(scores: pd.DataFrame, *, metric: Metric = "dsc") -> pd.DataFrame:
    """What differs between seeds, between patients and between clients, each apart from the others.

    Args:
        scores: from `case_scores` of the same metric.
        metric: decides which end is the worst.

    Returns:
        One row a method: `macro` and `worst` with their intervals, `worst_client`, `gap` between the best and the worst client with
        the interval of the difference between these two, `sd_seeds` (of the macro mean, NaN for one seed; it holds what other
        patients in every seed vary), `sd_patients` (within a client and seed), `sd_clients` (of the clients' means), `num_seeds`,
        `num_clients`, `num_patients`, and `clients_are`: fixed (the statement is about these sites) or drawn (about sites like
        them).
    """
    scored = score_methods(scores, metric=metric)
    rows = [_spread(score, scores[scores["method"].astype(str) == score.method], metric) for score in scored]
    return pd.DataFrame(rows, columns=SPREADS)


def _spread(score: Score, own: pd.DataFrame, metric: Metric) -> dict[str, object]:
    sample, values = Sample(patient_scores(own), RANGES[metric]), {c: estimate.value for c, estimate in score.per_client.items()}
    within = sample.wide.groupby(level=["seed", PATIENT[0]]).std(ddof=1).dropna().to_numpy()
    high, low = max(values, key=lambda c: (values[c], c)), min(values, key=lambda c: (values[c], c))
    gap = sample.contrast({high: 1.0, low: -1.0}).estimates()[0] if high != low else Estimate(0.0, np.nan, np.nan)
    return {
        "method": score.method,
        **columns_of("macro", score.macro),
        "worst_client": score.worst_client,
        **columns_of("worst", score.worst),
        **columns_of("gap", gap),
        "sd_seeds": float(sample.clusters.means_SV.std(ddof=1)) if score.num_seeds > 1 else np.nan,
        "sd_patients": float(within.mean()) if len(within) else np.nan,
        "sd_clients": float(np.std(list(values.values()), ddof=1)) if len(values) > 1 else np.nan,
        "num_seeds": score.num_seeds,
        "num_clients": len(values),
        "num_patients": score.num_patients,
        "clients_are": "fixed" if sample.has_fixed_clients else "drawn",
    }
