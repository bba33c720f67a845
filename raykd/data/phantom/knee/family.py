"""The knee as a family of phantoms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from raykd.data.phantom.family import Family, Image, Labels, Profile, Shape
from raykd.data.phantom.implicit import Vector
from raykd.data.phantom.knee.anatomy import STRUCTURES, build_anatomy
from raykd.data.phantom.knee.population import Subject, draw_subject
from raykd.data.phantom.knee.render import render
from raykd.data.phantom.knee.sequences import PROTOCOLS


class Knee(Family[Subject]):
    """One knee on MR at 3 T; its disease goes by the Kellgren-Lawrence grade."""

    structures = STRUCTURES
    protocols = tuple(PROTOCOLS)
    spacing_mm = (1.5, 1.0, 1.0)
    field_of_view_mm = (108.0, 140.0, 140.0)
    field_limits_mm = (100.0, 240.0)
    removable = ("patella", "medial_meniscus", "lateral_meniscus")
    has_sides = has_grades = True
    has_severity = False

    def draw(self, rng: np.random.Generator, profile: Profile) -> Subject:
        grade = None if profile.kl_grades is None else int(rng.choice(profile.kl_grades))
        subject = draw_subject(rng, kl_grade=grade, side=profile.side)
        return replace(subject, scale=subject.scale * profile.size, missing=profile.missing)

    def traits(self, subject: Subject) -> dict[str, float | str]:
        return {
            "kl_grade": float(subject.kl_grade),
            "side": subject.side,
            "sex": "male" if subject.is_male else "female",
            "scale": subject.scale,
            "num_lesions": float(len(subject.lesions)),
        }

    def scan(
        self, subject: Subject, protocol: str, shape: Shape, spacing_mm: Vector, rng: np.random.Generator
    ) -> tuple[Image, Labels]:
        anatomy = build_anatomy(subject, shape, spacing_mm)
        return render(anatomy, protocol, rng), anatomy.label_IJK
