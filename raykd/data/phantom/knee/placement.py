"""Puts femur and patella where their cartilage just touches the other plate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from raykd.data.phantom.implicit import Field, Points, Surface, surface
from raykd.data.phantom.knee import bones
from raykd.data.phantom.knee.population import Subject

LATTICE_MM = (3.0, 2.6, 2.6)
PIVOT_Z_MM = 20.0


@dataclass(frozen=True)
class Placement:
    """Where the femur and the patella lie.

    Attributes:
        femur_z_mm: the femur's height above its own frame.
        varus_deg: its tilt in the frontal plane.
        flexion_deg: its tilt in the sagittal plane.
        patella_y_mm: the patella's shift to the front.
    """

    femur_z_mm: float
    varus_deg: float
    flexion_deg: float
    patella_y_mm: float = 0.0

    def femur_frame(self, points: Points) -> Points:
        """Body coordinates as the femur sees them."""
        x, y, z = points
        h = z - (self.femur_z_mm + PIVOT_Z_MM)
        c, s = math.cos(math.radians(self.varus_deg)), math.sin(math.radians(self.varus_deg))
        x, h = c * x - s * h, s * x + c * h
        c, s = math.cos(math.radians(self.flexion_deg)), math.sin(math.radians(self.flexion_deg))
        return x, c * y + s * h, c * h - s * y + PIVOT_Z_MM


def place(subject: Subject) -> Placement:
    """The placement whose narrowest gaps equal the cartilage thickness, in the medial, lateral and patellofemoral joint.

    The gap of two bodies is the minimum of the sum of their distances over the sheet between them. A few corrections on a
    3 mm lattice settle it to 0.1 mm, whatever grid is drawn later.
    """
    placement = _place_femur(subject)
    points = _lattice((-34.5, 35), (-34.0, 64.0), (-4.0, 70.0))
    femur = _on_lattice(bones.femur(placement.femur_frame(points), subject))
    wanted = (subject.patellar_mm + 0.9 * subject.femoral_mm + 0.4) / subject.scale
    shift = 0.0
    for _ in range(2):
        gap = float(_gaps(femur, _on_lattice(bones.patella(points, shift))).min())
        shift += min(max(wanted - gap, -8.0), 8.0)
    return Placement(placement.femur_z_mm, placement.varus_deg, placement.flexion_deg, shift)


def _place_femur(subject: Subject) -> Placement:
    points = _lattice((-46.5, 47), (-15.0, 14.0), (-40.0, 41.0))
    x, y, _ = points
    tibia = _on_lattice(bones.tibia(points, subject))
    is_loaded = np.abs(y + 1) < 13
    wanted = _joint_space(subject, subject.medial_tibial_mm, 1), _joint_space(subject, subject.lateral_tibial_mm, -1)
    height, varus = 4.0, 0.0
    for _ in range(4):
        placement = Placement(height, varus, subject.flexion_deg)
        gaps = _gaps(tibia, _on_lattice(bones.femur(placement.femur_frame(points), subject)))
        medial, lateral = (
            want - float(gaps[is_loaded & (side * x > 13) & (side * x < 31)].min())
            for want, side in zip(wanted, (1, -1), strict=True)
        )
        height += min(max((medial + lateral) / 2, -6.0), 6.0)
        varus -= min(max(math.degrees((medial - lateral) / 44), -3.0), 3.0)
    return Placement(height, varus, subject.flexion_deg)


def _joint_space(subject: Subject, tibial_mm: float, side: int) -> float:
    """Joint space of one compartment; defects narrow it."""
    lost = sum(lesion.depth for lesion in subject.lesions if lesion.x_mm * side > 0)
    return (0.93 * (0.95 * subject.femoral_mm + tibial_mm) * (1 - 0.25 * min(1.6, lost)) + 0.3) / subject.scale


def _lattice(*ranges: tuple[float, float]) -> Points:
    lines = [np.arange(low, high, step, dtype=np.float32) for (low, high), step in zip(ranges, LATTICE_MM, strict=True)]
    x, y, z = np.meshgrid(*lines, indexing="ij")
    return x, y, z


def _on_lattice(field: Field) -> Surface:
    i, j, k = (slice(0, n) for n in field.shape)
    return surface(field, (i, j, k), LATTICE_MM)


def _gaps(a: Surface, b: Surface) -> Field:
    """Sum of the distances to two bodies, on the sheet halfway between them; far away pseudo-distances mislead."""
    return np.where(np.abs(a.distance_mm - b.distance_mm) < 2.5, a.distance_mm + b.distance_mm, np.float32(99))
