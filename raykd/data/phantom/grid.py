"""Where the voxels of a scan lie in what is scanned, and smooth random fields over them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from raykd.data.phantom.implicit import Box, Field, Points, Vector
from raykd.numerics.rng import numpy_generator

HALF_EXTENT_MM = 130.0
# The integral of the squared cubic B-spline is 151/315: the variance that each axis leaves of a coefficient's.
SPLINE_SD = (151 / 315) ** 1.5


def centred_axes(shape: tuple[int, int, int], spacing_mm: Vector) -> list[Field]:
    """Voxel centres along I, J, K in mm, with the origin in the middle of the grid."""
    return [((np.arange(n) - (n - 1) / 2) * s).astype(np.float32) for n, s in zip(shape, spacing_mm, strict=True)]


def smooth_field(rng: np.random.Generator, axes_mm: list[Field], knot_mm: float, half_extent_mm: float = HALF_EXTENT_MM) -> Field:
    """A random field of unit standard deviation: a cubic B-spline whose knots lie `knot_mm` apart.

    Knots are fixed in space, so that any two grids sample the same field, which is constant beyond `half_extent_mm`.
    """
    num_intervals = math.ceil(2 * half_extent_mm / knot_mm)
    knots = -half_extent_mm + knot_mm * np.arange(-3, num_intervals + 4)
    values = rng.standard_normal((num_intervals + 3,) * 3, dtype=np.float32)
    for axis in axes_mm:
        weights = BSpline.design_matrix(np.clip(axis, -half_extent_mm, half_extent_mm), knots, 3).astype(np.float32)
        rows = weights @ values.reshape(values.shape[0], -1)
        values = np.moveaxis(rows.reshape(-1, *values.shape[1:]), 0, -1)
    return np.ascontiguousarray(values) * np.float32(1 / SPLINE_SD)


@dataclass(frozen=True)
class Pose:
    """How what is scanned lies in the scanner, and how large it is.

    Attributes:
        scale, aspect: overall size, and the size along x besides, relative to the average.
        shift_mm, rotation_deg: away from the middle of the scanner, and about its three axes.
        texture_seed: address of the smooth random fields that make its shape its own.
        is_mirrored: x points to the patient's left, not right.
        centre_mm: body point at the centre of a scan of an average subject.
        warp_mm, warp_knot_mm: standard deviation and coarseness of a smooth displacement that makes each shape its own.
        half_extent_mm: how far from the centre the random fields reach.
    """

    scale: float
    shift_mm: Vector
    rotation_deg: Vector
    texture_seed: int
    aspect: float = 1.0
    is_mirrored: bool = False
    centre_mm: Vector = (0.0, 0.0, 0.0)
    warp_mm: float = 0.7
    warp_knot_mm: float = 27.0
    half_extent_mm: float = HALF_EXTENT_MM


class Grid:
    """The voxels of a scan, seen from what is scanned.

    Args:
        pose: says where each voxel lies.
        shape: number of voxels along I (right), J (anterior), K (superior).
        spacing_mm: voxel edges along I, J, K.

    Attributes:
        points: body coordinates (x, y anterior, z superior) of each voxel, in mm of the average subject.
        straight_axes: the same without pose and size, one broadcastable array an axis.
    """

    def __init__(self, pose: Pose, shape: tuple[int, int, int], spacing_mm: Vector):
        self.pose = pose
        self.shape = shape
        self.spacing_mm = spacing_mm
        self.mean_spacing_mm = sum(spacing_mm) / 3
        i, j, k = centred_axes(shape, spacing_mm)
        self._field_axes = [(-1 if pose.is_mirrored else 1) * i, j, k]
        self._lines = [axis + np.float32(c) for axis, c in zip(self._field_axes, pose.centre_mm, strict=True)]
        x, y, z = self._lines
        self.straight_axes: Points = (x[:, None, None], y[None, :, None], z[None, None, :])
        rotation = Rotation.from_euler("xyz", pose.rotation_deg, degrees=True).as_matrix() / pose.scale
        self._to_body = np.diag([1 / pose.aspect, 1.0, 1.0]) @ rotation
        self.points = self._body_points()

    def _body_points(self) -> Points:
        u, v, w = (axis - s for axis, s in zip(self.straight_axes, self.pose.shift_mm, strict=True))
        x, y, z = (
            u * a + v * b + w * c + self.pose.warp_mm * self.noise(f"warp-{axis}", self.pose.warp_knot_mm)
            for axis, (a, b, c) in zip("xyz", self._to_body.tolist(), strict=True)
        )
        return x, y, z

    def noise(self, purpose: str, knot_mm: float) -> Field:
        """The subject's own smooth field of this purpose, with unit standard deviation."""
        rng = numpy_generator(self.pose.texture_seed, "phantom-field", purpose)
        return smooth_field(rng, self._field_axes, knot_mm, self.pose.half_extent_mm)

    def at(self, box: Box) -> Points:
        """Body coordinates on a box."""
        x, y, z = self.points
        return x[box], y[box], z[box]

    def whole(self) -> Box:
        """All voxels."""
        i, j, k = (slice(0, n) for n in self.shape)
        return i, j, k

    def box(self, low: Vector, high: Vector) -> Box:
        """The smallest box of voxels that holds the body-frame cuboid from `low` to `high`; may be empty."""
        corners = np.array(list(product(*zip(low, high, strict=True))))
        placed = corners @ np.linalg.inv(self._to_body).T + self.pose.shift_mm
        margin = 4 * self.pose.warp_mm
        slices = []
        for line, coordinate in zip(self._lines, placed.T, strict=True):
            inside = np.flatnonzero((line > coordinate.min() - margin) & (line < coordinate.max() + margin))
            slices.append(slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0))
        i, j, k = slices
        return i, j, k

    def around(self, start: Vector, end: Vector, reach_mm: float) -> Box:
        """The box around everything within `reach_mm` of the line from `start` to `end`."""
        (x0, x1), (y0, y1), (z0, z1) = (sorted(pair) for pair in zip(start, end, strict=True))
        return self.box((x0 - reach_mm, y0 - reach_mm, z0 - reach_mm), (x1 + reach_mm, y1 + reach_mm, z1 + reach_mm))
