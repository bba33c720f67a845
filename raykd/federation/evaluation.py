"""Scores of a model on one case, as rows of the `cases` and `calibration` tables and as the sums that trust is built from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from raykd.data.case import Case
from raykd.federation.inference import Prediction
from raykd.federation.protocols import Row
from raykd.numerics.calibration import near_foreground, reliability_bins
from raykd.numerics.metrics import LABEL_IGNORED, evaluate_case
from raykd.scenario.schema import Scenario


def case_rows(
    scenario: Scenario,
    case: Case,
    predicted_IJK: Tensor,
    *,
    split: str,
    model: str,
    round_index: int,
    client_id: int,
    has_surface: bool,
    classes: Collection[int] | None = None,
) -> list[Row]:
    """One row for each foreground class that was outlined in the case.

    Args:
        case: with a label.
        predicted_IJK: the predicted classes on the case's grid.
        split: validation or test.
        model: global, personal or teacher.
        has_surface: whether NSD, HD95 and ASSD are computed beside DSC.
        classes: indices of the classes to give rows for; None: all.
    """
    assert case.label_IJK is not None
    scores = evaluate_case(
        predicted_IJK.numpy(),
        case.label_IJK.numpy(),
        len(scenario.classes),
        case.spacing_mm,
        surface=has_surface,
        nsd_tolerance_mm=scenario.evaluation.nsd_tolerance_mm,
    )
    whose = _whose(case, split, model, round_index, client_id)
    return [
        {
            **whose,
            "class_index": index,
            "class_name": name,
            **vars(score),
            "reference": case.reference(index, score.is_ref_empty),
        }
        for index, (name, score) in enumerate(zip(scenario.classes, scores, strict=True), start=1)
        if (classes is None or index in classes) and (case.outlined is None or index in case.outlined)
    ]


def calibration_rows(case: Case, prediction: Prediction, *, split: str, model: str, round_index: int, client_id: int) -> list[Row]:
    """Rows of `calibration`: how sure a model is of the voxels near the structures, and how often it is right; none where the
    reference has no structure.

    A model that was taught some classes says "none of these" of the others, and a label that was made for some classes marks the
    others as background. So both sides are compared over the classes that both know, with all others as part of the background.

    Args:
        case: with a label.
        prediction: of the case.
        split, model: as for `case_rows`.
    """
    assert case.label_IJK is not None
    ref, known = case.label_IJK.numpy(), prediction.known
    if case.outlined is not None:
        known = [index for index in case.outlined if known is None or index in known]
        prediction = replace(prediction, known=known)
    if known is not None:
        ref = np.where(np.isin(ref, [0, *known, LABEL_IGNORED]), ref, ref.dtype.type(0))
    is_near = near_foreground(ref, case.spacing_mm)
    bins = reliability_bins(prediction.probs_LN(torch.from_numpy(is_near)).numpy(), ref[is_near])
    whose = _whose(case, split, model, round_index, client_id)
    return [
        {
            **whose,
            "bin_index": one.index,
            **{name: value for name, value in vars(one).items() if name != "index"},
        }
        for one in bins
    ]


def _whose(case: Case, split: str, model: str, round_index: int, client_id: int) -> Row:
    """What every row says of the case and of the model that it is about."""
    ids = {"case_id": case.case_id, "patient_id": case.patient_id}
    return {"round": round_index, "client_id": client_id, "split": split, **ids, "model": model}


def support_scores(predictions: list[tuple[Tensor, Tensor]], num_classes: int) -> list[tuple[float, int]]:
    """By foreground class, the sum of DSCs over the pairs (prediction, label) whose label holds the class, and their number."""
    sums, counts = np.zeros(num_classes), np.zeros(num_classes, dtype=int)
    for predicted_IJK, label_IJK in predictions:
        scores = evaluate_case(predicted_IJK.numpy(), label_IJK.numpy(), num_classes, (1.0, 1.0, 1.0), surface=False)
        for index, score in enumerate(scores):
            if score.dsc is not None:
                sums[index] += score.dsc
                counts[index] += 1
    return [(float(total), int(count)) for total, count in zip(sums, counts, strict=True)]
