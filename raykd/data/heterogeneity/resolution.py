"""The voxel grid of a site: thick slices average what they cover, they do not sample it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from raykd.data.case import Case
from raykd.data.heterogeneity._base import Shift
from raykd.scenario.errors import DataError
from raykd.scenario.fields import NonNegativeFloat, Strict, TargetSpacing
from raykd.scenario.registry import SHIFTS
from raykd.scenario.sites import Sampling

SAME_SPACING_MM = 1e-3
"""Grids whose spacings differ by no more than this are the same."""
FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian of standard deviation 1."""


SliceProfile = Literal["box", "gaussian"]


class ResolutionSettings(Sampling):
    """The grid of a site, and how it samples the body."""

    name: Literal["resolution"] = "resolution"
    spacing_mm: TargetSpacing | None = None
    """One number, or one for each axis; null for an axis, or absent: as it is."""
    gap_mm: NonNegativeFloat = 0.0
    """Part of the spacing along the coarsest axis that no slice covers."""


@SHIFTS.register("resolution")
class Resolution(Shift):
    """Field of view, voxel spacing and acquired matrix, in that order; draws nothing."""

    Settings: ClassVar[type[Strict]] = ResolutionSettings

    def apply(self, case: Case) -> Case:
        s = self.settings
        if s.field_of_view_mm is not None:
            case = crop_field_of_view(case, s.field_of_view_mm)
        if s.spacing_mm is not None:
            case = resample_case(case, s.spacing_mm, s.gap_mm, s.slice_profile)
        return case if s.matrix is None else acquire_matrix(case, s.matrix)

    def fingerprint(self) -> dict[str, Any]:
        return self.settings.model_dump(mode="json")


