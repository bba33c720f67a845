"""Synthetic cases of five anatomies: as many as asked for, of any protocol and spacing, without a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator

from raykd.data.case import Case, affine_from_spacing
from raykd.data.phantom.families import FAMILIES
from raykd.data.phantom.family import Profile
from raykd.data.phantom.implicit import Vector
from raykd.data.sources._base import CaseKey, Source
from raykd.numerics.rng import numpy_generator
from raykd.scenario.errors import DataError, did_you_mean
from raykd.scenario.fields import PositiveInt, Probability, Spacing, Strict
from raykd.scenario.registry import SOURCES

PHANTOM_VERSION = 1
"""Raised whenever the same settings and seed give other voxels."""

Length = Annotated[float, Field(ge=20.0, le=500.0)]
PROTOCOLS = tuple(name for family in FAMILIES.values() for name in family.protocols)
Relative = Annotated[float, Field(ge=0.5, le=2.0)]


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(f"'{word}'" for word in words)


class PopulationSettings(Strict):
    """How subjects differ from the average, beyond what every population of the anatomy has."""

    size: tuple[Relative, Relative] = (1.0, 1.0)
    """Lowest and highest factor on the overall size, each value between as likely."""
    severity: tuple[Probability, Probability] | None = None
    """Lowest and highest severity: 0 is sound, 1 many large tumours, infarcts, nodules or casting faults. Absent: 0 to 1."""
    missing: dict[str, Probability] = {}
    """Structures that a subject may lack, as after surgery, each with its probability."""

    @field_validator("size", "severity")
    @classmethod
    def _is_ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value and value[0] > value[1]:
            raise ValueError("the lowest must not be above the highest")
        return value


class PhantomSettings(Strict):
    """Procedural anatomy with exact labels."""

    name: Literal["phantom"]
    anatomy: Literal["knee", "abdomen_ct", "cardiac_mr", "ultrasound", "casting_ct"] = "knee"
    """A knee, the upper abdomen, the heart in short-axis view, a lobe of the thyroid, or a cast part of aluminium."""
    protocol: Annotated[str | None, Field(validate_default=True, json_schema_extra={"enum": [*PROTOCOLS, None]})] = None
    """How it is scanned: one of the protocols of the anatomy; absent: its first, `dess_we` of a knee."""
    num_cases: PositiveInt
    spacing_mm: Annotated[Spacing | None, Field(validate_default=True)] = None
    """Voxel edges along I, J, K; absent: what is usual for the anatomy, [1.5, 1.0, 1.0] of a knee."""
    field_of_view_mm: Annotated[tuple[Length, Length, Length] | None, Field(validate_default=True)] = None
    """Edges of the scanned block along I, J, K, rounded to whole voxels; less than 135 mm along J cuts the patella of a knee.
    Absent: what holds the anatomy, [108, 140, 140] of a knee.
    """
    kl_grades: Annotated[tuple[Annotated[int, Field(ge=0, le=4)], ...], Field(min_length=1)] | None = None
    """Kellgren-Lawrence grades of knees to draw from with equal probability; absent: as frequent as in a population."""
    side: Literal["left", "right", "both"] = "both"
    """Of a knee or a neck."""
    clip: tuple[float, float] | None = None
    """Intensities are cut to this range, as [-160, 240] Hounsfield units for soft tissue: training scales images by all that is in
    them, air included."""
    population: PopulationSettings = PopulationSettings()

    @field_validator("clip")
    @classmethod
    def _has_a_width(cls, clip: tuple[float, float] | None) -> tuple[float, float] | None:
        if clip is not None and not clip[0] < clip[1]:
            raise ValueError("must be [low, high] with low < high")
        return clip

    @field_validator("protocol")
    @classmethod
    def _belongs_to_the_anatomy(cls, protocol: str | None, info: ValidationInfo) -> str | None:
        family = FAMILIES.get(info.data.get("anatomy", ""))
        if family and protocol is None:
            return family.protocols[0]
        if family and protocol not in family.protocols:
            raise ValueError(f"must be a protocol of {info.data['anatomy']}: {_listed(family.protocols)}")
        return protocol

    @field_validator("spacing_mm")
    @classmethod
    def _is_usual_for_the_anatomy(cls, spacing_mm: Vector | None, info: ValidationInfo) -> Vector | None:
        family = FAMILIES.get(info.data.get("anatomy", ""))
        return family.spacing_mm if family and spacing_mm is None else spacing_mm

    @field_validator("field_of_view_mm")
    @classmethod
    def _fits_the_anatomy(cls, lengths_mm: Vector | None, info: ValidationInfo) -> Vector | None:
        family = FAMILIES.get(info.data.get("anatomy", ""))
        if family is None or lengths_mm is None:
            return family.field_of_view_mm if family else None
        low, high = family.field_limits_mm
        if not all(low <= length <= high for length in lengths_mm):
            raise ValueError(f"each edge must be {low:g} to {high:g} mm for {info.data['anatomy']}")
        return lengths_mm

    @field_validator("kl_grades", "side")
    @classmethod
    def _applies_to_the_anatomy(cls, value: Any, info: ValidationInfo) -> Any:
        family = FAMILIES.get(info.data.get("anatomy", ""))
        applies = family is None or (family.has_grades if info.field_name == "kl_grades" else family.has_sides)
        if not applies and value not in (None, "both"):
            raise ValueError(f"does not apply to {info.data['anatomy']}; leave it out")
        return value

    @field_validator("population")
    @classmethod
    def _is_a_population_of_the_anatomy(cls, population: PopulationSettings, info: ValidationInfo) -> PopulationSettings:
        family = FAMILIES.get(info.data.get("anatomy", ""))
        if family is None:
            return population
        if population.severity and not family.has_severity:
            raise ValueError(f"severity does not apply to {info.data['anatomy']}; use 'kl_grades'")
        unknown = [name for name in population.missing if name not in family.removable]
        if unknown:
            raise ValueError(
                f"missing: {_listed(tuple(unknown))} cannot be absent from {info.data['anatomy']}; "
                f"what can be: {_listed(family.removable)}"
            )
        return population


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
        self._family = FAMILIES[settings.anatomy]
        self._protocol = settings.protocol or self._family.protocols[0]
        self._spacing_mm = settings.spacing_mm or self._family.spacing_mm
        self._field_of_view_mm = settings.field_of_view_mm or self._family.field_of_view_mm
        self._class_of_label = _class_of_label(classes, self._family.structures)

    def keys(self) -> list[CaseKey]:
        names = [f"{self.owner}-{index:03d}" for index in range(self.settings.num_cases)]
        # Another seed draws another population: the same name is then another patient.
        return [CaseKey(name, f"{name}@seed{self.seed}") for name in names]

    def traits(self, key: CaseKey) -> dict[str, str | float]:
        return self._draw(self._index(key))[1]

    def load(self, key: CaseKey) -> Case:
        index = self._index(key)
        subject, traits = self._draw(index)
        rng = numpy_generator(self.seed, "phantom-scan", self.owner, index)
        image, label = self._family.scan(subject, self._protocol, self._shape(), self._spacing_mm, rng)
        if self.settings.clip is not None:
            image = image.clip(*self.settings.clip)
        label_IJK = torch.from_numpy(self._class_of_label[label])
        return Case(
            case_id=key.case_id,
            patient_id=key.patient_id,
            image_CIJK=torch.from_numpy(image)[None],
            label_IJK=label_IJK,
            affine=affine_from_spacing(self._spacing_mm, self._shape()),
            record={"phantom.protocol": self._protocol, **{f"phantom.{name}": value for name, value in traits.items()}},
            absent=tuple(index for index in range(1, len(self.classes) + 1) if not bool((label_IJK == index).any())),
        )

    def _index(self, key: CaseKey) -> int:
        keys = self.keys()
        if key not in keys:
            raise DataError(f"case {key.case_id!r}: the phantom of {self.owner!r} has {keys[0].case_id} to {keys[-1].case_id} only")
        return keys.index(key)

    def _draw(self, index: int) -> tuple[Any, dict[str, str | float]]:
        """The subject of a case and its traits; what `population` adds has draws of its own, so that it changes nothing else."""
        population = self.settings.population
        rng = numpy_generator(self.seed, "phantom-population", self.owner, index)
        size, severity = (float(rng.uniform(low, high)) for low, high in (population.size, population.severity or (0.0, 1.0)))
        chances = {name: rng.random() for name in self._family.removable}
        missing = frozenset(name for name, chance in population.missing.items() if chances[name] < chance)
        profile = Profile(
            size=size,
            severity=severity,
            missing=missing,
            side=None if self.settings.side == "both" else self.settings.side,
            kl_grades=self.settings.kl_grades,
        )
        subject = self._family.draw(numpy_generator(self.seed, "phantom-subject", self.owner, index), profile)
        return subject, {**self._family.traits(subject), "size": size, "missing": " ".join(sorted(missing))}

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
            max(4, round(length / spacing)) for length, spacing in zip(self._field_of_view_mm, self._spacing_mm, strict=True)
        )
        return i, j, k


def _class_of_label(classes: tuple[str, ...], structures: Mapping[str, tuple[int, ...]]) -> np.ndarray:
    """The scenario's class of every phantom label, as an array to index with a label map."""
    table = np.zeros(1 + max(label for labels in structures.values() for label in labels), np.uint8)
    for number, name in enumerate(classes, start=1):
        if name not in structures:
            raise DataError(
                f"classes: every class must be a structure of the phantom, got {name!r}; {did_you_mean(name, structures)}"
            )
        labels = list(structures[name])
        if table[labels].any():
            other = classes[table[labels].max() - 1]
            raise DataError(f"classes: {name!r} and {other!r} share voxels of the phantom; keep the whole or its parts, not both")
        table[labels] = number
    return table
