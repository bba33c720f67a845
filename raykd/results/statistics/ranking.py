"""How well every method does, its worst client, how far clients, patients and seeds spread, and how firm the order is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from raykd.results.statistics.intervals import TAILS, Estimate, Sample, mean_of, percentiles
from raykd.results.statistics.paired import columns_of
from raykd.results.statistics.scores import HIGHER_IS_BETTER, PATIENT, Metric, patient_scores


@dataclass(frozen=True)
class Score:
    """How well one method does.

    Attributes:
        method: its name.
        macro: mean over clients of the mean over their patients.
        worst_client: the client with the worst mean.
        worst: the mean of that client, and the interval of that client's mean.
        per_client: client_id to its mean and interval.
        num_patients: over all clients.
    """

    method: str
    macro: Estimate
    worst_client: int
    worst: Estimate
    per_client: Mapping[int, Estimate]
    num_patients: int


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
        sample = Sample.of(patient_scores(rows))
        per_client = {client: mean_of(block[:, 0], rng) for client, block in sample.clients.items()}
        worst = min(per_client, key=lambda c: (sign * per_client[c].value, c))
        results.append(Score(str(method), sample.macro(rng)[0], worst, per_client[worst], per_client, sample.num_patients))
    return tuple(sorted(results, key=lambda score: (-sign * score.macro.value, score.method)))


def rank_methods(scores: pd.DataFrame, rng: np.random.Generator, *, metric: Metric = "dsc") -> pd.DataFrame:
    """How firm the order of methods is: all are ranked anew in every resample of the patients that all were judged on, after
    Wiesenfarth et al., Scientific Reports 2021 (challengeR).

    Args:
        scores, rng, metric: as for `score_methods`.

    Returns:
        One row a method, best first: `rank` (1 is best), `rank_low` and `rank_high` (95% of resamples), `share_first` (of
        resamples in which it is alone or jointly first), `num_patients`. Empty where no patient was judged on all.
    """
    sample = Sample.of(patient_scores(scores))
    columns = ["method", "rank", "rank_low", "rank_high", "share_first", "num_patients"]
    if not sample.clients:
        return pd.DataFrame(columns=columns)
    sign = -1.0 if HIGHER_IS_BETTER[metric] else 1.0
    draws_BV = sample.macro_draws_BV(rng)
    ranks_BV = rankdata(sign * draws_BV, method="min", axis=1).astype(float)
    ranks_BV[np.isnan(draws_BV)] = np.nan
    is_known = not np.isnan(ranks_BV).any()
    low, high = np.quantile(ranks_BV, TAILS, axis=0, method="nearest") if is_known else np.full((2, len(sample.conditions)), np.nan)
    table = pd.DataFrame(
        {
            "method": [str(method) for method in sample.conditions],
            "rank": rankdata(sign * sample.macro_V, method="min").astype(int),
            "rank_low": low,
            "rank_high": high,
            "share_first": (ranks_BV == 1).mean(axis=0) if is_known else np.nan,
            "num_patients": sample.num_patients,
        }
    )
    return table.sort_values(["rank", "method"], ignore_index=True)


def spreads(scores: pd.DataFrame, rng: np.random.Generator, *, metric: Metric = "dsc") -> pd.DataFrame:
    """What differs between seeds, between patients and between clients, each apart from the others.

    Args:
        scores, rng, metric: as for `score_methods`.

    Returns:
        One row a method: `macro` and `worst` with their intervals, `worst_client`, `gap` between best and worst client with its
        interval, `sd_seeds` (of the macro mean, NaN for one seed), `sd_patients` (within clients, seeds averaged), `sd_clients`
        (of the clients' means), `num_seeds`, `num_clients`, `num_patients`, and `clients_are`: fixed (the statement is about
        these sites) or drawn (about sites like them).
    """
    rows = []
    for score in score_methods(scores, rng, metric=metric):
        mine = scores[scores["method"].astype(str) == score.method]
        sample = Sample.of(patient_scores(mine))
        means = sample.means_KV[:, 0]
        draws_BK = sample.draws_BKV(rng)[:, :, 0]
        by_seed = mine.groupby(["seed", *PATIENT])["score"].mean().groupby(["seed", "client_id"]).mean().groupby("seed").mean()
        within = [block.std(ddof=1) for block in sample.clients.values() if len(block) > 1]
        rows.append(
            {
                "method": score.method,
                **columns_of("macro", score.macro),
                "worst_client": score.worst_client,
                **columns_of("worst", score.worst),
                **columns_of("gap", Estimate(float(np.ptp(means)), *percentiles(np.ptp(draws_BK, axis=1)))),
                "sd_seeds": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else np.nan,
                "sd_patients": float(np.mean(within)) if within else np.nan,
                "sd_clients": float(means.std(ddof=1)) if len(means) > 1 else np.nan,
                "num_seeds": len(by_seed),
                "num_clients": len(means),
                "num_patients": sample.num_patients,
                "clients_are": "fixed" if sample.has_fixed_clients else "drawn",
            }
        )
    return pd.DataFrame(rows)
