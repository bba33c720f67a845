"""How well a predicted label map agrees with a reference: overlap, surface distances in mm, and what an empty class means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raykd.numerics.surfaces import Distances, surface_distances, surface_scores

LABEL_IGNORED = 255
"""The reference value of a voxel that counts on neither side."""


@dataclass(frozen=True)
class ClassMetrics:
    """The agreement of one class in one case.

    Attributes:
        dsc: Dice similarity coefficient 2|A∩B| / (|A| + |B|), in [0, 1]; None: the reference is empty.
        nsd: normalised surface distance, the share of both surfaces' area within the tolerance, in [0, 1].
        hd95_mm: the larger of the two directed 95th percentiles of surface distance, by area.
        assd_mm: the surface distance averaged over the area of both surfaces. Like `nsd` and `hd95_mm` it is None where the
            reference is empty, and where it was not asked for.
        volume_ref_mm3, volume_pred_mm3: volumes within the voxels that count.
        is_ref_empty, is_pred_empty: whether the class has no such voxel.
    """

    dsc: float | None
    nsd: float | None
    hd95_mm: float | None
    assd_mm: float | None
    volume_ref_mm3: float
    volume_pred_mm3: float
    is_ref_empty: bool
    is_pred_empty: bool


def evaluate_case(
    pred_IJK: NDArray[np.integer],
    ref_IJK: NDArray[np.integer],
    num_classes: int,
    spacing_mm: tuple[float, float, float],
    *,
    surface: bool,
    nsd_tolerance_mm: float | None = None,
) -> list[ClassMetrics]:
    """The metrics of the classes 1, ..., `num_classes`, in that order.

    A class whose reference is empty has no score (None), as with MONAI's `ignore_empty=True`: what is predicted there is a
    false-positive volume, `volume_pred_mm3`, which is reported apart and averaged into no DSC. A class of the reference that the
    prediction lacks scores DSC 0, NSD 0 and, as both distances, the diagonal of the image, so that it stays in every mean.

    Args:
        pred_IJK: predicted classes, 0 to `num_classes`.
        ref_IJK: reference classes, 0 to `num_classes`, or 255: the voxel is taken as background on both sides.
        num_classes: number of foreground classes.
        spacing_mm: voxel edges along I, J, K.
        surface: whether to compute NSD, HD95 and ASSD, which take nearly all of the time.
        nsd_tolerance_mm: distance up to which two surfaces coincide, at least 0; None: the finest voxel edge.

    Raises:
        ValueError: the shapes differ, or a class is out of range.

    Surfaces and their areas are those of `raykd.numerics.surfaces`.
    """
    if pred_IJK.ndim != 3 or pred_IJK.shape != ref_IJK.shape:
        raise ValueError(f"prediction and reference must be 3D and alike in shape, got {pred_IJK.shape} and {ref_IJK.shape}")
    is_known = ref_IJK != LABEL_IGNORED
    pred = np.where(is_known, pred_IJK, pred_IJK.dtype.type(0))
    ref = np.where(is_known, ref_IJK, ref_IJK.dtype.type(0))
    joint = _joint_counts(pred, ref, num_classes)
    distances = surface_distances(pred, ref, num_classes, spacing_mm) if surface else [None] * num_classes
    tolerance_mm = min(spacing_mm) if nsd_tolerance_mm is None else nsd_tolerance_mm
    diagonal_mm = float(np.linalg.norm(np.multiply(ref.shape, spacing_mm)))
    voxel_mm3 = float(np.prod(spacing_mm))
    results = []
    for index, between in enumerate(distances, start=1):
        num_ref, num_pred = int(joint[index].sum()), int(joint[:, index].sum())
        has_surface = surface and num_ref > 0
        nsd, hd95_mm, assd_mm = _surface_scores(between, tolerance_mm, diagonal_mm) if has_surface else (None,) * 3
        results.append(
            ClassMetrics(
                dsc=2.0 * int(joint[index, index]) / (num_ref + num_pred) if num_ref else None,
                nsd=nsd,
                hd95_mm=hd95_mm,
                assd_mm=assd_mm,
                volume_ref_mm3=num_ref * voxel_mm3,
                volume_pred_mm3=num_pred * voxel_mm3,
                is_ref_empty=num_ref == 0,
                is_pred_empty=num_pred == 0,
            )
        )
    return results


def _joint_counts(pred_IJK: NDArray[np.integer], ref_IJK: NDArray[np.integer], num_classes: int) -> NDArray[np.intp]:
    """How many voxels have reference class r and predicted class p, at [r, p]."""
    for name, labels in (("prediction", pred_IJK), ("reference", ref_IJK)):
        if labels.size and not 0 <= labels.min() <= labels.max() <= num_classes:
            raise ValueError(f"classes of the {name} must lie in 0..{num_classes}, got {labels.min()}..{labels.max()}")
    size = num_classes + 1
    pairs = ref_IJK.ravel().astype(np.intp) * size + pred_IJK.ravel()
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


def _surface_scores(
    between: tuple[Distances, Distances] | None, tolerance_mm: float, diagonal_mm: float
) -> tuple[float, float, float]:
    """NSD, HD95 and ASSD of a class of the reference; `between` is None where the prediction lacks it."""
    return (0.0, diagonal_mm, diagonal_mm) if between is None else surface_scores(between, tolerance_mm)
