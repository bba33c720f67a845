"""Cartilage: 0 < distance to bone < thickness, where thickness = base x articular window x region x noise x lesions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raykd.data.phantom.implicit import Box, Field, Points, Surface, gaussian, step, within
from raykd.data.phantom.knee import bones
from raykd.data.phantom.knee.population import Subject

THINNEST_MM = 0.35


@dataclass(frozen=True, eq=False)
class Plate:
    """The cartilage that covers one bone.

    Attributes:
        bone: the surface it grows on.
        thickness_mm: at each voxel, along the bone's normal.
        coverage: share of each voxel, in [0, 1].
    """

    bone: Surface
    thickness_mm: Field
    coverage: Field

    @property
    def depth(self) -> Field:
        """0 at the bone, 1 at the joint surface."""
        return np.clip(self.bone.distance_mm / np.maximum(self.thickness_mm, 0.3), 0, 1)

    @property
    def gap_mm(self) -> Field:
        """Distance to the joint surface, outside the cartilage."""
        return np.maximum(self.bone.distance_mm - self.thickness_mm, 0)

    def at(self, box: Box) -> Plate:
        """The same plate on a smaller box."""
        cut = within(self.bone.box, box)
        return Plate(self.bone.at(box), self.thickness_mm[cut], self.coverage[cut])


def plate(bone: Surface, thickness_mm: Field) -> Plate:
    """The plate of this thickness; it ends where it would be thinner than `THINNEST_MM`."""
    return Plate(bone, thickness_mm, bone.coverage(thickness_mm) * (thickness_mm > THINNEST_MM))


def share_contact(femoral: Plate, tibial: Plate) -> tuple[Field, Field]:
    """Coverages of two plates on one box, where their overlap goes to the plate in which it lies relatively less deep."""
    depth_f, depth_t = (p.bone.distance_mm / np.maximum(p.thickness_mm, 0.05) for p in (femoral, tibial))
    both = np.minimum(femoral.coverage, tibial.coverage)
    to_tibia = step(depth_f - depth_t, 1 / 6)
    return np.clip(femoral.coverage - both * to_tibia, 0, 1), np.clip(tibial.coverage - both * (1 - to_tibia), 0, 1)


def femoral_thickness(points: Points, bone: Surface, subject: Subject) -> Field:
    """Thickness in mm: from the posterior condyles over the bearing surface to the top of the trochlea, thickest there.

    Args:
        points: femur-frame coordinates on the bone's box.
    """
    x, y, z = points
    angle = np.arctan2(y - 4, 22 - z)  # around the condylar axis: 0 is distal, positive to the front
    window = step(angle + 2.05, 1 / 7) * step(1.95 - angle, 1 / 7)
    window *= step(np.where(y > 22, np.float32(0.93), np.float32(0.70)) - np.abs(bone.normal[0]), 1 / 16)
    window *= step(bones.notch(points, subject) - 1.2, 1 / 2.2) * step(44 - z, 1 / 0.8) * (np.abs(x) < 37)
    region = 1 + 0.45 * np.exp(-(((y - 34) / 11) ** 2) - (x / 13) ** 2)
    region += 0.22 * np.exp(-(((y - 4) / 10) ** 2)) * (z < 16) - 0.10 * step(-8 - y, 4)
    return subject.femoral_mm * window * region * _wear(x, y, subject, is_femoral=True)


def plateau_radii(x: Field, y: Field) -> tuple[Field, Field]:
    """Relative distance from the centre of the medial and of the lateral plateau: 1 at the rim."""
    return np.hypot((x - 21) / 16.5, (y + 0.5) / 22), np.hypot((x + 21) / 16.0, (y + 2.5) / 19.5)


def tibial_thickness(points: Points, bone: Surface, subject: Subject) -> Field:
    """Thickness in mm of both tibial plates, thickest in the middle of each plateau and only where the bone faces upwards."""
    x, y, _ = points
    medial, lateral = plateau_radii(x, y)
    faces_up = step(bone.normal[2] - 0.6, 1 / 12)
    medial_mm = subject.medial_tibial_mm * step(1 - medial, 1 / 9) * (0.82 + 0.60 * np.exp(-((medial / 0.66) ** 2)))
    lateral_mm = subject.lateral_tibial_mm * step(1 - lateral, 1 / 9) * (0.76 + 0.72 * np.exp(-((lateral / 0.62) ** 2)))
    return np.maximum(medial_mm, lateral_mm) * faces_up * _wear(x, y, subject, is_femoral=False)


def patellar_thickness(points: Points, bone: Surface, subject: Subject) -> Field:
    """Thickness in mm on the two posterior facets, thickest at the ridge between them."""
    x, _, z = points
    window = step(-bone.normal[1] - 0.55, 1 / 12) * step(z - 22, 1 / 0.9) * step(1 - np.abs(x + 1.5) / 19, 1 / 12)
    return subject.patellar_mm * window * (0.78 + 0.4 * gaussian(x, 6.4))


def _wear(x: Field, y: Field, subject: Subject, *, is_femoral: bool) -> Field:
    """The share of thickness that the subject's defects leave."""
    left = np.ones(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for lesion in subject.lesions:
        if lesion.is_femoral if is_femoral else lesion.is_tibial:
            square = ((x - lesion.x_mm) ** 2 + (y - lesion.y_mm) ** 2) * (1 / lesion.radius_mm**2)
            left *= 1 - lesion.depth * np.exp(-(square**2))
    return left
