"""Who gains and who loses: sites with thick slices or poor scanners, the worst site, and where the teacher helps or harms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from raykd.results.questions.comparison import Comparison
from raykd.results.statistics import (
    BETTER,
    HIGHER_IS_BETTER,
    NO_VERDICT,
    OPEN,
    WORSE,
    Difference,
    Metric,
    case_scores,
    columns_of,
    judge,
    paired_difference,
    spreads,
)

SITE = ["client_name", "slice_mm", "spacing_mm", "scanner", "num_labelled"]


def site_gains(comparison: Comparison, method: str, reference: str, metric: Metric = "dsc") -> pd.DataFrame:
    """Which sites lag behind under a reference method, and how much of that another method gives back.

    Returns:
        One row a condition and site: its name, `slice_mm` (largest voxel edge), `spacing_mm` (in words), scanner, labels,
        `reference_{metric}` and `{metric}` of the method (means over patients), `gain` with its interval, `p_value`, `p_holm`
        (adjusted over all rows, one family), `verdict` and `family`, `lag` (its mean behind the best site's under the reference,
        never negative), and `lag_made_up`: gain over lag; NaN for the best site.

    Raises:
        RaykdError: no run is of one of the two methods.
    """
    comparison.known(method), comparison.known(reference)
    scores, rows, every = comparison.scores(metric), [], []
    for condition, cells in comparison.conditions():
        if method not in cells or reference not in cells:
            continue
        mine, theirs = (scores[scores["method"] == cells[name]] for name in (method, reference))
        means, reference_means = (_site_means(one) for one in (mine, theirs))
        best = reference_means.max() if HIGHER_IS_BETTER[metric] else reference_means.min()
        for client_id, mean in zip(reference_means.index.astype(int).tolist(), reference_means, strict=True):
            found = paired_difference(mine[mine["client_id"] == client_id], theirs[theirs["client_id"] == client_id])
            every.append(found)
            lag, sign = abs(best - mean), 1 if HIGHER_IS_BETTER[metric] else -1
            rows.append({
                "condition": condition, "client_id": client_id, **site_facts(comparison, cells[method], client_id),
                f"reference_{metric}": mean, metric: means.get(client_id, np.nan), **columns_of("gain", found.macro),
                "lag": lag, "lag_made_up": sign * found.macro.value / lag if lag > 0 else np.nan,
                "num_patients": found.num_patients, "num_seeds": found.num_seeds,
            })  # fmt: skip
    judged = judge(every, f"{metric}, sites and conditions", 0.0, higher_is_better=HIGHER_IS_BETTER[metric])
    return pd.DataFrame(rows).join(judged) if rows else pd.DataFrame()


def _site_means(scores: pd.DataFrame) -> pd.Series:
    patients = scores.groupby(["seed", "client_id", "patient_id"])["score"].mean()
    return patients.groupby(["seed", "client_id"]).mean().groupby("client_id").mean()


def site_facts(comparison: Comparison, cell: int, client_id: int) -> dict[str, object]:
    """What the table of clients says of a site in one run of a cell."""
    clients = comparison.with_cells(comparison.table("clients"))
    own = clients[(clients["cell"] == cell) & (clients["client_id"] == client_id)]
    if own.empty:
        return dict.fromkeys(SITE)
    row = own.iloc[0]
    edges = [row[f"spacing_{axis}_mm"] for axis in "ijk"]
    return {
        "client_name": comparison.names[client_id], "slice_mm": max(edges),
        "spacing_mm": " x ".join(f"{edge:.3g}" for edge in edges),
        "scanner": row["scanner"], "num_labelled": row["num_labelled"],
    }  # fmt: skip


def fairness(comparison: Comparison, metric: Metric = "dsc") -> pd.DataFrame:
    """The worst site, and how far sites, patients and seeds spread: a row a cell, see `raykd.results.statistics.spreads`.

    The worst site is picked by its mean, so its interval is that of the site, not of the picking."""
    table = spreads(comparison.scores(metric), metric=metric)
    cells = comparison.cells.loc[table["method"].astype(int)]
    table["method"] = cells["method"].to_numpy()
    table.insert(1, "condition", cells["condition"].to_numpy())
    table.insert(2, "worst_site", [comparison.names.get(client_id, str(client_id)) for client_id in table["worst_client"]])
    return table


def teacher_effect(comparison: Comparison, method: str, reference: str, metric: Metric = "dsc") -> pd.DataFrame:
    """Where the teacher helps and where it harms, by site and class.

    The teacher is judged as it was handed out, in the first evaluation of the method's runs that has it.

    Args:
        comparison: the runs.
        method: learns from the teacher.
        reference: does not, and starts from the same.
        metric: of all three.

    Returns:
        One row a condition, site and class: `teacher_{metric}`, `reference_{metric}`, `{metric}` of the method (means over
        patients), `gain` of the method over the reference with its interval, `p_value`, `p_holm` (adjusted over all rows, one
        family) and `family`, `teacher_volume_bias` (mean of predicted over true volume, less 1), and `effect`: helps or harms where
        the interval leaves out zero and the adjusted p-value is below 5%, else open; no verdict with one training.

    Raises:
        RaykdError: no run is of one of the two methods.
    """
    comparison.known(method), comparison.known(reference)
    rows, every = list[dict[str, object]](), list[Difference]()
    for condition, cells in comparison.conditions():
        if method in cells and reference in cells:
            for row, found in _effects(comparison, cells, method, reference, metric):
                rows.append({"condition": condition, **row})
                every.append(found)
    if not rows:
        return pd.DataFrame()
    judged = judge(every, f"{metric}, sites, classes and conditions", 0.0, higher_is_better=HIGHER_IS_BETTER[metric])
    words = {BETTER: "helps", WORSE: "harms", OPEN: OPEN, NO_VERDICT: NO_VERDICT}
    return pd.DataFrame(rows).join(judged.drop(columns="verdict").assign(effect=judged["verdict"].map(words)))


def _effects(
    comparison: Comparison, cells: Mapping[str, int], method: str, reference: str, metric: Metric
) -> Iterator[tuple[dict[str, object], Difference]]:
    cases = comparison.with_cells(comparison.table("cases"))
    taught = cases[(cases["cell"] == cells[method]) & (cases["model"] == "teacher") & (cases["split"] == "test")]
    taught = taught[(taught["client_id"] >= 0) & (taught["round"] == taught["round"].min())]
    by_name = {"teacher": taught} | {
        name: comparison.deployed[comparison.deployed["cell"] == cells[label]]
        for name, label in (("method", method), ("reference", reference))
    }
    for (client_id, name), _ in by_name["method"].groupby(["client_id", "class_name"], observed=True):
        own = {key: t[(t["client_id"] == client_id) & (t["class_name"] == name)] for key, t in by_name.items()}
        scores = {key: case_scores(table, metric) for key, table in own.items()}
        means = {key: float(_site_means(one).mean()) if len(one) else np.nan for key, one in scores.items()}
        found = paired_difference(scores["method"], scores["reference"])
        real = own["teacher"][own["teacher"]["volume_ref_mm3"] > 0]
        row = {
            "client_id": int(client_id),
            "client_name": comparison.names.get(int(client_id), str(client_id)), "class_name": str(name),
            f"teacher_{metric}": means["teacher"], f"reference_{metric}": means["reference"], metric: means["method"],
            **columns_of("gain", found.macro),
            "teacher_volume_bias": float((real["volume_pred_mm3"] / real["volume_ref_mm3"] - 1).mean()),
            "num_patients": found.num_patients, "num_seeds": found.num_seeds,
        }  # fmt: skip
        yield row, found
