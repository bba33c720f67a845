"""Are models as sure as they are right?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import pandas as pd

from raykd.results.questions.comparison import Comparison
from raykd.results.statistics import (
    NOTHING,
    Estimate,
    Sample,
    columns_of,
    patient_scores,
    percentiles,
    resampling_rng,
)

CASE = ["seed", "client_id", "patient_id", "case_id"]
SHARES = ("num_voxels", "sum_confidence", "num_correct")
LEVELS = ("confidence", "accuracy", "brier", "nll")
QUANTITIES = {"apart": "ece", **dict(zip(("sum_confidence", "num_correct", "sum_brier", "sum_nll"), LEVELS, strict=True))}
"""What the sums of a case become, divided by its voxels."""


def calibration(comparison: Comparison) -> pd.DataFrame:
    """How far models are from being as sure as they are right, on test cases of the clients in the last round, at voxels at most
    5 mm from a structure.

    Returns:
        One row a cell and model: method, condition, model, `is_deployed` (at most of its sites), and, each with its interval,
        means over sites of the means over patients: `ece` (expected calibration error of a case, 0 to 1: at least that of all cases
        together, where one that is too sure makes up for one that is not), `overconfidence` (confidence less accuracy),
        `confidence`, `accuracy`, `brier` (0 to 2) and `nll` (NaN: not recorded); `num_patients`. Empty where nothing was counted.

    Source:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, https://arxiv.org/abs/1706.04599, with 15 equal bins.
    """
    rows = []
    for told, bins in _models(comparison):
        bins = bins.assign(apart=(bins["sum_confidence"] - bins["num_correct"]).abs())
        sums = bins.groupby(CASE)[["apart", *SHARES, "sum_brier", "sum_nll"]].sum(min_count=1)
        mean = sums.div(sums["num_voxels"], axis=0).rename(columns=QUANTITIES)
        cases = mean.assign(overconfidence=mean["confidence"] - mean["accuracy"]).drop(columns="num_voxels")
        sample = _sample(cases)
        estimates = dict(zip(sample.conditions, sample.macro(resampling_rng()), strict=True))
        columns = {name: columns_of(name, estimates.get(name, NOTHING)) for name in ("ece", "overconfidence", *LEVELS)}
        rows.append({**told, **{key: v for one in columns.values() for key, v in one.items()}, "num_patients": sample.num_patients})
    return pd.DataFrame(rows)


def reliability(comparison: Comparison) -> pd.DataFrame:
    """Accuracy by confidence: the curve whose distance from the diagonal `calibration` sums up.

    Returns:
        One row a cell, model and bin that holds a voxel: method, condition, model, `is_deployed`, `bin_index`, `share` (of voxels),
        `confidence` (mean of the bin) and `accuracy` with its interval (NaN: a resample of patients lacks the bin). Sites weigh the
        same, and at a site its patients.
    """
    rows = []
    for told, bins in _models(comparison):
        totals = bins.groupby(CASE)["num_voxels"].transform("sum")
        shares = bins[list(SHARES)].div(totals, axis=0).assign(bin_index=bins["bin_index"].astype(int)).join(bins[CASE])
        wide = pd.DataFrame(shares.pivot(index=CASE, columns="bin_index", values=list(SHARES)).fillna(0.0))
        wide.columns = wide.columns.to_flat_index()
        sample = _sample(wide)
        values = dict(zip(sample.conditions, sample.macro_V.tolist(), strict=True))
        draws = dict(zip(sample.conditions, sample.macro_draws_BV(resampling_rng()).T, strict=True))
        for index in sorted(set(shares["bin_index"])):
            num, sure, right = ((name, index) for name in SHARES)
            with np.errstate(invalid="ignore"):
                interval = percentiles(draws[right] / draws[num])
            accuracy = columns_of("accuracy", Estimate(values[right] / values[num], *interval))
            rows.append({**told, "bin_index": index, "share": values[num], "confidence": values[sure] / values[num], **accuracy})
    return pd.DataFrame(rows)


def _models(comparison: Comparison) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """For every cell and model, what it is, and its bins of the cases that count."""
    rows = comparison.with_cells(comparison.table("calibration"))
    rows = rows[(rows["split"] == "test") & (rows["client_id"] >= 0)]
    rows = rows[rows["round"] == rows.groupby("run_id", observed=True)["round"].transform("max")]
    case_ids = rows["case_id"].astype(str)
    rows = rows.assign(case_id=case_ids, patient_id=rows["patient_id"].astype(object).fillna(case_ids).astype(str))
    rows = rows.astype({"client_id": "int64", "num_voxels": float, "num_correct": float, "model": str})
    deployed = comparison.deployed.astype({"model": str}).groupby("cell")["model"].agg(lambda models: models.mode().iloc[0])
    cells = comparison.cells.to_dict("index")
    for key, bins in rows.groupby(["cell", "model"], sort=True):
        cell, model = cast(tuple[int, str], key)
        told = {name: cells[cell][name] for name in ("method", "condition")}
        yield {**told, "model": model, "is_deployed": deployed.get(cell) == model}, bins


def _sample(cases: pd.DataFrame) -> Sample:
    """Patients' means of every column of cases, over their visits, then over seeds; a column of which nothing is known is left
    out."""
    long = cases.dropna(axis=1, how="all").reset_index().melt(CASE, var_name="quantity", value_name="score")
    return Sample.of(patient_scores(long, by="quantity"))
