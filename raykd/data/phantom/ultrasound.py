"""One lobe of the thyroid as a freehand sweep of an ultrasound probe sees it: gland, nodules, great vessels of the neck, windpipe.

Body coordinates in mm of an average adult: x away from the midline (mirrored on the left), y anterior with the skin at 0, so that a
depth of d is y = -d, z superior; the origin lies in the middle of the sweep.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from raykd.data.phantom.family import Family, Image, Labels, Profile, Shape, Side
from raykd.data.phantom.grid import Grid, Pose
from raykd.data.phantom.implicit import Box, Field, Vector, capsule, coverage, ellipsoid, smooth_max, smooth_min
from raykd.data.phantom.scene import Part, label_map
from raykd.data.phantom.ultrasound_scan import PROTOCOLS, acquire

LABELS = {"thyroid_parenchyma": 1, "nodule": 2, "carotid_artery": 3, "jugular_vein": 4, "trachea": 5}
LOBE = ((5.0, -19.0, 0.0), (9.2, 8.6, 25.0))
LONG_MM = 300.0
"""Half length of what runs through the whole sweep."""


@dataclass(frozen=True)
class Nodule:
    """A nodule of the thyroid: solid, a cyst, or solid with a calcification that throws a shadow."""

    kind: str
    centre_mm: Vector
    radii_mm: Vector


@dataclass(frozen=True)
class Neck:
    """One side of a neck.

    Attributes:
        fat_mm: subcutaneous fat.
        vein_mm: half widths of the jugular vein, which the probe flattens.
        nodules: of the lobe.
    """

    is_male: bool
    side: Side
    severity: float
    pose: Pose
    fat_mm: float
    vein_mm: tuple[float, float]
    nodules: tuple[Nodule, ...]
    missing: frozenset[str]


class Ultrasound(Family[Neck]):
    """A lobe of the thyroid on 3D ultrasound."""

    structures = {**{name: (label,) for name, label in LABELS.items()}, "thyroid": (1, 2)}
    protocols = tuple(PROTOCOLS)
    spacing_mm = (0.4, 0.3, 0.9)
    field_of_view_mm = (51.2, 38.4, 57.6)
    field_limits_mm = (20.0, 120.0)
    removable = ("thyroid", "nodule", "jugular_vein")
    has_sides = True

    def draw(self, rng: np.random.Generator, profile: Profile) -> Neck:
        is_male = bool(rng.random() < 0.5)
        drawn: Side = "right" if rng.random() < 0.5 else "left"
        side = profile.side or drawn
        x, z = rng.normal(0, (1.5, 2.5)).tolist()
        a, b, c = rng.normal(0, (2.0, 3.0, 3.0)).tolist()
        pose = Pose(
            scale=profile.size * float(np.clip(rng.normal(1.04 if is_male else 0.96, 0.05), 0.82, 1.2)),
            shift_mm=(x, 0.0, z),  # the probe lies on the skin
            rotation_deg=(a, b, c),
            texture_seed=int(rng.integers(2**31)),
            is_mirrored=side == "left",
            warp_mm=0.5,
            warp_knot_mm=12.0,
            half_extent_mm=65.0,
        )
        return Neck(
            is_male=is_male,
            side=side,
            severity=profile.severity,
            pose=pose,
            fat_mm=float(np.clip(rng.normal(2.6, 0.7), 1.2, 5)),
            vein_mm=(float(rng.uniform(4.5, 7.0)), float(rng.uniform(2.0, 4.0))),
            missing=profile.missing,
            nodules=() if profile.missing & {"nodule", "thyroid"} else _draw_nodules(rng, profile.severity),
        )

    def traits(self, subject: Neck) -> dict[str, float | str]:
        return {
            "side": subject.side,
            "sex": "male" if subject.is_male else "female",
            "scale": subject.pose.scale,
            "severity": subject.severity,
            "num_nodules": float(len(subject.nodules)),
        }

    def scan(
        self, subject: Neck, protocol: str, shape: Shape, spacing_mm: Vector, rng: np.random.Generator
    ) -> tuple[Image, Labels]:
        centre = (5.0, -shape[1] * spacing_mm[1] / 2, 0.0)  # the skin lies at the front of the scan, however deep it is
        grid = Grid(replace(subject.pose, centre_mm=centre), shape, spacing_mm)
        parts = list(_parts(grid, subject))
        image, is_seen = acquire(parts, PROTOCOLS[protocol], grid, rng)
        return image, label_map(parts, shape) * is_seen


def _draw_nodules(rng: np.random.Generator, severity: float) -> tuple[Nodule, ...]:
    """Nodules grow in number and size with the severity; a third are cysts, a fifth calcified."""
    return tuple(_draw_nodule(rng, severity) for _ in range(rng.poisson(3 * severity)))


def _draw_nodule(rng: np.random.Generator, severity: float) -> Nodule:
    kind = str(rng.choice(("solid", "cyst", "calcified"), p=(0.47, 0.33, 0.2)))
    direction = rng.standard_normal(3)
    reach = 0.55 * rng.random() ** (1 / 3) / np.linalg.norm(direction)
    x, y, z = (float(c + r * d * reach) for c, r, d in zip(*LOBE, direction.tolist(), strict=True))
    radius = float(np.clip(rng.lognormal(math.log(2.2 + 3.2 * severity), 0.3), 1.2, 8.5))
    a, b, c = (radius * rng.uniform(0.8, 1.2, 3)).tolist()
    return Nodule(kind, (x, y, z), (a, b, c))


def _parts(grid: Grid, neck: Neck) -> Iterator[Part]:
    """All that a sweep meets, in painting order."""
    whole, voxel_mm = grid.whole(), grid.mean_spacing_mm / 2
    depth = -grid.straight_axes[1] + 0.25 * grid.noise("layers", 14.0)
    yield Part("connective", whole, np.ones(grid.shape, np.float32))
    yield Part("skin", whole, coverage(depth - 1.4, voxel_mm))
    yield Part("fat", whole, coverage(np.abs(depth - 1.4 - neck.fat_mm / 2) - neck.fat_mm / 2, voxel_mm))
    yield from _muscles(grid, neck)
    yield Part("bone", whole, coverage(40 + 2.5 * np.cos(grid.points[2] * (2 * math.pi / 18)) - depth, voxel_mm))
    yield from _windpipe(grid)
    if "thyroid" not in neck.missing:
        yield from _gland(grid, neck)
    yield from _vessels(grid, neck)


def _muscles(grid: Grid, neck: Neck) -> Iterator[Part]:
    """Strap muscles, sternocleidomastoid, longus colli and scalene, each in a bright fascia."""
    top = -2.4 - neck.fat_mm
    bellies: list[tuple[Vector, Vector]] = [
        ((0, top - 2.2, 0), (16, 1.6, LONG_MM)),
        ((4, top - 5.2, 0), (14, 1.7, LONG_MM)),
        ((26, top - 4.2, 0), (15, 4.3, LONG_MM)),
        ((8, -34, 0), (13, 4.6, LONG_MM)),
        ((33, -32, 0), (12, 8, LONG_MM)),
    ]
    for centre, radii in bellies:
        belly = ellipsoid(grid.points, centre, radii) * grid.pose.scale
        yield Part("fascia", grid.whole(), coverage(belly, grid.mean_spacing_mm))
        yield Part("muscle", grid.whole(), coverage(belly + 0.5, grid.mean_spacing_mm))


def _windpipe(grid: Grid) -> Iterator[Part]:
    """Rings of cartilage every 5 mm around a column of air."""
    x, y, z = grid.points
    scale, voxel_mm = grid.pose.scale, grid.mean_spacing_mm
    tube = (np.hypot((x + 16) * 0.95, y + 23.5) - 9.5) * scale
    ring = smooth_max(tube, np.abs(np.mod(z, 5.0) - 2.5) - 1.7, 0.8)
    yield Part("fascia", grid.whole(), coverage(tube, voxel_mm), LABELS["trachea"])
    yield Part("cartilage", grid.whole(), coverage(ring, voxel_mm), None)
    yield Part("air", grid.whole(), coverage(tube + 1.6, voxel_mm), None)


def _gland(grid: Grid, neck: Neck) -> Iterator[Part]:
    scale, voxel_mm = grid.pose.scale, grid.mean_spacing_mm
    points = grid.points
    lobe = ellipsoid(points, *LOBE)
    isthmus = capsule(points, (-18, -12.2, -5), (2, -15.5, -4), 2.2, 3.4)
    windpipe = np.hypot((points[0] + 16) * 0.95, points[1] + 23.5) - 9.5
    gland = smooth_max(smooth_min(lobe, isthmus, 3), 0.4 - windpipe, 1) * scale
    inside = coverage(gland + 0.4, voxel_mm)
    yield Part("fascia", grid.whole(), coverage(gland, voxel_mm), LABELS["thyroid_parenchyma"])
    yield Part("thyroid", grid.whole(), inside, None)
    for nodule in neck.nodules:
        yield from _nodule(grid, nodule, inside)


def _nodule(grid: Grid, nodule: Nodule, inside: Field) -> Iterator[Part]:
    box = grid.around(nodule.centre_mm, nodule.centre_mm, max(nodule.radii_mm) + 1)
    distance = ellipsoid(grid.at(box), nodule.centre_mm, nodule.radii_mm) * grid.pose.scale
    share = np.minimum(coverage(distance, grid.mean_spacing_mm), inside[box])
    yield Part("cyst" if nodule.kind == "cyst" else "nodule", box, share, LABELS["nodule"])
    if nodule.kind == "calcified":
        speck = distance + 0.72 * min(nodule.radii_mm) * grid.pose.scale
        yield Part("calcification", box, coverage(speck, grid.mean_spacing_mm), None)


def _vessels(grid: Grid, neck: Neck) -> Iterator[Part]:
    yield from _vessel(grid, (19.5, -22.0, 0.0), (3.3, 3.3), 0.7, LABELS["carotid_artery"])
    if "jugular_vein" not in neck.missing:
        yield from _vessel(grid, (28.5, -17.5, 0.0), neck.vein_mm, 0.3, LABELS["jugular_vein"])


def _vessel(grid: Grid, centre: Vector, radii: tuple[float, float], wall_mm: float, label: int) -> Iterator[Part]:
    """A tube along the sweep whose lumen has the label, as tracings of vessels have it."""
    box: Box = grid.around((centre[0], centre[1], -LONG_MM), (centre[0], centre[1], LONG_MM), max(radii) + wall_mm + 1)
    lumen = ellipsoid(grid.at(box), centre, (*radii, 50 * LONG_MM)) * grid.pose.scale
    yield Part("vessel_wall", box, coverage(lumen - wall_mm, grid.mean_spacing_mm))
    yield Part("blood", box, coverage(lumen, grid.mean_spacing_mm), label)
