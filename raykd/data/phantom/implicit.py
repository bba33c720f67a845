"""Bodies as implicit functions: negative inside, zero on the surface, about millimetres nearby.

Everything is float32 and takes points as three arrays (x, y, z) that broadcast against each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

Field = NDArray[np.floating]
Points = tuple[Field, Field, Field]
Vector = tuple[float, float, float]
Box = tuple[slice, slice, slice]


def step(values: Field, width: float) -> Field:
    """A smooth step from 0 to 1 where `values` rises through 0; `width` is in the units of `values`."""
    return expit(values * (1 / width))


def gaussian(distance: Field, sd: float) -> Field:
    """exp(-distance^2 / (2 sd^2))."""
    return np.exp(distance**2 * (-0.5 / sd**2))


def smooth_min(a: Field, b: Field, radius: float) -> Field:
    """Union of two bodies, blended where their fields differ by less than `radius` (polynomial smooth minimum, I. Quilez)."""
    h = np.clip(0.5 + (b - a) * (0.5 / radius), 0, 1)
    return b + (a - b) * h - radius * h * (1 - h)


def smooth_max(a: Field, b: Field, radius: float) -> Field:
    """Intersection of two bodies, blended like `smooth_min`."""
    return -smooth_min(-a, -b, radius)


def soft_union(fields: list[Field], softness: float) -> Field:
    """Union of many bodies at once: -k log sum exp(-f / k), with k = `softness` in mm."""
    total = np.zeros(np.broadcast_shapes(*(field.shape for field in fields)), np.float32)
    for field in fields:
        total += np.exp(np.clip(field * (-1 / softness), -30, 30))
    return -softness * np.log(np.maximum(total, 1e-12))


def ellipsoid(points: Points, centre: Vector, radii: Vector) -> Field:
    """Pseudo-distance to an ellipsoid."""
    u, v, w = (((p - c) * (1 / r)) ** 2 for p, c, r in zip(points, centre, radii, strict=True))
    return (np.sqrt(u + v + w) - 1) * min(radii)


def barrel(points: Points, centre: Vector, radii: Vector) -> Field:
    """Like an ellipsoid, but flat across x (|x|^4): the tread of a condyle."""
    u, v, w = (((p - c) * (1 / r)) ** 2 for p, c, r in zip(points, centre, radii, strict=True))
    return (np.sqrt(np.hypot(u, v + w)) - 1) * min(radii)


def superellipse(u: Field, v: Field, exponent: float) -> Field:
    """(|u|^n + |v|^n)^(1/n): 1 on the outline of a rounded rectangle."""
    return (np.abs(u) ** exponent + np.abs(v) ** exponent) ** (1 / exponent)


def capsule(points: Points, start: Vector, end: Vector, radius_start: float, radius_end: float, squash: float = 1.0) -> Field:
    """Distance to a rounded cone from `start` to `end`; `squash` < 1 widens it in x, as flat tendons are."""
    axis = [e - s for s, e in zip(start, end, strict=True)]
    px, py, pz = (p - s for p, s in zip(points, start, strict=True))
    along = np.clip((px * axis[0] + py * axis[1] + pz * axis[2]) * (1 / sum(a * a for a in axis)), 0, 1)
    square = ((px - along * axis[0]) * squash) ** 2 + (py - along * axis[1]) ** 2 + (pz - along * axis[2]) ** 2
    return np.sqrt(square) - (radius_start + along * (radius_end - radius_start))


def coverage(distance_mm: Field, width_mm: Field | float) -> Field:
    """Share of a voxel inside a body: anti-aliasing without supersampling, `width_mm` being the voxel's extent along the normal."""
    return np.clip(0.5 - distance_mm / width_mm, 0, 1)


def within(outer: Box, inner: Box) -> Box:
    """The slices that cut `inner` out of an array that holds `outer`."""
    i, j, k = (slice(b.start - a.start, b.stop - a.start) for a, b in zip(outer, inner, strict=True))
    return i, j, k


def overlap(a: Box, b: Box) -> Box:
    """The voxels that two boxes share."""
    starts = [max(p.start, q.start) for p, q in zip(a, b, strict=True)]
    i, j, k = (slice(s, max(s, min(p.stop, q.stop))) for s, p, q in zip(starts, a, b, strict=True))
    return i, j, k


@dataclass(frozen=True, eq=False)
class Surface:
    """A body's surface on a box of voxels.

    Attributes:
        box: the voxels.
        distance_mm: signed distance, negative inside, exact near the surface.
        width_mm: extent of a voxel along the normal.
        normal: outward unit vector along I, J, K.
    """

    box: Box
    distance_mm: Field
    width_mm: Field
    normal: Points

    def at(self, box: Box) -> Surface:
        """The same surface on a smaller box."""
        cut = within(self.box, box)
        i, j, k = (component[cut] for component in self.normal)
        return Surface(box, self.distance_mm[cut], self.width_mm[cut], (i, j, k))

    def coverage(self, offset_mm: Field | float = 0.0) -> Field:
        """Share of each voxel that lies within `offset_mm` outside the surface, or deeper."""
        return coverage(self.distance_mm - offset_mm, self.width_mm)


def surface(field: Field, box: Box, spacing_mm: Vector) -> Surface:
    """The surface of an implicit body: f / |grad f| turns any field into millimetres near its zero set."""
    kernel = np.array([-0.5, 0, 0.5], np.float32)
    slopes = [ndimage.correlate1d(field, kernel / np.float32(s), axis=axis, mode="nearest") for axis, s in enumerate(spacing_mm)]
    inverse = 1 / np.maximum(np.sqrt(slopes[0] ** 2 + slopes[1] ** 2 + slopes[2] ** 2), 0.15)
    i, j, k = (slope * inverse for slope in slopes)
    width = np.abs(i) * spacing_mm[0] + np.abs(j) * spacing_mm[1] + np.abs(k) * spacing_mm[2]
    return Surface(box, np.clip(field * inverse, -40, 40), np.maximum(width, 0.7 * min(spacing_mm)), (i, j, k))
