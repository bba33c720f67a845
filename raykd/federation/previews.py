"""A few slices of a test case with reference and predictions, for the eye of whoever runs the simulation. No link carries them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from raykd.data.case import Case
from raykd.federation.protocols import Row

NUM_SLICES = 3


def preview_rows(case: Case, predictions: Mapping[str, Tensor], *, round_index: int, client_id: int) -> list[Row]:
    """One row a layer and slice: the image, the reference and each prediction, seen from the site's own slices.

    The slices lie across the axis with the coarsest spacing, spread over the part that holds labelled voxels.

    Args:
        case: with a label.
        predictions: classes (I, J, K) by model.
    """
    assert case.label_IJK is not None
    axis = int(np.argmax(case.spacing_mm))
    row_axis, col_axis = _display_axes(axis)
    base = {
        "round": round_index,
        "client_id": client_id,
        "case_id": case.case_id,
        "axis": axis,
        "row_mm": case.spacing_mm[row_axis],
        "col_mm": case.spacing_mm[col_axis],
    }
    layers = {"image": _eight_bit(case.image_CIJK[0]), "reference": case.label_IJK, **predictions}
    rows = []
    for index in _slices(case.label_IJK, axis):
        for layer, volume in layers.items():
            pixels = _as_displayed(volume, axis, index)
            rows.append(
                {
                    **base,
                    "slice_index": index,
                    "layer": layer,
                    "rows": pixels.shape[0],
                    "cols": pixels.shape[1],
                    "pixels": pixels.tobytes(),
                }
            )
    return rows


def _display_axes(axis: int) -> tuple[int, int]:
    """The axes shown downwards and rightwards: sagittal (K, J), coronal (K, I), axial (J, I)."""
    return [(2, 1), (2, 0), (1, 0)][axis]


def _as_displayed(volume_IJK: Tensor, axis: int, index: int) -> np.ndarray:
    """A slice as radiologists see it: head up or front up; front on the left (sagittal) or the patient's right on the left."""
    row_axis, col_axis = _display_axes(axis)
    plane = volume_IJK.select(axis, index).numpy()
    if row_axis > col_axis:
        plane = plane.T
    plane = plane[::-1, ::-1]
    return np.ascontiguousarray(plane, dtype=np.uint8)


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


def _eight_bit(image_IJK: Tensor) -> Tensor:
    """Intensities between the 1st and the 99.5th percentile spread over 0 to 255."""
    step = max(1, image_IJK.numel() // 100_000)
    low, high = torch.quantile(image_IJK.flatten()[::step], torch.tensor([0.01, 0.995]))
    return ((image_IJK - low) / (high - low).clamp(min=1e-6) * 255).clamp(0, 255).round().to(torch.uint8)
