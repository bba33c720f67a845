"""Where did it fail? Structures missed or made up are counted, and the worst cases named."""

from __future__ import annotations

import pandas as pd

from raykd.results.questions.comparison import Comparison
from raykd.results.statistics import HIGHER_IS_BETTER, Metric


def failures(comparison: Comparison) -> pd.DataFrame:
    """One row a cell and class: `num_missed` (in the reference, not in the prediction) of `num_present`, `num_made_up` (in the
    prediction, not in the reference) of `num_absent`, cases of all seeds counted; `num_unknown`: not recorded."""
    cases = comparison.deployed
    is_ref, is_pred = cases["is_ref_empty"] == False, cases["is_pred_empty"] == False  # noqa: E712 (nullable)
    counted = cases.assign(
        num_present=is_ref,
        num_missed=is_ref & (cases["is_pred_empty"] == True),  # noqa: E712
        num_absent=cases["is_ref_empty"] == True,  # noqa: E712
        num_made_up=(cases["is_ref_empty"] == True) & is_pred,  # noqa: E712
        num_unknown=cases["is_ref_empty"].isna() | cases["is_pred_empty"].isna(),
    )
    columns = ["num_missed", "num_present", "num_made_up", "num_absent", "num_unknown"]
    counts = counted[columns].fillna(False).astype(int)
    counts[["cell", "class_name"]] = cases[["cell", "class_name"]].astype({"class_name": str})
    table = counts.groupby(["cell", "class_name"], sort=False)[columns].sum().reset_index()
    table.insert(0, "method", comparison.cells.loc[table["cell"], "method"].to_numpy())
    table.insert(1, "condition", comparison.cells.loc[table["cell"], "condition"].to_numpy())
    return table.drop(columns="cell")


def worst_cases(comparison: Comparison, num: int = 10, metric: Metric = "dsc") -> pd.DataFrame:
    """The worst predictions of each cell, worst first: site, case, class, seed, score, volumes, and what is wrong in a word. What
    is predicted where the reference is empty has no score: see `false_positives`."""
    cases = comparison.deployed.dropna(subset=[metric]).sort_values(metric, ascending=HIGHER_IS_BETTER[metric], kind="stable")
    worst = cases.groupby("cell", sort=False).head(num).sort_values("cell", kind="stable")
    is_missed = (worst["is_pred_empty"] == True) & (worst["is_ref_empty"] == False)  # noqa: E712
    wrong = pd.Series("poor", index=worst.index).mask(is_missed.fillna(False).astype(bool), "missed")
    worst = worst.assign(
        condition=comparison.cells.loc[worst["cell"], "condition"].to_numpy(),
        client_name=[comparison.names.get(int(client_id), str(client_id)) for client_id in worst["client_id"]],
        what=wrong,
    )
    columns = [
        "method",
        "condition",
        "seed",
        "client_name",
        "case_id",
        "class_name",
        metric,
        "volume_ref_mm3",
        "volume_pred_mm3",
        "what",
    ]
    return worst[columns].reset_index(drop=True)
