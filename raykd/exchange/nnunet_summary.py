"""The scores of a run's test cases as nnU-Net v2's evaluation writes them: summary.json of `nnUNetv2_evaluate_folder`.

Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, Nature Methods 2021.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raykd.results.durable import write_atomically
from raykd.results.reader import Run, deployed_models
from raykd.results.sites import Sites
from raykd.results.statistics import deployed_cases
from raykd.scenario.errors import RaykdError

COUNTS = ("TP", "FP", "FN", "n_ref", "n_pred")


def summary_of(run: Run) -> dict[str, Any]:
    """`metric_per_case`, `mean` by class and `foreground_mean` of the deployed model's test cases in the last round.

    Where the reference is empty, Dice and IoU are as nnU-Net has them: NaN, and out of the means, if the prediction is empty, too,
    else 0. A class that nobody outlined in a case is not listed there. TP, FP, FN, n_ref and n_pred are voxels of the site's grid,
    NaN where volumes are no whole numbers of its voxels; TN is NaN, for the size of the image is in no table. Files are named after
    site and case, for none is kept.

    Raises:
        RaykdError: no test case was evaluated.
    """
    deployed = deployed_cases(run.cases, deployed_models([run]))
    if deployed.empty:
        raise RaykdError(f"{run.path}: no test case was evaluated yet, so there is nothing to sum up")
    voxels, names = _voxel_mm3(run.clients), dict[Any, str](Sites.of((run,), run.clients).names)
    per_case: list[dict[str, Any]] = []
    for (client_id, case_id), rows in deployed.groupby(["client_id", "case_id"], observed=True, sort=False):
        name = f"{names.get(client_id, str(client_id))}/{case_id}"
        metrics = {str(row["class_index"]): _metrics(row, voxels.get(client_id, math.nan)) for row in rows.to_dict("records")}
        per_case.append({"metrics": metrics, "prediction_file": f"{name} (predicted)", "reference_file": f"{name} (reference)"})
    classes = sorted({name for case in per_case for name in case["metrics"]}, key=int)
    mean = {name: _mean([case["metrics"][name] for case in per_case if name in case["metrics"]]) for name in classes}
    return {"foreground_mean": _mean(list(mean.values())), "mean": mean, "metric_per_case": per_case}


def write_summary(run: Run, folder: Path) -> Path:
    """Writes summary.json into a folder, which is made."""
    file = folder / "summary.json"
    text = json.dumps(summary_of(run), indent=4, sort_keys=True) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text.encode())
    except OSError as error:
        raise RaykdError(f"{file}: cannot be written ({error.strerror}); give another place with --out") from None
    return file


def _voxel_mm3(clients: pd.DataFrame) -> dict[Any, float]:
    edges = clients[["spacing_i_mm", "spacing_j_mm", "spacing_k_mm"]].astype(float).prod(axis=1, skipna=False)
    return dict(zip(clients["client_id"], edges, strict=True))


def _metrics(row: dict[Hashable, Any], voxel_mm3: float) -> dict[str, float]:
    dice = float(row["dsc"])
    if row["is_ref_empty"] is True:
        dice = math.nan if row["is_pred_empty"] is True else 0.0
    ref, pred = (_voxels(row[f"volume_{side}_mm3"], voxel_mm3) for side in ("ref", "pred"))
    hit = 0.0 if ref + pred == 0 else dice * (ref + pred) / 2
    hit = float(round(hit)) if not math.isnan(hit) and abs(hit - round(hit)) < 0.01 else math.nan
    counts = dict(zip(COUNTS, (hit, pred - hit, ref - hit, ref, pred), strict=True))
    return {"Dice": dice, "IoU": dice / (2 - dice), **counts, "TN": math.nan}


def _voxels(volume_mm3: Any, voxel_mm3: float) -> float:
    """A volume in voxels; NaN where it is no whole number of them."""
    if volume_mm3 is None or pd.isna(volume_mm3) or math.isnan(voxel_mm3):
        return math.nan
    count = float(volume_mm3) / voxel_mm3
    return float(round(count)) if abs(count - round(count)) <= 1e-3 * max(1.0, count) else math.nan


def _mean(metrics: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric over what has a value."""
    names = metrics[0]
    known = {name: [m[name] for m in metrics if not math.isnan(m[name])] for name in names}
    return {name: float(np.mean(values)) if values else math.nan for name, values in known.items()}
