"""A few slices of a test case with reference and predictions, for the eye of whoever runs the simulation. No link carries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from raykd.data.case import Case
from raykd.federation.protocols import Row

NUM_SLICES = 3
TIE = 1e-6
"""In voxels; a point this near to the middle between two voxels lies in the first."""


def preview_rows(
    case: Case, predictions: Mapping[str, Tensor], *, round_index: int, client_id: int, source: Case | None = None
) -> list[Row]:
    """One row a layer and slice: the image, the reference and each prediction, seen from the site's own slices, and what the
    source has in the same place.

    The slices lie across the axis with the coarsest spacing, spread over the part that holds labelled voxels.

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
    for index in _slices(case.label_IJK, axis):
        image = _eight_bit(case.image_CIJK[0].select(axis, index), window)
        planes = {"image": image, "reference": case.label_IJK.select(axis, index)}
        planes |= {model: classes.select(axis, index) for model, classes in predictions.items()}
        pictures = {layer: _picture(plane, case.spacing_mm, axis) for layer, plane in planes.items()}
        if source is not None and source_window is not None:
            plane, spacing_mm = same_plane(source, case, axis, index)
            pictures = {"source": _picture(_eight_bit(plane, source_window), spacing_mm, axis), **pictures}
        rows += [{**base, "slice_index": index, "layer": layer, **picture} for layer, picture in pictures.items()]
    return rows


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


def _slices(label_IJK: Tensor, axis: int) -> list[int]:
    """Slices at the quarter points of the labelled voxels, counted along the axis; the middle of the volume where there are
    none.
    """
    counts = (label_IJK > 0).sum(dim=[a for a in range(3) if a != axis]).double()
    if float(counts.sum()) == 0:
        return [label_IJK.shape[axis] // 2]
    shares = counts.cumsum(0) / counts.sum()
    at = [int(torch.searchsorted(shares, torch.tensor((i + 1) / (NUM_SLICES + 1), dtype=torch.float64))) for i in range(NUM_SLICES)]
    return sorted(set(at))


def _window(image_IJK: Tensor) -> Tensor:
    """The intensities shown as black and as white: the 1st and the 99.5th percentile of the volume."""
    step = max(1, image_IJK.numel() // 100_000)
    return torch.quantile(image_IJK.flatten()[::step], torch.tensor([0.01, 0.995]))


def _eight_bit(plane: Tensor, window: Tensor) -> Tensor:
    low, high = window
    return ((plane - low) / (high - low).clamp(min=1e-6) * 255).clamp(0, 255).round().to(torch.uint8)