def crop_field_of_view(case: Case, field_of_view_mm: Sequence[float | None]) -> Case:
    """The case within a block around its centre, in whole voxels: image, label and affine are cut alike.

    Args:
        case: in any orientation of axes.
        field_of_view_mm: edges along I, J, K, rounded down to voxels, at least one; None, or more than there is: all of it.
    """
    starts, sizes = [], []
    for size, spacing, edge_mm in zip(case.shape, case.spacing_mm, field_of_view_mm, strict=True):
        kept = size if edge_mm is None else min(size, max(1, int(edge_mm / spacing + 1e-6)))
        starts.append((size - kept) // 2)
        sizes.append(kept)
    if tuple(sizes) == case.shape:
        return case
    i, j, k = (slice(start, start + kept) for start, kept in zip(starts, sizes, strict=True))
    affine = case.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ starts
    edges = {f"resolution.field_of_view_{axis}_mm": kept * mm for axis, kept, mm in zip("ijk", sizes, case.spacing_mm, strict=True)}
    return replace(
        case.with_record(**edges),
        image_CIJK=case.image_CIJK[:, i, j, k].contiguous(),
        label_IJK=None if case.label_IJK is None else case.label_IJK[i, j, k].contiguous(),
        affine=affine,
    )


def acquire_matrix(case: Case, matrix: Sequence[int]) -> Case:
    """The case as if `matrix` samples of k-space had been taken in the plane of the slices, the rest filled with zeros.

    The samples are those around the centre of k-space, indices -(n // 2) to (n - 1) // 2. An image without negative values is
    a magnitude and stays one; of another, the real part is taken. Labels are the site's grid and stay.

    Args:
        case: its slices lie across its coarsest axis, the first of equals.
        matrix: samples along the two other axes, in the order I, J, K; as many as there are voxels, or more, change nothing.
    """
    in_plane = [axis for axis in range(3) if axis != int(np.argmax(case.spacing_mm))]
    is_cut = [count < case.shape[axis] for axis, count in zip(in_plane, matrix, strict=True)]
    if not any(is_cut):
        return case
    spectrum = torch.fft.fftn(case.image_CIJK, dim=[axis + 1 for axis in in_plane])
    for axis, count in zip(in_plane, matrix, strict=True):
        index = torch.fft.fftfreq(case.shape[axis], 1 / case.shape[axis]).round()
        is_taken = (index >= -(count // 2)) & (index <= (count - 1) // 2)
        spectrum = spectrum * is_taken.reshape([-1 if a == axis else 1 for a in range(3)])
    image_CIJK = torch.fft.ifftn(spectrum, dim=[axis + 1 for axis in in_plane])
    is_magnitude = bool(case.image_CIJK.min() >= 0)
    recorded = {f"resolution.matrix_{'ijk'[axis]}": float(count) for axis, count in zip(in_plane, matrix, strict=True)}
    return replace(case.with_record(**recorded), image_CIJK=(image_CIJK.abs() if is_magnitude else image_CIJK.real).contiguous())


def resample_case(case: Case, spacing_mm: Sequence[float | None], gap_mm: float = 0.0, slice_profile: SliceProfile = "box") -> Case:
    """The case as it would be on a grid of another spacing, centred on the same field of view.

    Along an axis that becomes coarser, a new voxel is the average of the old ones over the part that it covers (a boxcar slice
    profile); along one that becomes finer, it is interpolated linearly at its centre. An axis within 0.001 mm of its spacing stays
    as it is; a case whose three axes stay is returned as it came. A label is the class that covers most of the new voxel, under
    every profile (unknown counts as a class; the lower class wins a tie). What fills no whole voxel, less than half of one at
    either end, is cut off.

    Args:
        case: in any orientation of axes; its affine is carried along exactly.
        spacing_mm: the new voxel edges along I, J, K; None: the axis stays.
        gap_mm: part of the spacing along the coarsest new axis (the first of equals) that no slice covers, half on either side.
        slice_profile: how a slice weights the image along that axis where it becomes coarser: see `axis_weights`.

    Raises:
        DataError: a spacing is not positive, or the gap is not smaller than the spacing that it is a part of.
    """
    wanted_mm = [old if new is None else float(new) for new, old in zip(spacing_mm, case.spacing_mm, strict=True)]
    coarsest = int(np.argmax(wanted_mm))
    if min(wanted_mm) <= 0 or not 0 <= gap_mm < wanted_mm[coarsest]:
        raise DataError(
            f"case {case.case_id}: spacing_mm must be positive and gap_mm at least 0 and below the largest spacing, "
            f"got {tuple(spacing_mm)} and {gap_mm}; give spacing_mm as the distance between slice centres"
        )
    is_kept = [abs(new - old) <= SAME_SPACING_MM for new, old in zip(wanted_mm, case.spacing_mm, strict=True)]
    if all(is_kept):
        return case
    cover: list[Tensor | None] = [None] * 3
    to_old_index = np.eye(4)
    for axis, (size, old, new) in enumerate(zip(case.shape, case.spacing_mm, wanted_mm, strict=True)):
        if is_kept[axis]:
            continue
        start = (size - _new_size(size, old, new) * new / old) / 2
        to_old_index[axis, axis], to_old_index[axis, 3] = new / old, start + (new / old - 1) / 2
        cover[axis] = axis_weights(size, old, new, gap_mm if axis == coarsest else 0.0)
    seen = list(cover)
    if slice_profile == "gaussian" and cover[coarsest] is not None:
        seen[coarsest] = axis_weights(case.shape[coarsest], case.spacing_mm[coarsest], wanted_mm[coarsest], gap_mm, slice_profile)
    label_IJK = case.label_IJK
    return replace(
        case.with_record(**_grid_record(wanted_mm, gap_mm, slice_profile)),
        image_CIJK=_average(case.image_CIJK, seen),
        label_IJK=None if label_IJK is None else _majority(label_IJK, cover),
        affine=case.affine @ to_old_index,
    )


def _grid_record(spacing_mm: Sequence[float], gap_mm: float, slice_profile: SliceProfile) -> dict[str, float | str]:
    named: dict[str, float | str] = {f"resolution.spacing_{axis}_mm": mm for axis, mm in zip("ijk", spacing_mm, strict=True)}
    return named | {"resolution.gap_mm": float(gap_mm), "resolution.slice_profile": slice_profile}


def axis_weights(size: int, old_mm: float, new_mm: float, gap_mm: float = 0.0, slice_profile: SliceProfile = "box") -> Tensor:
    """The share of each old voxel in each new one along an axis, (new size, old size), float32, every row summing to 1.

    Args:
        size: number of old voxels.
        old_mm, new_mm: spacings.
        gap_mm: part of `new_mm` left out, half on either side; without effect where the axis becomes finer.
        slice_profile: `box` weights the thickness, `new_mm` less `gap_mm`, alike; `gaussian` weights by a Gaussian whose full width
            at half maximum is the thickness, integrated over each old voxel. A finer axis is interpolated linearly under either.
    """
    new_size = _new_size(size, old_mm, new_mm)
    step = new_mm / old_mm
    centre = size / 2 + step * (np.arange(new_size)[:, None] - (new_size - 1) / 2)
    low, thickness = np.arange(size)[None], (new_mm - gap_mm) / old_mm
    if step < 1:
        weights = np.clip(1 - np.abs(centre - (low + 0.5)), 0, None)
    elif slice_profile == "gaussian":
        sigma = thickness / FWHM_PER_SIGMA
        weights = ndtr((low + 1 - centre) / sigma) - ndtr((low - centre) / sigma)
    else:
        weights = np.clip(np.minimum(centre + thickness / 2, low + 1) - np.maximum(centre - thickness / 2, low), 0, None)
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
