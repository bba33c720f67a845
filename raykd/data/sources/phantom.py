"""Synthetic knees: as many cases as asked for, of any protocol and spacing, without a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from raykd.data.case import Case, affine_from_spacing
from raykd.data.phantom import STRUCTURES, Side, build_anatomy, draw_subject, render
from raykd.data.sources._base import CaseKey, Source
from raykd.numerics.rng import numpy_generator
from raykd.scenario.errors import DataError, did_you_mean
from raykd.scenario.fields import PositiveInt, Spacing, Strict
from raykd.scenario.registry import SOURCES

PHANTOM_VERSION = 1
"""Raised whenever the same settings and seed give other voxels."""

Length = Annotated[float, Field(ge=100.0, le=240.0)]


class PhantomSettings(Strict):
    """Procedural knees with exact labels."""

    name: Literal["phantom"]
    anatomy: Literal["knee"] = "knee"
    protocol: Literal["dess_we", "pd_fse_fs", "iw_fse", "t2_fse_fs", "spgr_we", "t1_fse"] = "dess_we"
    """The MR sequence at 3 T; `_we` and `_fs`: fat is suppressed."""
    num_cases: PositiveInt
    spacing_mm: Spacing = (1.5, 1.0, 1.0)
    field_of_view_mm: tuple[Length, Length, Length] = (108.0, 140.0, 140.0)
    """Edges of the scanned block along I, J, K, rounded to whole voxels; less than 135 mm along J cuts the patella."""
    kl_grades: Annotated[tuple[Annotated[int, Field(ge=0, le=4)], ...], Field(min_length=1)] | None = None
    """Kellgren-Lawrence grades to draw from with equal probability; absent: as frequent as in a population."""
    side: Literal["left", "right", "both"] = "both"


@SOURCES.register("phantom")
class PhantomSource(Source):
    """Cases drawn from the addresses (seed, owner, index): any one can be made alone, in any order, anywhere.

    Raises:
        DataError: a class is no structure of the phantom, or two classes share a structure.
    """

    Settings = PhantomSettings
    settings: PhantomSettings

    def __init__(self, settings: PhantomSettings, classes: tuple[str, ...], seed: int, owner: str, root: Path):
        super().__init__(settings, classes, seed, owner, root)
        self._class_of_label = _class_of_label(classes)

    def keys(self) -> list[CaseKey]:
        names = [f"{self.owner}-{index:03d}" for index in range(self.settings.num_cases)]
        # Another seed draws another population: the same name is then another patient.
        return [CaseKey(name, f"{name}@seed{self.seed}") for name in names]

    def load(self, key: CaseKey) -> Case:
        keys = self.keys()
        if key not in keys:
            raise DataError(f"case {key.case_id!r}: the phantom of {self.owner!r} has {keys[0].case_id} to {keys[-1].case_id} only")
        index, settings = keys.index(key), self.settings
        rng = numpy_generator(self.seed, "phantom-subject", self.owner, index)
        grade = None if settings.kl_grades is None else int(rng.choice(settings.kl_grades))
        side: Side | None = None if settings.side == "both" else settings.side
        subject = draw_subject(rng, kl_grade=grade, side=side)
        anatomy = build_anatomy(subject, self._shape(), settings.spacing_mm)
        image = render(anatomy, settings.protocol, numpy_generator(self.seed, "phantom-scan", self.owner, index))
        return Case(
            case_id=key.case_id,
            patient_id=key.patient_id,
            image_CIJK=torch.from_numpy(image)[None],
            label_IJK=torch.from_numpy(self._class_of_label[anatomy.label_IJK]),
            affine=affine_from_spacing(settings.spacing_mm, self._shape()),
            record={
                "phantom.protocol": settings.protocol,
                "phantom.kl_grade": float(subject.kl_grade),
                "phantom.side": subject.side,
                "phantom.sex": "male" if subject.is_male else "female",
                "phantom.scale": subject.scale,
                "phantom.num_lesions": float(len(subject.lesions)),
            },
        )

    def fingerprint(self) -> dict[str, Any]:
        return {
            "phantom_version": PHANTOM_VERSION,
            "settings": self.settings.model_dump(mode="json"),
            "classes": list(self.classes),
            "seed": self.seed,
            "owner": self.owner,
        }

    def _shape(self) -> tuple[int, int, int]:
        i, j, k = (
            max(4, round(length / spacing))
            for length, spacing in zip(self.settings.field_of_view_mm, self.settings.spacing_mm, strict=True)
        )
        return i, j, k


def _class_of_label(classes: tuple[str, ...]) -> np.ndarray:
    """The scenario's class of every phantom label, as an array to index with a label map."""
    table = np.zeros(1 + max(label for labels in STRUCTURES.values() for label in labels), np.uint8)
    for number, name in enumerate(classes, start=1):
        if name not in STRUCTURES:
            raise DataError(
                f"classes: every class must be a structure of the phantom, got {name!r}; {did_you_mean(name, STRUCTURES)}"
            )
        labels = list(STRUCTURES[name])
        if table[labels].any():
            other = classes[table[labels].max() - 1]
            raise DataError(f"classes: {name!r} and {other!r} share voxels of the phantom; keep the whole or its parts, not both")
        table[labels] = number
    return table
