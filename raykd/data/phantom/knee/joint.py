"""What fills the joint: menisci, fluid, cruciate and collateral ligaments, tendons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from raykd.data.phantom.implicit import Box, Field, Points, Surface, Vector, capsule, coverage, gaussian, smooth_max, step
from raykd.data.phantom.knee import bones
from raykd.data.phantom.knee.cartilage import Plate, plateau_radii
from raykd.data.phantom.knee.grid import KneeGrid
from raykd.data.phantom.knee.placement import Placement
from raykd.data.phantom.knee.population import Subject


def menisci(points: Points, tibia: Surface, subject: Subject, voxel_mm: float) -> tuple[Field, Field]:
    """Coverage of the medial and the lateral meniscus: the wedge that the plates leave at the rim, open towards the spines.

    Args:
        points: body coordinates on the tibia's box.
        voxel_mm: mean voxel edge.
    """
    x, y, _ = points
    medial_width = 0.34 + 0.10 * step(-y - 4, 4)  # the medial horn is wider behind
    lateral_width = np.full_like(y, 0.44)
    medial = _meniscus(points, tibia, ((x - 21.5) / 17.0, (y + 0.5) / 22.5), medial_width)
    lateral = _meniscus(points, tibia, ((-x - 21) / 16.5, (y + 2.5) / 19.0), lateral_width)
    first, second = (coverage(wedge * subject.scale, voxel_mm) * window for wedge, window in (medial, lateral))
    return first, second


def _meniscus(points: Points, tibia: Surface, plane: tuple[Field, Field], width: Field) -> tuple[Field, Field]:
    """The wedge as an implicit function, and the window that opens the ring towards the spines."""
    z = points[2]
    radius, angle = np.hypot(*plane), np.arctan2(plane[1], plane[0])
    ramp = np.clip((radius - 1 + width) / width, 0, 1.1)
    ring = smooth_max((1 - width - radius) * 17, (radius - 1.06) * 17, 1.5)
    wedge = np.maximum(smooth_max(ring, tibia.distance_mm - (2.6 + 4.6 * ramp), 1.2), z - 11)
    return wedge, step(2.55 - np.abs(angle), 1 / 9) * (z > -6) * (tibia.normal[2] > -0.2)


def tibiofemoral_film(points: Points, femoral: Plate, tibial: Plate, effusion: float) -> Field:
    """Coverage of the fluid between the plates."""
    x, y, z = points
    slack = femoral.gap_mm + tibial.gap_mm
    core = step(0.72 - np.minimum(*plateau_radii(x, y)), 1 / 14) * (slack < 4) * np.float32(0.75)  # never fat between the plates
    return 0.85 * np.maximum(coverage(slack - (0.7 + 0.5 * effusion), 1.2), core) * (np.abs(x) < 35) * (z > -6)


def patellofemoral_film(points: Points, femoral: Plate, patellar: Plate, effusion: float) -> Field:
    """Coverage of the fluid between patella and trochlea."""
    return 0.95 * coverage(femoral.gap_mm + patellar.gap_mm - (0.6 + 0.5 * effusion), 1.2) * (points[2] < 58)


def suprapatellar_bursa(points: Points, femur: Surface, effusion: float, voxel_mm: float) -> Field:
    """Coverage of the pouch above the trochlea, which swells with the effusion."""
    x, y, z = points
    sheet = np.abs(femur.distance_mm - (2.6 + 0.8 * effusion)) - (0.3 + 1.5 * effusion * gaussian(z - 52, 7.1))
    pouch = smooth_max(sheet, np.abs(x) - (22 + 3 * effusion), 3)
    pouch = smooth_max(pouch, np.abs(z - 47) - (17 + 3 * effusion), 4)
    return coverage(smooth_max(pouch, 22 - y, 4), voxel_mm)


class Cord(NamedTuple):
    """A ligament or tendon: a rounded cone from `start` to `end`, flattened in x by `squash`."""

    tissue: str
    start: Vector
    end: Vector
    radius_start: float
    radius_end: float
    squash: float
    is_patellar_start: bool = False


# Anterior and (two parts of) posterior cruciate, medial and lateral collateral ligament, patellar and quadriceps tendon.
CORDS = (
    Cord("ligament", (-6, -9, 19), (4, 9, 4), 4.2, 4.0, 1),
    Cord("ligament", (6, 4, 14), (2, -15, 11), 4.5, 4.5, 1),
    Cord("ligament", (2, -15, 11), (0, -27, -6), 4.5, 4.2, 1),
    Cord("ligament", (40.5, 4, 28), (38, 5, -32), 1.5, 1.4, 0.8),
    Cord("ligament", (-40, 0, 26), (-38, -17, -14), 1.8, 1.8, 1),
    Cord("tendon", (-1, 54.5, 21), (-1, 27.5, -31), 2.9, 2.9, 0.23, is_patellar_start=True),
    Cord("tendon", (-1, 59, 54), (-1, 51, 102), 3.0, 3.4, 0.21, is_patellar_start=True),
)

REPAIRED_TENDON = Cord("tendon", (-1, 59, 54), (-1, 54.5, 21), 3.0, 2.9, 0.22)
"""Quadriceps and patellar tendon, sewn together where the patella was taken out."""


def cords(grid: KneeGrid, placement: Placement) -> Iterator[tuple[str, Box, Field]]:
    """Tissue, box and coverage of the synovial tissue of the notch, then of every ligament and tendon in it."""
    box = grid.box((-20, -42, -12), (20, 28, 48))
    points = grid.at(box)
    filling = smooth_max(smooth_max(bones.notch(points, grid.subject), -24 - points[1], 6), points[2] - 26, 6)
    yield "synovium", box, 0.7 * coverage(filling, 8)
    for cord in (*CORDS, *((REPAIRED_TENDON,) if "patella" in grid.subject.missing else ())):
        x, y, z = cord.start
        start = (x, y + placement.patella_y_mm * cord.is_patellar_start, z)
        reach = max(cord.radius_start, cord.radius_end) / cord.squash + 2
        box = grid.around(start, cord.end, reach)
        field = capsule(grid.at(box), start, cord.end, cord.radius_start, cord.radius_end, cord.squash)
        share = 0.9 if cord.tissue == "tendon" else 0.8
        yield cord.tissue, box, share * coverage(field * grid.subject.scale, grid.mean_spacing_mm)
