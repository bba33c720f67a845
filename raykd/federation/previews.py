"""A few slices of a test case with reference and predictions, for the eye of whoever runs the simulation. No link carries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from raykd.data.case import Case
from raykd.federation.protocols import Row
from raykd.numerics.intensity import clip_limits

NUM_SLICES = 12
NUM_PIXELS = 2**20
"""Of all slices of a layer together; three slices are kept at the least."""
TIE = 1e-6
"""In voxels; a point this near to the middle between two voxels lies in the first."""


def preview_rows(
    case: Case, predictions: Mapping[str, Tensor], *, round_index: int, client_id: int, source: Case | None = None
) -> list[Row]:
    """One row a layer and slice: the image, the reference and each prediction, seen from the site's own slices, and, for the slice
    with most of the reference, what the source has in the same place.

    The slices lie across the axis with the coarsest spacing: all of those that hold labelled voxels, or as many as `NUM_SLICES` and
    `NUM_PIXELS` allow, evenly spread.

    Args:
        case: with a label.
        predictions: classes (I, J, K) by model.
        source: the same case before any shift of the site; None: left out.
    """
    assert case.label_IJK is not None
    axis = int(np.argmax(case.spacing_mm))
    base = {"round": round_index, "client_id": client_id, "case_id": case.case_id, "axis": axis}
    window = _window(case.image_CIJK[0])
    source_window = None if source is None else _window(source.image_CIJK[0])
    rows = []
    chosen, fullest = _slices(case.label_IJK, axis)
    for index in chosen:
        image = _eight_bit(case.image_CIJK[0].select(axis, index), window)
        planes = {"image": image, "reference": case.label_IJK.select(axis, index)}
        planes |= {model: classes.select(axis, index) for model, classes in predictions.items()}
        pictures = {layer: _picture(plane, case.spacing_mm, axis) for layer, plane in planes.items()}
        if source is not None and source_window is not None and index == fullest:
            plane, spacing_mm = same_plane(source, case, axis, index)
            pictures = {"source": _picture(_eight_bit(plane, source_window), spacing_mm, axis), **pictures}
        rows += [{**base, "slice_index": index, "layer": layer, **picture} for layer, picture in pictures.items()]
    return rows


def previewed(test: Sequence[Case], rows: Sequence[Row], num: int) -> list[Case]:
    """The test cases whose slices are kept: the first `num`, and the one that students do worst on.

    Args:
        test: the site's cases.
        rows: of `cases`, as they were evaluated.
        num: 0 keeps none at all.
    """
    kept = list(test[:num])
    scores: dict[str, list[float]] = {}
    for row in rows:
        if row["split"] == "test" and row["model"] != "teacher" and row["dsc"] is not None:
            scores.setdefault(str(row["case_id"]), []).append(float(row["dsc"]))
    worst = min(scores, key=lambda case_id: sum(scores[case_id]) / len(scores[case_id]), default="")
    return kept + [case for case in test[num:] if kept and case.case_id == worst]


def same_plane(source: Case, case: Case, axis: int, index: int) -> tuple[Tensor, Sequence[float]]:
    """The source's own voxels nearest to a slice of the case, over that slice's extent in mm; what lies outside them is as dark
    as any.

    Args:
        source, case: of one body, placed by their affines.
        axis, index: the slice of the case.

    Returns:
        The intensities along the two other axes of the case, and the distance between them in mm along I, J, K: the source's
        spacing, in the plane rounded to a whole number of voxels.
    """
    first, second = (a for a in range(3) if a != axis)
    counts, spacing_mm = list(case.shape), list(source.spacing_mm)
    for a in (first, second):
        extent_mm = case.shape[a] * case.spacing_mm[a]
        counts[a] = max(1, round(extent_mm / source.spacing_mm[a]))
        spacing_mm[a] = extent_mm / counts[a]
    points = np.full((counts[first], counts[second], 4), float(index))
    points[..., first] = ((np.arange(counts[first]) + 0.5) * case.shape[first] / counts[first] - 0.5)[:, None]
    points[..., second] = (np.arange(counts[second]) + 0.5) * case.shape[second] / counts[second] - 0.5
    points[..., 3] = 1.0
    at = (points @ (np.linalg.inv(source.affine) @ case.affine).T)[..., :3]
    nearest = np.floor(at + 0.5 - TIE).astype(np.int64)  # not rint, which sends every other tie the other way
    is_inside = ((nearest >= 0) & (nearest < source.shape)).all(axis=-1)
    i, j, k = torch.from_numpy(np.clip(nearest, 0, np.array(source.shape) - 1)).unbind(-1)
    image_IJK = source.image_CIJK[0]
    return torch.where(torch.from_numpy(is_inside), image_IJK[i, j, k], image_IJK.min()), spacing_mm


def _display_axes(axis: int) -> tuple[int, int]:
    """The axes shown downwards and rightwards: sagittal (K, J), coronal (K, I), axial (J, I)."""
    return [(2, 1), (2, 0), (1, 0)][axis]


def _as_displayed(plane: Tensor, axis: int) -> np.ndarray:
    """A slice as radiologists see it: head up or front up; front on the left (sagittal) or the patient's right on the left."""
    row_axis, col_axis = _display_axes(axis)
    pixels = plane.numpy()
    if row_axis > col_axis:
        pixels = pixels.T
    return np.ascontiguousarray(pixels[::-1, ::-1], dtype=np.uint8)


def _picture(plane: Tensor, spacing_mm: Sequence[float], axis: int) -> Row:
    """The columns of a slice across an axis."""
    row_axis, col_axis = _display_axes(axis)
    pixels = _as_displayed(plane, axis)
    return {
        "slice_mm": spacing_mm[axis],
        "row_mm": spacing_mm[row_axis],
        "col_mm": spacing_mm[col_axis],
        "rows": pixels.shape[0],
        "cols": pixels.shape[1],
        "pixels": pixels.tobytes(),
    }


def _slices(label_IJK: Tensor, axis: int) -> tuple[list[int], int]:
    """The slices to show and the one with most labelled voxels; the middle of the volume where there are none."""
    counts = (label_IJK > 0).sum(dim=[a for a in range(3) if a != axis])
    labelled = torch.nonzero(counts).flatten().tolist()
    if not labelled:
        middle = label_IJK.shape[axis] // 2
        return [middle], middle
    fullest = max(labelled, key=lambda index: int(counts[index]))
    num_pixels = label_IJK.numel() // label_IJK.shape[axis]
    most = min(NUM_SLICES, max(3, NUM_PIXELS // num_pixels), len(labelled))
    chosen = {labelled[round(at)] for at in np.linspace(0, len(labelled) - 1, most).tolist()}
    if fullest not in chosen:
        chosen = (chosen - {min(chosen, key=lambda index: (abs(index - fullest), index))}) | {fullest}
    return sorted(chosen), fullest


def _window(image_IJK: Tensor) -> tuple[float, float]:
    """The intensities shown as black and as white: the 1st and the 99.5th percentile of the volume."""
    return clip_limits(image_IJK, 0.01, 0.995)


def _eight_bit(plane: Tensor, window: tuple[float, float]) -> Tensor:
    low, high = window
    span = high - low if high > low else 1.0
    return ((plane - low) / span * 255).clamp(0, 255).round().to(torch.uint8)
