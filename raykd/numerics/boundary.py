"""Where in a patch a voxel lies, as a weight of what is learnt there: near a boundary, in mm, or in a small class.

Shapes: B patches, L classes with background, I J K voxels. A weight multiplies any loss that is a mean over voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, find_objects
from torch import Tensor

from raykd.numerics.segmentation_losses import UNKNOWN


def boundary_distance_mm(label_IJK: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """Distance from every voxel to the nearest one of another class, between centres, in mm: (I, J, K), float32.

    Across thick slices it is the slice spacing at least, so that in-plane boundaries count before those between slices.

    Args:
        label_IJK: classes; 255 is unknown and bounds nothing.
        spacing_mm: voxel edges along I, J, K.

    Returns:
        The distances, infinite at unknown voxels and where there is one class only.
    """
    label = label_IJK.cpu().numpy()
    distance = np.full(label.shape, np.inf, dtype=np.float32)
    classes = [int(c) for c in np.unique(label) if c != UNKNOWN]
    boxes = find_objects(label.astype(np.int32) + 1) if len(classes) > 1 else []
    for c in classes if boxes else []:
        # A voxel beyond the box has one nearer on the box's rim, and it is of another class, unless it is unknown.
        box = tuple(slice(None) if UNKNOWN in label else slice(max(e.start - 1, 0), e.stop + 1) for e in boxes[c])
        inside = label[box] == c
        to_others = distance_transform_edt(inside | (label[box] == UNKNOWN), sampling=tuple(spacing_mm))
        distance[box][inside] = to_others[inside]
    return torch.from_numpy(distance).to(label_IJK.device)


def boundary_weight(distance_mm: Tensor, *, gain: float = 5.0, width_mm: float = 3.0) -> Tensor:
    """1 + gain exp(-distance^2 / (2 width^2)), in the spirit of U-Net's weight map (Ronneberger et al., MICCAI 2015,
    https://arxiv.org/abs/1505.04597).

    Args:
        distance_mm: to the boundary; infinite where there is none.
        gain: kappa, >= 0; 0 weighs all voxels alike.
        width_mm: sigma, > 0.
    """
    return 1.0 + gain * torch.exp(-distance_mm.square() / (2.0 * width_mm**2))


def patch_boundary_weight(label_BIJK: Tensor, spacing_mm_B3: Tensor, *, gain: float = 5.0, width_mm: float = 3.0) -> Tensor:
    """`boundary_weight` of every patch: (B, I, J, K). Boundaries beyond a patch are not seen."""
    spacings = spacing_mm_B3.tolist()
    distance = torch.stack([boundary_distance_mm(label, mm) for label, mm in zip(label_BIJK, spacings, strict=True)])
    return boundary_weight(distance, gain=gain, width_mm=width_mm)


def class_balance_weight(soft_label_BLIJK: Tensor) -> Tensor:
    """The mean under each voxel's soft label of omega_c = 1 / sqrt(V_c), V_c the voxels of class c in all patches together, scaled
    to a mean of 1 over voxels: (B, I, J, K).

    A class of a hundredth of the volume weighs ten times as much a voxel, and a tenth as much in all.

    Args:
        soft_label_BLIJK: probabilities; a class under a voxel's worth counts as one voxel.
    """
    volume_L = soft_label_BLIJK.sum(dim=(0, 2, 3, 4)).clamp(min=1.0)
    weight_BIJK = torch.einsum("blijk,l->bijk", soft_label_BLIJK, volume_L.rsqrt())
    return weight_BIJK / weight_BIJK.mean()


@dataclass(frozen=True)
class Emphasis:
    """Weights of voxels by place and class: `boundary_weight` of the most probable class, `class_balance_weight`, or their product.

    Attributes:
        boundary, classes: which of the two.
        gain, width_mm: of the boundary's.
    """

    boundary: bool = False
    classes: bool = False
    gain: float = 5.0
    width_mm: float = 3.0

    def __call__(self, soft_label_BLIJK: Tensor, spacing_mm_B3: Tensor | None) -> Tensor:
        """The weight of every voxel: (B, I, J, K).

        Raises:
            ValueError: a boundary's without spacing.
        """
        weight_BIJK = class_balance_weight(soft_label_BLIJK) if self.classes else torch.ones_like(soft_label_BLIJK[:, 0])
        if not self.boundary:
            return weight_BIJK
        if spacing_mm_B3 is None:
            raise ValueError("weights near boundaries are in mm and need the spacing of every patch, got none")
        label_BIJK = soft_label_BLIJK.argmax(dim=1)
        return weight_BIJK * patch_boundary_weight(label_BIJK, spacing_mm_B3, gain=self.gain, width_mm=self.width_mm)
