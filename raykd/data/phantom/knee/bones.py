"""Femur, tibia, patella and fibula as implicit functions of body coordinates (mm of an average adult).

The origin lies in the middle of the tibial plateau; x is medial, y anterior, z superior. The femur has its own frame, which
`placement` moves until the joint space fits the cartilage.
"""

from __future__ import annotations

import math

import numpy as np

from raykd.data.phantom.implicit import (
    Field,
    Points,
    barrel,
    capsule,
    ellipsoid,
    gaussian,
    smooth_max,
    smooth_min,
    soft_union,
    step,
    superellipse,
)
from raykd.data.phantom.knee.population import Subject

PATELLA_Y_MM = 55.0


def notch(points: Points, subject: Subject) -> Field:
    """The intercondylar notch: an arch under Blumensaat's line, open below and behind."""
    x, y, z = points
    roof = np.minimum(27.55 - 0.95 * y, 44)
    half_width = subject.notch_mm * (1 + 0.12 * step(-y - 6, 4))
    arch = (np.hypot(x / half_width, np.maximum(z - (roof - 9), 0) / 11) - 1) * 9
    return smooth_max(arch, z - roof, 3)


def femur(points: Points, subject: Subject) -> Field:
    """Two condyles, epicondyles, trochlea and shaft, less the notch and the trochlear groove."""
    x, y, _ = points
    parts = [part for side in (1, -1) for part in _femoral_side(points, side)]
    parts += [ellipsoid(points, (0, 19, 30.5), (18, 18.5, 20)), _femoral_shaft(points, subject)]
    body = smooth_max(soft_union(parts, 1.9), -notch(points, subject), 2.5)
    groove = np.hypot(x / 1.35, y - 49.5) - (5.7 + subject.groove_mm)
    return smooth_max(body, -groove, 4)


def _femoral_side(points: Points, side: int) -> list[Field]:
    """Posterior condyle, distal condyle, epicondyle and trochlear ridge; the lateral side (-1) is wider and its ridge higher."""
    is_medial = side > 0
    width = 13.6 if is_medial else 14.4
    ridge_y, ridge_depth = (24.5, 15.5) if is_medial else (26.0, 16.5)
    return [
        ellipsoid(points, (side * 24.5, -6.5, 22.0), (width + 0.4, 18.5, 19.0)),
        barrel(points, (side * 22.3, 10.5, 24.0), (width + 1.2, 23.6, 20.6)),
        ellipsoid(points, (side * 31.5, 4.0, 31.0), (9.6, 15, 15)),
        ellipsoid(points, (side * 16.5, ridge_y, 32.5), (12.8, ridge_depth, 17)),
    ]


def _femoral_shaft(points: Points, subject: Subject) -> Field:
    """A super-ellipse lofted from metaphysis to shaft, tilted by the anatomic valgus (5.5 degrees) and the hip-knee-ankle angle."""
    x, y, z = points
    tilted = x + math.tan(math.radians(5.5 + subject.hka_deg)) * (z - 40)
    radius_x = 20.5 + 16 * step(51 - z, 8)
    radius_y = 15 + 9 * step(47 - z, 7)
    centre_y = 13 + 5 * step(z - 46, 9)
    return np.maximum((superellipse(tilted / radius_x, (y - centre_y) / radius_y, 2.6) - 1) * 17, 28 - z)


def tibial_plateau(x: Field, y: Field, subject: Subject) -> Field:
    """Height of the plateau: slope, medial dish, lateral dome and the two spines."""
    height = math.tan(math.radians(subject.tibial_slope_deg)) * y - 0.8
    height = height - 1.6 * gaussian(np.hypot(x - 21, y), 13)
    height = height + 0.7 * gaussian(np.hypot(x + 21, y + 2), 12)
    return height + 8.5 * gaussian(np.hypot((np.abs(x) - 4) / 4, (y + 1) / 8), 1)


def tibia(points: Points, subject: Subject) -> Field:
    """A lofted super-ellipse with tuberosity and posterior notch, cut by the plateau."""
    x, y, z = points
    radius_x = 11.5 + 30.5 * step(z + 34, 13)
    radius_y = 12 + 17 * step(z + 30, 11)
    centre_y = 2 - 2.5 * step(z + 24, 8)
    body = (superellipse(x / radius_x, (y - centre_y) / radius_y, 2.4) - 1) * 17
    body = smooth_min(body, ellipsoid(points, (-1, 18.5, -31), (9.5, 10, 16)), 6)
    body = smooth_max(body, -capsule(points, (0, -31, 5), (0, -29, -12), 5, 5), 5)
    return smooth_max(body, z - tibial_plateau(x, y, subject), 3.5)


def patella(points: Points, shift_mm: float) -> Field:
    """An ellipsoid cut by two posterior facets that meet in a ridge; `shift_mm` moves it forwards."""
    x, y, _ = points
    centre_y = PATELLA_Y_MM + shift_mm
    body = ellipsoid(points, (-1.5, centre_y, 36.5), (22.8, 12.8, 21.8))
    return smooth_max(body, centre_y - 9.2 + 0.34 * np.abs(x) - y, 3)


def fibula(points: Points) -> Field:
    """Head and shaft."""
    head = capsule(points, (-36, -17, -17), (-35, -18, -24), 8, 7)
    return smooth_min(head, capsule(points, (-35, -18, -24), (-33, -15, -95), 6.2, 6.2), 4)
