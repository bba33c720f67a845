"""One subject's volume, its label map and its place in space; the bridge to TorchIO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from raykd.scenario.errors import DataError

if TYPE_CHECKING:
    import torchio

LABEL_UNKNOWN = 255
"""The value of a voxel that nobody annotated, where its class was not part of the annotator's task."""


@dataclass(frozen=True)
class Case:
    """A volume in RAS+ orientation: I runs to the right, J to the front, K upwards.

    Attributes:
        case_id: unique in its source, and all that reports show of it.
        patient_id: cases of one patient never fall on both sides of a split.
        image_CIJK: intensities, float32.
        label_IJK: class of each voxel, uint8: 0 background, l the l-th class of the scenario, 255 unknown; None: not annotated.
        affine: 4 x 4, voxel index to millimetres in RAS+.
        record: what was drawn for this case by its source and by every shift, by dotted name.
        outlined: the classes that whoever made the label looked for, ascending; None: all. To the label, a class that is not among
            them is part of the background.
        absent: those of them that are known not to be in the volume.
    """

    case_id: str
    patient_id: str
    image_CIJK: Tensor
    label_IJK: Tensor | None
    affine: np.ndarray
    record: Mapping[str, float | str] = field(default_factory=dict)
    outlined: tuple[int, ...] | None = None
    absent: tuple[int, ...] = ()

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel edges along I, J, K: the lengths of the affine's columns."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along I, J, K."""
        i, j, k = self.image_CIJK.shape[1:]
        return i, j, k

    def reference(self, class_index: int, is_empty: bool) -> str:
        """What an evaluation holds a prediction of an outlined class against: `outlined` voxels, `empty` where the annotator found
        none, or a class that is known to be `absent`.

        Args:
            class_index: of the class.
            is_empty: whether no voxel of the label that counts is of the class.
        """
        return "absent" if class_index in self.absent else "empty" if is_empty else "outlined"

    def with_record(self, **values: float | str) -> Case:
        """The same case with more of its history written down."""
        return replace(self, record={**self.record, **values})

    def check_contrast(self, owner: str) -> None:
        """Raises `DataError` where the image is constant, as the shifts of its owner may leave it."""
        low, high = self.image_CIJK.aminmax()
        if not low < high:
            rule = "an image must not be constant after the shifts of its site"
            raise DataError(f"{owner}: case {self.case_id}: {rule}, got {float(low):g} everywhere; see field_of_view_mm and clip")

    def to_subject(self) -> torchio.Subject:
        """As a TorchIO subject with `image` and, where annotated, `label`."""
        import torchio

        images: dict[str, Any] = {"image": torchio.ScalarImage(tensor=self.image_CIJK, affine=self.affine)}
        if self.label_IJK is not None:
            images["label"] = torchio.LabelMap(tensor=self.label_IJK[None], affine=self.affine)
        return torchio.Subject(images)

    def from_subject(self, subject: torchio.Subject) -> Case:
        """This case with image, label and affine as a TorchIO transform left them."""
        label = subject["label"].data[0].to(torch.uint8) if "label" in subject else None
        return replace(self, image_CIJK=subject["image"].data.float(), label_IJK=label, affine=np.asarray(subject["image"].affine))


def affine_from_spacing(spacing_mm: tuple[float, float, float], shape: tuple[int, int, int]) -> np.ndarray:
    """The RAS+ affine of a grid with this spacing whose centre lies at the origin."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * s for n, s in zip(shape, spacing_mm, strict=True)]
    return affine
