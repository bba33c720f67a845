"""Scores of a model on one case, as rows of the `cases` and `calibration` tables and as the sums that trust is built from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from raykd.data.case import Case
from raykd.data.native import NativeReference, native_volume_mm3
from raykd.federation.description import source_settings
from raykd.federation.inference import Prediction
from raykd.federation.protocols import Row
from raykd.numerics.calibration import near_foreground, reliability_bins
from raykd.numerics.known_classes import merge_probs
from raykd.numerics.metrics import LABEL_IGNORED, ClassMetrics, evaluate_case
from raykd.scenario.errors import DataError
from raykd.scenario.schema import Scenario
from raykd.scenario.sites import Client

SAME_EDGE = 1e-3
"""Share by which a voxel edge may exceed a tolerance that is meant to be equal to it."""


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
    """One row for each foreground class that was outlined in the case.

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
    tolerance_mm = nsd_tolerance_mm(scenario, case.spacing_mm)
    scores = evaluate_case(
        predicted_IJK.numpy(),
        case.label_IJK.numpy(),
        len(scenario.classes),
        case.spacing_mm,
        surface=has_surface,
        nsd_tolerance_mm=tolerance_mm,
    )
    whose = _whose(case, split, model, round_index, client_id)
    return [
        {
            **whose,
            "class_index": index,
            "class_name": name,
            **vars(score),
            "nsd_tolerance_mm": tolerance_mm if score.nsd is not None else None,
            "reference": case.reference(index, score.is_ref_empty),
            "volume_native_mm3": native_volume_mm3(case, name),
            **({} if native is None else native_columns(native[index - 1])),
        }
        for index, (name, score) in enumerate(zip(scenario.classes, scores, strict=True), start=1)
        if (classes is None or index in classes) and (case.outlined is None or index in case.outlined)
    ]


def nsd_tolerance_mm(scenario: Scenario, spacing_mm: Sequence[float]) -> float:
    """The distance up to which surfaces count as the same on a grid: the scenario's, or else the finest voxel edge."""
    wanted = scenario.evaluation.nsd_tolerance_mm
    return min(spacing_mm) if wanted == "auto" else wanted


def tolerance_problems(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Key path and rule where the tolerance of NSD lies below the finest voxel edge that the scenario states for a site."""
    wanted = scenario.evaluation.nsd_tolerance_mm
    if wanted == "auto" or scenario.evaluation.surface_metrics == "never":
        return
    finest = {member.name: _stated_edge(scenario, member) for member in scenario.members()}
    name, edge = max(finest.items(), key=lambda item: item[1])
    if wanted < edge * (1 - SAME_EDGE):
        yield (
            "evaluation.nsd_tolerance_mm",
            f"must be auto or at least {edge:g}, the finest voxel edge of {name}, below which no distance but 0 counts as the "
            f"same; got {wanted:g}",
        )


def _stated_edge(scenario: Scenario, member: Client) -> float:
    """The finest voxel edge of a site as its scenario states it; 0: its files decide."""
    own, made = member.group.spacing_mm, getattr(source_settings(scenario, member), "spacing_mm", None)
    edges = [a if a is not None else b for a, b in zip(own or (None,) * 3, made or (None,) * 3, strict=True)]
    return min(0.0 if edge is None else edge for edge in edges)


def check_tolerance(scenario: Scenario, owner: str, cases: Iterable[Case]) -> None:
    """Raises `DataError` where the tolerance of NSD lies below the finest voxel edge of a case that is scored."""
    evaluation = scenario.evaluation
    wanted = evaluation.nsd_tolerance_mm
    if wanted == "auto" or evaluation.surface_metrics == "never":
        return
    for case in cases:
        if wanted < (finest := min(case.spacing_mm)) * (1 - SAME_EDGE):
            raise DataError(
                f"{owner}: evaluation.nsd_tolerance_mm must not be below the finest voxel edge of a case that is scored, got "
                f"{wanted:g} mm for case {case.case_id} with {finest:.4g} mm, where no distance but 0 counts as the same; set it "
                f"to auto, or to {finest:.4g} at least"
            )


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
        nsd_tolerance_mm=nsd_tolerance_mm(scenario, reference.spacing_mm),
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
