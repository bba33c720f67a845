"""Scores of a model on one case, as rows of the `cases` and `calibration` tables and as the sums that trust is built from."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from raykd.data.case import Case
from raykd.data.native import NativeReference, native_volume_mm3
from raykd.federation.inference import Prediction
from raykd.federation.protocols import Row
from raykd.numerics.calibration import near_foreground, reliability_bins
from raykd.numerics.known_classes import merge_probs
from raykd.numerics.metrics import LABEL_IGNORED, ClassMetrics, evaluate_case
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
    native: Sequence[ClassMetrics] | None = None,
) -> list[Row]:
    """One row a foreground class.

    Args:
        case: with a label.
        predicted_IJK: the predicted classes on the case's grid.
        split: validation or test.
        model: global, personal or teacher.
        has_surface: whether NSD, HD95 and ASSD are computed beside DSC.
        classes: indices of the classes to give rows for; None: all.
        native: the scores on the source's finer grid; None: not computed.
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
            "volume_native_mm3": native_volume_mm3(case, name),
            **({} if native is None else native_columns(native[index - 1])),
        }
        for index, (name, score) in enumerate(zip(scenario.classes, scores, strict=True), start=1)
        if classes is None or index in classes
    ]


def native_scores(
    scenario: Scenario, prediction: Prediction, reference: NativeReference | None, *, has_surface: bool
) -> list[ClassMetrics] | None:
    """The scores of a prediction on the grid of its case's source, each class's probability interpolated to it; None: without a
    finer reference.

    Args:
        scenario: gives the classes and the tolerance of NSD.
        prediction: on the site's grid.
        reference: the source's, if there is one.
        has_surface: as for `case_rows`.
    """
    if reference is None:
        return None
    probs_LIJK = merge_probs(torch.softmax(prediction.logits_LIJK, dim=0)[None], prediction.known)[0]
    return evaluate_case(
        reference.resampled(probs_LIJK).numpy(),
        reference.label_IJK.numpy(),
        len(scenario.classes),
        reference.spacing_mm,
        surface=has_surface,
        nsd_tolerance_mm=scenario.evaluation.nsd_tolerance_mm,
    )


def native_columns(score: ClassMetrics) -> Row:
    """The columns of `cases` for a score on the source's grid."""
    return {
        "dsc_native": score.dsc,
        "nsd_native": score.nsd,
        "hd95_native_mm": score.hd95_mm,
        "volume_native_mm3": score.volume_ref_mm3,
        "volume_pred_native_mm3": score.volume_pred_mm3,
    }


def calibration_rows(case: Case, prediction: Prediction, *, split: str, model: str, round_index: int, client_id: int) -> list[Row]:
    """Rows of `calibration`: how sure a model is of the voxels near the structures, and how often it is right; none where the
    reference has no structure.

    A model that was taught some classes says "none of these" of the others, so its reference takes them for background, too.

    Args:
        case: with a label.
        prediction: of the case.
        split, model: as for `case_rows`.
    """
    assert case.label_IJK is not None
    ref = case.label_IJK.numpy()
    if prediction.known is not None:
        ref = np.where(np.isin(ref, [0, *prediction.known, LABEL_IGNORED]), ref, ref.dtype.type(0))
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
            if not score.is_ref_empty:
                sums[index] += score.dsc
                counts[index] += 1
    return [(float(total), int(count)) for total, count in zip(sums, counts, strict=True)]
