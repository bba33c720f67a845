"""The leg around the joint: skin, fat, fascia, muscles and vessels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from raykd.data.phantom.implicit import Box, Field, Vector, capsule, coverage, step, superellipse
from raykd.data.phantom.knee.grid import KneeGrid
from raykd.data.phantom.knee.placement import Placement

Layers = Iterator[tuple[str, Box, Field]]

OUTLINE_Z_MM = (-75, -40, -12, 8, 35, 60, 90)
OUTLINE_ANTERIOR_MM = (36, 43, 56, 66, 75, 72, 74)
OUTLINE_POSTERIOR_MM = (-70, -64, -53, -50, -55, -64, -70)
OUTLINE_WIDTH_MM = (54, 53, 52, 53, 56, 60, 64)
SKIN_MM = 1.6


class Cone(NamedTuple):
    """A muscle belly or a vessel as a rounded cone."""

    start: Vector
    end: Vector
    radius_start: float
    radius_end: float
    moves_with_femur: bool = False


# Vastus medialis, vastus lateralis, rectus and intermedius; semimembranosus, biceps, semitendinosus; the heads of gastrocnemius,
# soleus, popliteus, tibialis anterior, peroneals.
MUSCLES = (
    Cone((34, 20, 100), (21, 40, 37), 27, 4, moves_with_femur=True),
    Cone((-34, 16, 100), (-22, 38, 47), 26, 4, moves_with_femur=True),
    Cone((0, 42, 112), (0, 45, 72), 20, 4, moves_with_femur=True),
    Cone((0, 26, 100), (0, 30, 66), 27, 15, moves_with_femur=True),
    Cone((26, -30, 95), (29, -25, 0), 15, 7),
    Cone((-26, -28, 95), (-33, -22, 2), 13, 6),
    Cone((8, -44, 95), (14, -36, 30), 9, 5),
    Cone((20, -22, 24), (24, -42, -75), 9, 19),
    Cone((-19, -22, 24), (-21, -40, -75), 9, 18),
    Cone((0, -22, -30), (0, -30, -80), 9, 21),
    Cone((8, -19, -10), (-14, -19, -22), 6, 6),
    Cone((-26, 8, -26), (-25, 6, -80), 7, 13),
    Cone((-33, -8, -30), (-33, -10, -80), 6, 10),
)
# Popliteal artery and vein.
VESSELS = (Cone((2, -31, 95), (0, -33, -45), 3.2, 3.2), Cone((-5, -36, 95), (-6, -38, -30), 2.8, 2.8))


def leg(grid: KneeGrid, placement: Placement) -> Layers:
    """Tissue, box and coverage of everything outside the joint, in painting order."""
    whole, voxel_mm, scale = grid.whole(), grid.mean_spacing_mm, grid.subject.scale
    outside = _skin_distance(grid)
    yield "skin", whole, coverage(outside, voxel_mm)
    yield "fat", whole, coverage(outside + SKIN_MM, voxel_mm)
    thinning = 0.45 + 0.55 * step(28 - grid.straight_axes[1], 9)  # little fat over the patella
    fascia = outside + SKIN_MM + grid.subject.fat_mm * thinning
    yield "ligament", whole, 0.55 * coverage(fascia, voxel_mm)
    yield "fat_pad", whole, coverage(fascia + 1.0, voxel_mm)
    yield from _muscles(grid, placement, coverage(fascia + 1.6, voxel_mm))
    for vessel in VESSELS:
        box = grid.around(vessel.start, vessel.end, 5)
        yield "vessel", box, coverage(capsule(grid.at(box), *vessel[:4]) * scale, voxel_mm)


def _skin_distance(grid: KneeGrid) -> Field:
    """Millimetres outside the skin, negative inside: a super-ellipse whose axes vary along the leg."""
    x, y, z = grid.straight_axes
    scale, extra = grid.subject.scale, (grid.subject.fat_mm - 9) * 0.8
    front, back, width = (
        np.interp(z, OUTLINE_Z_MM, outline).astype(np.float32) * scale
        for outline in (OUTLINE_ANTERIOR_MM, OUTLINE_POSTERIOR_MM, OUTLINE_WIDTH_MM)
    )
    radius_x, radius_y = width + extra, (front - back) / 2 + extra
    radius = superellipse(x / radius_x, (y - (front + back) / 2) / radius_y, 2.3)
    return (radius**2 - 1) * (radius_x + radius_y) * 0.5


def _muscles(grid: KneeGrid, placement: Placement, inside_fascia: Field) -> Layers:
    """Bellies with streaks of fat, then the fatty septa between them."""
    voxel_mm, scale, bulk = grid.mean_spacing_mm, grid.subject.scale, grid.subject.muscle
    muscle = np.zeros(grid.shape, np.float32)
    septa = []
    for cone in MUSCLES:
        box = grid.around(cone.start, cone.end, max(cone.radius_start, cone.radius_end) * bulk + 2)
        points = placement.femur_frame(grid.at(box)) if cone.moves_with_femur else grid.at(box)
        distance = capsule(points, cone.start, cone.end, cone.radius_start * bulk, cone.radius_end * bulk) * scale
        np.maximum(muscle[box], coverage(distance, voxel_mm), out=muscle[box])
        septa.append((box, 0.55 * coverage(np.abs(distance) - 0.35, voxel_mm)))
    muscle *= inside_fascia * (0.93 + 0.065 * np.minimum(grid.noise("fat-streaks", 3.5), 0))
    yield "muscle", grid.whole(), muscle
    for box, septum in septa:
        yield "fat_pad", box, septum * muscle[box]
