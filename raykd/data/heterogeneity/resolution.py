"""The voxel grid of a site: thick slices average what they cover, they do not sample it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from raykd.data.case import Case
from raykd.data.heterogeneity._base import Shift
from raykd.scenario.errors import DataError
from raykd.scenario.fields import NonNegativeFloat, Spacing, Strict
from raykd.scenario.registry import SHIFTS

SAME_SPACING_MM = 1e-3
"""Grids whose spacings differ by no more than this are the same."""


class ResolutionSettings(Strict):
    """The grid of a site."""

    name: Literal["resolution"] = "resolution"
    spacing_mm: Spacing
    gap_mm: NonNegativeFloat = 0.0
    """Part of the spacing along the coarsest axis that no slice covers."""


@SHIFTS.register("resolution")
class Resolution(Shift):
    """Brings every case of a site to one spacing; draws nothing."""

    Settings: ClassVar[type[Strict]] = ResolutionSettings

    def apply(self, case: Case) -> Case:
        return resample_case(case, self.settings.spacing_mm, self.settings.gap_mm)


def resample_case(case: Case, spacing_mm: Sequence[float], gap_mm: float = 0.0) -> Case:
    """The case as it would be on a grid of another spacing, centred on the same field of view.

    Along an axis that becomes coarser, a new voxel is the average of the old ones over the part that it covers (a boxcar slice
    profile); along one that becomes finer, it is interpolated linearly at its centre. An axis within 0.001 mm of its spacing stays
    as it is; a case whose three axes stay is returned as it came. A label is the class that covers most of the new voxel (unknown
    counts as a class; the lower class wins a tie). What fills no whole voxel, less than half of one at either end, is cut off.

    Args:
        case: in any orientation of axes; its affine is carried along exactly.
        spacing_mm: the new voxel edges along I, J, K.
        gap_mm: part of the spacing along the coarsest new axis (the first of equals) that no slice covers, half on either side.

    Raises:
        DataError: a spacing is not positive, or the gap is not smaller than the spacing that it is a part of.
    """
    coarsest = int(np.argmax(spacing_mm))
    if min(spacing_mm) <= 0 or not 0 <= gap_mm < spacing_mm[coarsest]:
        raise DataError(
            f"case {case.case_id}: spacing_mm must be positive and gap_mm at least 0 and below the largest spacing, "
            f"got {tuple(spacing_mm)} and {gap_mm}; give spacing_mm as the distance between slice centres"
        )
    is_kept = [abs(new - old) <= SAME_SPACING_MM for new, old in zip(spacing_mm, case.spacing_mm, strict=True)]
    if all(is_kept):
        return case
    weights: list[Tensor | None] = [None] * 3
    to_old_index = np.eye(4)
    for axis, (size, old, new) in enumerate(zip(case.shape, case.spacing_mm, spacing_mm, strict=True)):
        if is_kept[axis]:
            continue
        start = (size - _new_size(size, old, new) * new / old) / 2
        to_old_index[axis, axis], to_old_index[axis, 3] = new / old, start + (new / old - 1) / 2
        weights[axis] = axis_weights(size, old, new, gap_mm if axis == coarsest else 0.0)
    label_IJK = case.label_IJK
    return replace(
        case.with_record(
            **{f"resolution.spacing_{axis}_mm": float(mm) for axis, mm in zip("ijk", spacing_mm, strict=True)},
            **{"resolution.gap_mm": float(gap_mm)},
        ),
        image_CIJK=_average(case.image_CIJK, weights),
        label_IJK=None if label_IJK is None else _majority(label_IJK, weights),
        affine=case.affine @ to_old_index,
    )


def axis_weights(size: int, old_mm: float, new_mm: float, gap_mm: float = 0.0) -> Tensor:
    """The share of each old voxel in each new one along an axis, (new size, old size), float32, every row summing to 1.

    Args:
        size: number of old voxels.
        old_mm, new_mm: spacings.
        gap_mm: part of `new_mm` left out, half on either side; without effect where the axis becomes finer.
    """
    new_size = _new_size(size, old_mm, new_mm)
    step = new_mm / old_mm
    centre = size / 2 + step * (np.arange(new_size)[:, None] - (new_size - 1) / 2)
    low = np.arange(size)[None]
    if step >= 1:
        half = (new_mm - gap_mm) / old_mm / 2
        weights = np.clip(np.minimum(centre + half, low + 1) - np.maximum(centre - half, low), 0, None)
    else:
        weights = np.clip(1 - np.abs(centre - (low + 0.5)), 0, None)
    return torch.from_numpy((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))


def _new_size(size: int, old_mm: float, new_mm: float) -> int:
    """How many whole new voxels the field of view holds, at least 1; the slack forgives rounding, as in 3 * 0.1 / 0.3."""
    return max(1, int(np.floor(size * old_mm / new_mm + 1e-6)))


def _average(volume: Tensor, weights: Sequence[Tensor | None]) -> Tensor:
    """The last three axes of a volume, each multiplied by its weights, the one that shrinks most first."""
    given = [(axis - 3, matrix) for axis, matrix in enumerate(weights) if matrix is not None]
    for axis, matrix in sorted(given, key=lambda pair: pair[1].shape[0] / pair[1].shape[1]):
        volume = torch.tensordot(matrix, volume, dims=([1], [axis % volume.ndim])).movedim(0, axis)
    return volume.contiguous()


def _majority(label_IJK: Tensor, weights: Sequence[Tensor | None]) -> Tensor:
    """The class with the largest share of each new voxel; shares within rounding of each other tie."""
    best, label = torch.zeros(()), torch.zeros((), dtype=torch.uint8)
    for value in torch.unique(label_IJK):
        share = _average((label_IJK == value).float(), weights)
        is_more = share > best + 1e-5
        best, label = torch.where(is_more, share, best), torch.where(is_more, value.to(torch.uint8), label)
    return label
