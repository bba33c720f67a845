"""Who is scanned: the size, alignment, cartilage and disease of one knee, drawn from a population."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from raykd.data.phantom.family import Side
from raykd.data.phantom.implicit import Vector

KL_WEIGHTS = (0.35, 0.20, 0.20, 0.17, 0.08)
"""Share of the Kellgren-Lawrence grades 0 to 4."""


@dataclass(frozen=True)
class Lesion:
    """A focal cartilage defect at (x, y) of the joint surface; `depth` is the share of the thickness lost at its centre."""

    x_mm: float
    y_mm: float
    radius_mm: float
    depth: float
    is_femoral: bool
    is_tibial: bool


@dataclass(frozen=True)
class Osteophyte:
    """A bony spur at the joint margin; below z = 2 mm it grows on the tibia, else on the femur."""

    centre_mm: Vector
    radius_mm: float


@dataclass(frozen=True)
class Subject:
    """One knee. Lengths hold for `scale` 1, an average adult; the body frame is x medial, y anterior, z superior.

    Attributes:
        is_male, side, kl_grade: kl_grade is 0 (healthy) to 4 (severe osteoarthritis).
        scale, ml_aspect: overall size, and width over depth, relative to the average.
        hka_deg: hip-knee-ankle angle, varus negative; flexion_deg, tibial_slope_deg: pose and slope.
        notch_mm, groove_mm: half width of the intercondylar notch, depth of the trochlear groove.
        femoral_mm, medial_tibial_mm, lateral_tibial_mm, patellar_mm: cartilage thickness.
        fat_mm, muscle, effusion, red_marrow: subcutaneous fat; muscle bulk, joint fluid and red marrow without unit.
        shift_mm, rotation_deg: pose in the coil.
        lesions, osteophytes: what disease has done.
        texture_seed: address of the smooth random fields that make its shape its own.
        missing: the patella or a meniscus, where it was taken out.
    """

    is_male: bool
    side: Side
    kl_grade: int
    scale: float
    ml_aspect: float
    hka_deg: float
    flexion_deg: float
    tibial_slope_deg: float
    notch_mm: float
    groove_mm: float
    femoral_mm: float
    medial_tibial_mm: float
    lateral_tibial_mm: float
    patellar_mm: float
    fat_mm: float
    muscle: float
    effusion: float
    red_marrow: float
    shift_mm: Vector
    rotation_deg: Vector
    lesions: tuple[Lesion, ...]
    osteophytes: tuple[Osteophyte, ...]
    texture_seed: int
    missing: frozenset[str] = frozenset()


def draw_subject(rng: np.random.Generator, *, kl_grade: int | None = None, side: Side | None = None) -> Subject:
    """Draws one knee; bone sizes and cartilage volumes are calibrated against 68 real label maps.

    Args:
        rng: the subject is a function of its state.
        kl_grade: 0 to 4; None: drawn with `KL_WEIGHTS`.
        side: None: either with equal probability.
    """
    is_male = bool(rng.random() < 0.5)
    grade = int(rng.choice(5, p=KL_WEIGHTS))
    drawn_side: Side = "right" if rng.random() < 0.5 else "left"
    grade = grade if kl_grade is None else kl_grade
    varus = -1.2 * rng.normal(1, 0.8) * (grade >= 2)
    shared_thickness = rng.normal(0, 0.15)
    return Subject(
        is_male=is_male,
        side=side or drawn_side,
        kl_grade=grade,
        scale=_clipped(rng.normal(1.05 if is_male else 0.95, 0.04), 0.84, 1.18),
        ml_aspect=_clipped(rng.normal(1, 0.03), 0.9, 1.1),
        hka_deg=_clipped(rng.normal(0, 1.6) + varus, -8, 6),
        flexion_deg=_clipped(rng.normal(4, 3), -1, 12),
        tibial_slope_deg=_clipped(rng.normal(5, 2), -1, 11),
        notch_mm=_clipped(rng.normal(10, 1), 7, 13),
        groove_mm=_clipped(rng.normal(5.5, 1), 2.5, 8.5),
        femoral_mm=2.02 * math.exp(shared_thickness + rng.normal(0, 0.06)),
        medial_tibial_mm=1.95 * math.exp(shared_thickness + rng.normal(0, 0.08)),
        lateral_tibial_mm=2.35 * math.exp(shared_thickness + rng.normal(0, 0.08)),
        patellar_mm=2.45 * math.exp(shared_thickness + rng.normal(0, 0.12)),
        fat_mm=_clipped(rng.lognormal(math.log(8 if is_male else 11), 0.3), 4, 20),
        muscle=_clipped(rng.normal(1.06 if is_male else 0.95, 0.06), 0.75, 1.25),
        effusion=_clipped(rng.gamma(1.5, 0.35) + 0.3 * (grade >= 3), 0, 2.2),
        red_marrow=_clipped(rng.normal(0.15 if is_male else 0.3, 0.12), 0, 0.6),
        shift_mm=_vector(rng.normal(0, 2.5, 3)),
        rotation_deg=_vector(rng.normal(0, 2.5, 3)),
        texture_seed=int(rng.integers(2**31)),
        lesions=_draw_lesions(rng, grade),  # last: a given grade changes the disease of a knee and nothing else but its alignment
        osteophytes=_draw_osteophytes(rng, grade),
    )


def _clipped(value: float, low: float, high: float) -> float:
    return float(min(max(value, low), high))


def _vector(values: np.ndarray) -> Vector:
    x, y, z = values.tolist()
    return x, y, z


def _draw_lesions(rng: np.random.Generator, grade: int) -> tuple[Lesion, ...]:
    """Defects grow in number and depth with the grade; 70 % are medial."""
    return tuple(_draw_lesion(rng, grade) for _ in range(rng.poisson(0.8 * (0, 1, 2, 4, 6)[grade])))


def _draw_lesion(rng: np.random.Generator, grade: int) -> Lesion:
    sign = 1 if rng.random() < 0.7 else -1
    where = int(rng.integers(3))
    return Lesion(
        x_mm=sign * float(rng.uniform(12, 30)),
        y_mm=float(rng.uniform(-14, 14)),
        radius_mm=float(rng.uniform(4, 9)),
        depth=min(1.0, float(rng.uniform(0.35, 0.7)) + 0.12 * grade),
        is_femoral=where != 1,
        is_tibial=where != 0,
    )


def _draw_osteophytes(rng: np.random.Generator, grade: int) -> tuple[Osteophyte, ...]:
    return tuple(_draw_osteophyte(rng, grade) for _ in range(rng.poisson(2.2 * max(0, grade - 1))))


def _draw_osteophyte(rng: np.random.Generator, grade: int) -> Osteophyte:
    sign = 1 if rng.random() < 0.5 else -1
    z_mm = rng.uniform(-4, -1) if rng.random() < 0.6 else rng.uniform(10, 16)
    centre = (sign * float(rng.uniform(34, 38)), float(rng.uniform(-16, 16)), float(z_mm))
    return Osteophyte(centre, float(rng.uniform(1.5, 2.2)) + 0.9 * grade)
