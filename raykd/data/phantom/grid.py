"""Where the voxels of a scan lie in the body of a subject, and smooth random fields over them."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from raykd.data.phantom.implicit import Box, Field, Points, Vector
from raykd.data.phantom.population import Subject
from raykd.numerics.rng import numpy_generator

CENTRE_MM = (0.0, 6.0, 9.0)
"""Body point (x, y, z) at the centre of a scan of an average subject."""
WARP_MM = 0.7
"""Standard deviation of the smooth displacement that makes one subject's bones differ from another's."""
HALF_EXTENT_MM = 130.0
# The integral of the squared cubic B-spline is 151/315: the variance that each axis leaves of a coefficient's.
SPLINE_SD = (151 / 315) ** 1.5


def centred_axes(shape: tuple[int, int, int], spacing_mm: Vector) -> list[Field]:
    """Voxel centres along I, J, K in mm, with the origin in the middle of the grid."""
    return [((np.arange(n) - (n - 1) / 2) * s).astype(np.float32) for n, s in zip(shape, spacing_mm, strict=True)]


def smooth_field(rng: np.random.Generator, axes_mm: list[Field], knot_mm: float) -> Field:
    """A random field of unit standard deviation: a cubic B-spline whose knots lie `knot_mm` apart.

    Knots are fixed in space, so that any two grids sample the same field.
    """
    num_intervals = math.ceil(2 * HALF_EXTENT_MM / knot_mm)
    knots = -HALF_EXTENT_MM + knot_mm * np.arange(-3, num_intervals + 4)
    values = rng.standard_normal((num_intervals + 3,) * 3, dtype=np.float32)
    for axis in axes_mm:
        weights = BSpline.design_matrix(np.clip(axis, -HALF_EXTENT_MM, HALF_EXTENT_MM), knots, 3).astype(np.float32)
        rows = weights @ values.reshape(values.shape[0], -1)
        values = np.moveaxis(rows.reshape(-1, *values.shape[1:]), 0, -1)
    return np.ascontiguousarray(values) * np.float32(1 / SPLINE_SD)


class Grid:
    """The voxels of a scan, seen from the body of a subject.

    Args:
        subject: whose pose, size and side say where each voxel lies.
        shape: number of voxels along I (right), J (anterior), K (superior).
        spacing_mm: voxel edges along I, J, K.

    Attributes:
        points: body coordinates (x medial, y anterior, z superior) of each voxel, in mm of an average adult.
        leg_axes: the same without pose and size, one broadcastable array an axis.
    """

    def __init__(self, subject: Subject, shape: tuple[int, int, int], spacing_mm: Vector):
        self.subject = subject
        self.shape = shape
        self.spacing_mm = spacing_mm
        self.mean_spacing_mm = sum(spacing_mm) / 3
        medial = -1 if subject.side == "right" else 1  # the right knee's medial side is to the patient's left
        i, j, k = centred_axes(shape, spacing_mm)
        self._field_axes = [medial * i, j, k]
        self._lines = [axis + np.float32(c) for axis, c in zip(self._field_axes, CENTRE_MM, strict=True)]
        x, y, z = self._lines
        self.leg_axes: Points = (x[:, None, None], y[None, :, None], z[None, None, :])
        rotation = Rotation.from_euler("xyz", subject.rotation_deg, degrees=True).as_matrix() / subject.scale
        self._to_body = np.diag([1 / subject.ml_aspect, 1.0, 1.0]) @ rotation
        self.points = self._body_points()

    def _body_points(self) -> Points:
        u, v, w = (axis - s for axis, s in zip(self.leg_axes, self.subject.shift_mm, strict=True))
        x, y, z = (
            u * a + v * b + w * c + WARP_MM * self.noise(f"warp-{axis}", 27.0)
            for axis, (a, b, c) in zip("xyz", self._to_body.tolist(), strict=True)
        )
        return x, y, z

    def noise(self, purpose: str, knot_mm: float) -> Field:
        """The subject's own smooth field of this purpose, with unit standard deviation."""
        return smooth_field(numpy_generator(self.subject.texture_seed, "phantom-field", purpose), self._field_axes, knot_mm)

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
        placed = corners @ np.linalg.inv(self._to_body).T + self.subject.shift_mm
        margin = 4 * WARP_MM
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
