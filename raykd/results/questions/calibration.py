"""Are models as sure as they are right?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import pandas as pd

from raykd.results.questions.comparison import Comparison
from raykd.results.reader import deployed_models
from raykd.results.statistics import (
    BETTER,
    NO_VERDICT,
    NOTHING,
    OPEN,
    WORSE,
    Difference,
    Estimate,
    Sample,
    columns_of,
    judge,
    patient_scores,
)

CASE = ["seed", "client_id", "patient_id", "case_id"]
SHARES = ("num_voxels", "sum_confidence", "num_correct")
LEVELS = ("confidence", "accuracy", "brier", "nll")
QUANTITIES = {"apart": "ece", **dict(zip(("sum_confidence", "num_correct", "sum_brier", "sum_nll"), LEVELS, strict=True))}
"""What the sums of a case become, divided by its voxels."""
LIMITS = {
    **dict.fromkeys(("ece", "confidence", "accuracy"), (0.0, 1.0)),
    "overconfidence": (-1.0, 1.0), "brier": (0.0, 2.0), "nll": (0.0, np.inf),
}  # fmt: skip
OVER, UNDER = "overconfident", "underconfident"


def calibration(comparison: Comparison) -> pd.DataFrame:
    """How far models are from being as sure as they are right, on test cases of the clients in the last round, at voxels at most
    5 mm from a structure.

    Returns:
        One row a cell and model: method, condition, model, `is_deployed` (at most of its sites), and, each with its interval,
        means over sites of the means over patients: `ece` (expected calibration error of a case, 0 to 1: at least that of all cases
        together, where one that is too sure makes up for one that is not), `overconfidence` (confidence less accuracy),
        `confidence`, `accuracy`, `brier` (0 to 2) and `nll` (NaN: not recorded); `p_value` and `p_holm` of the overconfidence
        (adjusted over all rows, one family), `family` and `verdict`: overconfident or underconfident where the interval leaves out
        zero and the adjusted p-value is below 5%, else open; no verdict with one training; `num_patients` and `num_seeds`. Empty
        where nothing was counted.

    Source:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, https://arxiv.org/abs/1706.04599, with 15 equal bins.
    """
    rows, every = [], []
    for told, bins in _models(comparison):
        bins = bins.assign(apart=(bins["sum_confidence"] - bins["num_correct"]).abs())
        sums = bins.groupby(CASE)[["apart", *SHARES, "sum_brier", "sum_nll"]].sum(min_count=1)
        mean = sums.div(sums["num_voxels"], axis=0).rename(columns=QUANTITIES)
        cases = mean.assign(overconfidence=mean["confidence"] - mean["accuracy"]).drop(columns="num_voxels")
        sample = _sample(cases)
        macros = zip(sample.conditions, sample.macro(), strict=True)
        estimates = {name: estimate.within(*LIMITS[str(name)]) for name, estimate in macros}
        columns = {name: columns_of(name, estimates.get(name, NOTHING)) for name in ("ece", "overconfidence", *LEVELS)}
        numbers = {"num_patients": sample.num_patients, "num_seeds": sample.num_seeds}
        rows.append({**told, **{key: v for one in columns.values() for key, v in one.items()}, **numbers})
        every.append(Difference(Sample(sample.wide[["overconfidence"]]).clusters, **numbers))
    if not rows:
        return pd.DataFrame()
    judged = judge(every, "overconfidence, methods, models and conditions", 0.0)
    words = {BETTER: OVER, WORSE: UNDER, OPEN: OPEN, NO_VERDICT: NO_VERDICT}
    return pd.DataFrame(rows).join(judged.assign(verdict=judged["verdict"].map(words)))


def reliability(comparison: Comparison) -> pd.DataFrame:
    """Accuracy by confidence: the curve whose distance from the diagonal `calibration` sums up.

    Returns:
        One row a cell, model and bin that holds a voxel: method, condition, model, `is_deployed`, `bin_index`, `share` (of voxels),
        `confidence` (mean of the bin) and `accuracy` with its interval (NaN: a single patient has the bin), `num_seeds`. Sites
        weigh the same, and at a site its patients. The interval is that of a ratio by linearisation: Cochran, Sampling Techniques,
        1977, section 6.4.
    """
    rows = []
    for told, bins in _models(comparison):
        totals = bins.groupby(CASE)["num_voxels"].transform("sum")
        shares = bins[list(SHARES)].div(totals, axis=0).assign(bin_index=bins["bin_index"].astype(int)).join(bins[CASE])
        wide = pd.DataFrame(shares.pivot(index=CASE, columns="bin_index", values=list(SHARES)).fillna(0.0))
        wide.columns = wide.columns.to_flat_index()
        sample = _sample(wide)
        values = dict(zip(sample.conditions, sample.macro_V.tolist(), strict=True))
        for index in sorted(set(shares["bin_index"])):
            num, sure, right = ((name, index) for name in SHARES)
            accuracy = columns_of("accuracy", _ratio(sample.wide[right], sample.wide[num], values[right], values[num]))
            told_bin = {"bin_index": index, "share": values[num], "confidence": values[sure] / values[num]}
            rows.append({**told, **told_bin, **accuracy, "num_seeds": sample.num_seeds})
    return pd.DataFrame(rows)


def _ratio(top: pd.Series[float], bottom: pd.Series[float], top_mean: float, bottom_mean: float) -> Estimate:
    """The ratio of two means, between 0 and 1, with its interval."""
    ratio = top_mean / bottom_mean
    if (bottom > 0).sum() < 2:
        return Estimate(ratio, np.nan, np.nan)
    around = Sample(((top - ratio * bottom) / bottom_mean).to_frame()).macro()[0]
    return Estimate(ratio, ratio + around.low, ratio + around.high).within(0.0, 1.0)


def _models(comparison: Comparison) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """For every cell and model, what it is, and its bins of the cases that count."""
    rows = comparison.with_cells(comparison.table("calibration"))
    rows = rows[(rows["split"] == "test") & (rows["client_id"] >= 0)]
    rows = rows[rows["round"] == rows.groupby("run_id", observed=True)["round"].transform("max")]
    case_ids = rows["case_id"].astype(str)
    rows = rows.assign(case_id=case_ids, patient_id=rows["patient_id"].astype(object).fillna(case_ids).astype(str))
    rows = rows.astype({"client_id": "int64", "num_voxels": float, "num_correct": float, "model": str})
    deployed = _deployed_models(comparison)
    cells = comparison.cells.to_dict("index")
    for key, bins in rows.groupby(["cell", "model"], sort=True):
        cell, model = cast(tuple[int, str], key)
        told = {name: cells[cell][name] for name in ("method", "condition")}
        yield {**told, "model": model, "is_deployed": deployed.get(cell) == model}, bins


def _deployed_models(comparison: Comparison) -> dict[int, str]:
    """Cell to the model that its sites deploy: as its runs say, else the one that most of its scores are of."""
    rows = comparison.deployed.astype({"model": str})
    found = rows.groupby("cell")["model"].agg(lambda models: models.mode().iloc[0]).to_dict()
    cells = comparison.settings["cell"].to_dict()
    return found | {cells[run_id]: model for run_id, model in deployed_models(comparison.runs).items()}


def _sample(cases: pd.DataFrame) -> Sample:
    """Patients' means of every column of cases, over their visits; a column of which nothing is known is left out."""
    long = cases.dropna(axis=1, how="all").reset_index().melt(CASE, var_name="quantity", value_name="score")
    return Sample(patient_scores(long, by="quantity"))
