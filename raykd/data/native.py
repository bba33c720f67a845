"""The reference of a case on its source's own grid: what it was before a site's thick slices averaged thin structures away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raykd.data.case import Case
from raykd.data.heterogeneity.resolution import SAME_SPACING_MM
from raykd.numerics.label_map import best_resampled_class

NATIVE = "native."
"""What begins the names of native volumes in a case's record."""


@dataclass(frozen=True)
class NativeReference:
    """The label of a case before any shift, over the part of the body that the site's own grid covers.

    Attributes:
        label_IJK: uint8, on the source's grid.
        spacing_mm: of that grid.
        weights: for each axis the share of each voxel of the site in each native one, (native, site), by linear interpolation.
    """

    label_IJK: Tensor
    spacing_mm: tuple[float, float, float]
    weights: tuple[Tensor, Tensor, Tensor]

    def resampled(self, probs_LIJK: Tensor) -> Tensor:
        """The most probable class of each native voxel, uint8, from probabilities on the site's grid."""
        return best_resampled_class(probs_LIJK, self.weights)


def native_reference(native: Case, case: Case) -> NativeReference | None:
    """The finer reference of a case; None where its source has none: no label, or no axis with smaller voxels.

    Args:
        native: the case as its source has it.
        case: the case as a site has it, on a grid along the same axes.
    """
    to_site = np.linalg.inv(case.affine) @ native.affine
    is_along = np.allclose(to_site[:3, :3], np.diag(np.diag(to_site)[:3]), atol=1e-4)
    is_finer = any(old < new - SAME_SPACING_MM for old, new in zip(native.spacing_mm, case.spacing_mm, strict=True))
    if native.label_IJK is None or not (is_along and is_finer):
        return None
    label_IJK, weights = native.label_IJK, []
    for axis, size in enumerate(case.shape):
        places = to_site[axis, axis] * np.arange(native.shape[axis]) + to_site[axis, 3]
        inside = np.flatnonzero((places >= -0.5 - 1e-6) & (places <= size - 0.5 + 1e-6))
        label_IJK = label_IJK.index_select(axis, torch.from_numpy(inside))
        weights.append(_linear(places[inside], size))
    i, j, k = weights
    return NativeReference(label_IJK, native.spacing_mm, (i, j, k))


class NativeReferences:
    """The finer references of a site's test cases, each read once.

    Args:
        original: gives a case as its source has it; None: none is looked for.
    """

    def __init__(self, original: Callable[[Case], Case] | None):
        self._original = original
        self._known: dict[str, NativeReference | None] = {}

    def of(self, case: Case, split: str = "test") -> NativeReference | None:
        """That of a case of the site; None: it has none, or is no test case."""
        if self._original is None or split != "test":
            return None
        if case.case_id not in self._known:
            self._known[case.case_id] = native_reference(self._original(case), case)
        return self._known[case.case_id]

    @property
    def tensors(self) -> list[Tensor]:
        """Those held in memory."""
        return [reference.label_IJK for reference in self._known.values() if reference is not None]


def with_native_volumes(case: Case, native: Case, classes: Sequence[str]) -> Case:
    """The case with the volume in mm³ of each class in its finer reference written down, where it has one."""
    found = native_reference(native, case)
    if found is None:
        return case
    counts = torch.bincount(found.label_IJK.flatten().long(), minlength=len(classes) + 1)
    voxel_mm3 = float(np.prod(found.spacing_mm))
    return case.with_record(**{f"{NATIVE}{name}_mm3": float(counts[c]) * voxel_mm3 for c, name in enumerate(classes, start=1)})


def native_volume_mm3(case: Case, name: str) -> float | None:
    """The volume that `with_native_volumes` wrote down for a class; None: there is no finer reference."""
    volume = case.record.get(f"{NATIVE}{name}_mm3")
    return None if volume is None else float(volume)


def _linear(places: np.ndarray, size: int) -> Tensor:
    """Weights (number of places, size) of linear interpolation; beyond the outer voxels' centres their values go on."""
    distance = np.abs(np.clip(places, 0, size - 1)[:, None] - np.arange(size)[None])
    return torch.from_numpy(np.clip(1 - distance, 0, None).astype(np.float32))
