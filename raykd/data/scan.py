"""An image file on the grid that a model works on, and the way back: from classes there to classes of the file's own voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from torch import Tensor

from raykd.data.case import Case
from raykd.data.heterogeneity.resolution import SliceProfile, resample_case
from raykd.data.volume_io import read_volume, refusal


@dataclass(frozen=True)
class Scan:
    """An image file, read.

    Attributes:
        case: on the grid that the model works on, in RAS+.
        own_affine: 4 x 4, of the file's voxels along its own axes.
        own_shape: voxels of the file along its own axes.
    """

    case: Case
    own_affine: NDArray[np.float64]
    own_shape: tuple[int, int, int]

    def on_own_grid(self, labels_IJK: Tensor) -> NDArray[np.uint8]:
        """Classes on the model's grid as classes of the file's voxels: each has the class of the nearest voxel."""
        onto = np.linalg.solve(self.case.affine, self.own_affine)
        labels = labels_IJK.numpy()
        mask: NDArray[np.uint8] = affine_transform(labels, onto[:3, :3], onto[:3, 3], self.own_shape, order=0, mode="nearest")
        return mask


def load_scan(
    path: Path,
    *,
    clip: tuple[float, float] | None = None,
    spacing_mm: Sequence[float | None] | None = None,
    gap_mm: float = 0.0,
    slice_profile: SliceProfile = "box",
) -> Scan:
    """An image file, its intensities cut off as a source of files does, on the grid of a site.

    Args:
        path: as for `read_volume`. A NIfTI file keeps its axes in `own_affine`; another counts as turned to RAS+.
        clip: lowest and highest intensity kept; None: all.
        spacing_mm, gap_mm, slice_profile: as for `resample_case`; None: the file's own grid.

    Raises:
        DataError: the file is unusable, as for `read_volume`, or has one intensity everywhere.
    """
    image_CIJK, affine = read_volume(path)
    if clip is not None:
        image_CIJK = image_CIJK.clip(*clip)
    if image_CIJK.min() == image_CIJK.max():
        rule, hint = "an image must not be constant", "see the file, and the clip of the model's source"
        raise refusal(rule, path=path, case_id=path.name, got=f"{image_CIJK.min()} everywhere", hint=hint)
    case = Case(path.name, path.name, torch.from_numpy(image_CIJK), None, affine)
    own_affine, own_shape = _own_grid(path) if path.name.endswith((".nii", ".nii.gz")) else (affine, case.shape)
    if spacing_mm is not None:
        case = resample_case(case, spacing_mm, gap_mm, slice_profile)
    return Scan(case, own_affine, own_shape)


def _own_grid(path: Path) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    image = nibabel.load(path)
    i, j, k = image.shape[:3]
    return np.asarray(image.affine, dtype=np.float64), (i, j, k)
