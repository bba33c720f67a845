"""What a phantom promises: a population to draw from, an anatomy with exact labels, and protocols to scan it with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from raykd.data.phantom.implicit import Vector

Side = Literal["left", "right"]
Shape = tuple[int, int, int]
Image = NDArray[np.float32]
Labels = NDArray[np.uint8]
Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Profile:
    """What is decided of a subject before it is drawn.

    Attributes:
        size: factor on its overall size.
        severity: of its disease or its faults, 0 (none) to 1.
        missing: structures that it lacks.
        side: None: either.
        kl_grades: Kellgren-Lawrence grades of a knee to draw from; None: as frequent as in a population.
    """

    size: float = 1.0
    severity: float = 0.5
    missing: frozenset[str] = frozenset()
    side: Side | None = None
    kl_grades: tuple[int, ...] | None = None


class Family(ABC, Generic[Subject]):
    """All phantoms of one anatomy.

    Attributes:
        structures: every structure that can be a class, and the labels it is made of.
        protocols: what it can be scanned with, the default first.
        spacing_mm, field_of_view_mm: of a scan where the scenario says nothing.
        field_limits_mm: shortest and longest edge of a scan.
        removable: structures that a subject may lack.
        has_sides, has_grades, has_severity: whether it comes as left and right, is graded after Kellgren and Lawrence, or has a
            severity.
    """

    structures: ClassVar[Mapping[str, tuple[int, ...]]]
    protocols: ClassVar[tuple[str, ...]]
    spacing_mm: ClassVar[Vector]
    field_of_view_mm: ClassVar[Vector]
    field_limits_mm: ClassVar[tuple[float, float]]
    removable: ClassVar[tuple[str, ...]]
    has_sides: ClassVar[bool] = False
    has_grades: ClassVar[bool] = False
    has_severity: ClassVar[bool] = True

    @abstractmethod
    def draw(self, rng: np.random.Generator, profile: Profile) -> Subject:
        """A subject: a function of the generator's state and the profile."""

    @abstractmethod
    def traits(self, subject: Subject) -> dict[str, float | str]:
        """What a record says of a subject, by name."""

    @abstractmethod
    def scan(
        self, subject: Subject, protocol: str, shape: Shape, spacing_mm: Vector, rng: np.random.Generator
    ) -> tuple[Image, Labels]:
        """Image and labels, each (I, J, K), of a subject; the generator draws the scan, and nothing of the subject."""
