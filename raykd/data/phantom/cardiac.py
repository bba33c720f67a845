"""The heart at the end of diastole, as a short-axis stack sees it, with an infarct of the left ventricle.

Body coordinates in mm of an average adult are those of the heart, not of the trunk: z runs along the long axis from apex to base, x
from the lateral wall through the septum to the right ventricle, y to the anterior wall; the origin lies in the left ventricle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from raykd.data.phantom.cardiac_scan import PROTOCOLS, acquire
from raykd.data.phantom.family import Family, Image, Labels, Profile, Shape
from raykd.data.phantom.grid import Grid, Pose
from raykd.data.phantom.implicit import Box, Field, Points, Surface, capsule, coverage, ellipsoid, smooth_max, smooth_min, surface
from raykd.data.phantom.scene import Part, label_map

LABELS = {"left_ventricle": 1, "viable_myocardium": 2, "scar": 3, "right_ventricle": 4, "left_atrium": 5}
BASE_MM = 34.0
"""Height of the plane of the valves."""
APEX_MM = -46.0
"""Height of the apex of the cavity."""


@dataclass(frozen=True)
class Infarct:
    """A sector of the left ventricle's wall, from the inside outwards.

    Attributes:
        angle: of its middle about the long axis, radians from the septum towards the anterior wall.
        half_width: radians.
        z_mm, half_length_mm: along the long axis.
        transmurality: share of the wall, in [0, 1].
    """

    angle: float
    half_width: float
    z_mm: float
    half_length_mm: float
    transmurality: float


@dataclass(frozen=True)
class Heart:
    """One heart.

    Attributes:
        radius_mm: of the left ventricle's cavity at the base.
        wall_mm: thickness of its wall at the base.
        right_mm: how far the right ventricle reaches beyond the septum.
        fat_mm: epicardial fat.
    """

    is_male: bool
    severity: float
    pose: Pose
    radius_mm: float
    wall_mm: float
    right_mm: float
    fat_mm: float
    infarct: Infarct | None
    missing: frozenset[str]


class Cardiac(Family[Heart]):
    """A short-axis stack of the heart on MR at 1.5 T."""

    structures = {**{name: (label,) for name, label in LABELS.items()}, "myocardium": (2, 3)}
    protocols = tuple(PROTOCOLS)
    spacing_mm = (1.5, 1.5, 8.0)
    field_of_view_mm = (210.0, 210.0, 112.0)
    field_limits_mm = (80.0, 400.0)
    removable = ("scar", "right_ventricle", "left_atrium")

    def draw(self, rng: np.random.Generator, profile: Profile) -> Heart:
        is_male = bool(rng.random() < 0.5)
        x, y, z = rng.normal(0, (5.0, 5.0, 3.0)).tolist()
        a, b, c = rng.normal(0, (4.0, 4.0, 12.0)).tolist()
        pose = Pose(
            scale=profile.size * float(np.clip(rng.normal(1.04 if is_male else 0.95, 0.045), 0.84, 1.18)),
            shift_mm=(x, y, z),
            rotation_deg=(a, b, c),
            texture_seed=int(rng.integers(2**31)),
            warp_mm=1.0,
            warp_knot_mm=30.0,
            half_extent_mm=220.0,
        )
        dilation, thinning = rng.normal(1 + 0.18 * profile.severity, 0.06), rng.normal(1 - 0.1 * profile.severity, 0.1)
        has_scar = profile.severity > 0 and "scar" not in profile.missing
        return Heart(
            is_male=is_male,
            severity=profile.severity,
            pose=pose,
            radius_mm=25.0 * float(np.clip(dilation, 0.8, 1.5)),
            wall_mm=9.0 * float(np.clip(thinning, 0.6, 1.4)),
            right_mm=float(np.clip(rng.normal(31, 3), 22, 40)),
            fat_mm=float(np.clip(rng.normal(5, 2), 1.5, 10)),
            missing=profile.missing,
            infarct=_draw_infarct(rng, profile.severity) if has_scar else None,
        )

    def traits(self, subject: Heart) -> dict[str, float | str]:
        infarct = subject.infarct
        return {
            "sex": "male" if subject.is_male else "female",
            "scale": subject.pose.scale,
            "severity": subject.severity,
            "transmurality": 0.0 if infarct is None else infarct.transmurality,
        }

    def scan(
        self, subject: Heart, protocol: str, shape: Shape, spacing_mm: tuple[float, float, float], rng: np.random.Generator
    ) -> tuple[Image, Labels]:
        grid = Grid(subject.pose, shape, spacing_mm)
        parts = [*_chest(grid), *_heart(grid, subject)]
        return acquire(parts, PROTOCOLS[protocol], grid, rng), label_map(parts, shape)


def _draw_infarct(rng: np.random.Generator, severity: float) -> Infarct:
    return Infarct(
        angle=float(rng.uniform(-math.pi, math.pi)),
        half_width=0.3 + 1.0 * severity * float(rng.uniform(0.7, 1.3)),
        z_mm=float(rng.uniform(-32, 14)),
        half_length_mm=11 + 28 * severity * float(rng.uniform(0.7, 1.3)),
        transmurality=min(1.0, 0.25 + 0.75 * severity * float(rng.uniform(0.7, 1.3))),
    )


def _chest(grid: Grid) -> Iterator[Part]:
    """What lies around the heart: chest wall, lungs, spine, liver, and the descending aorta."""
    whole, voxel_mm = grid.whole(), grid.mean_spacing_mm
    x, y, z = grid.points
    # The chest wall runs in front and to the right of a heart that is seen along its axis.
    skin = ellipsoid(grid.points, (25, -35, 0), (160, 118, 400))
    yield Part("skin", whole, coverage(skin, 3.0))
    yield Part("fat", whole, coverage(skin + 2, 3.0))
    yield Part("muscle", whole, coverage(skin + 12 + 2 * grid.noise("wall", 30), 3.0))
    ribs = np.abs(np.mod(np.arctan2(y + 35, x - 25) * 9 / math.pi + 0.01 * z, 1) - 0.5) * 24 - 4
    yield Part("bone", whole, coverage(smooth_max(np.abs(skin + 18) - 4, ribs, 2), 3.0))
    yield Part("lung", whole, coverage(skin + 25, 3.0))
    yield Part("fat", whole, coverage(ellipsoid(grid.points, (42, 12, 5), (42, 50, 70)), 3.0))
    dome = smooth_max(skin + 25, y + 52 + 0.012 * ((x - 30) ** 2) / 2 + 0.25 * z, 5)
    yield Part("liver", whole, coverage(dome, 3.0))
    for start, radius, material in (((-62.0, -40.0), 12.0, "blood"), ((-44.0, -74.0), 17.0, "bone")):
        tube = np.hypot(x - start[0], y - start[1]) - radius
        yield Part(material, whole, coverage(tube, voxel_mm))


def _heart(grid: Grid, heart: Heart) -> Iterator[Part]:
    box = grid.box((-75, -75, -80), (100, 75, 105))
    points = grid.at(box)
    z = points[2]
    inner, outer = _left_cavity(points, heart, 0.0), _left_cavity(points, heart, 1.0)
    base = z - BASE_MM
    cavity, wall = (_surface(grid, smooth_max(body, base, 2), box) for body in (inner, outer))
    right, right_wall = (_surface(grid, _right_cavity(points, heart, outer, thickness), box) for thickness in (0.0, 3.5))
    yield Part("fat", box, np.maximum(wall.coverage(heart.fat_mm), right_wall.coverage(0.8 * heart.fat_mm)))
    yield Part("pericardium", box, 0.7 * _shell(wall, heart.fat_mm))
    yield from _atria_and_outflow(grid, heart, box)
    if "right_ventricle" not in heart.missing:
        yield Part("myocardium", box, right_wall.coverage())
        yield Part("blood", box, right.coverage(), LABELS["right_ventricle"])
    muscle = wall.coverage()
    yield Part("myocardium", box, muscle, LABELS["viable_myocardium"])
    if heart.infarct:
        depth = np.clip(-wall.distance_mm / np.maximum(cavity.distance_mm - wall.distance_mm, 0.5), 0, 1)
        yield Part("scar", box, np.minimum(muscle, _infarcted(points, depth, heart.infarct)), LABELS["scar"])
    yield Part("blood", box, cavity.coverage(), LABELS["left_ventricle"])
    for angle, reach in ((2.5, 0.62), (-2.4, 0.62)):  # counted with the cavity, as in most reference labels
        x, y = reach * heart.radius_mm * math.cos(angle), reach * heart.radius_mm * math.sin(angle)
        muscle_field = capsule(points, (0.75 * x, 0.75 * y, -26), (x, y, 8), 4.5, 3.5) * grid.pose.scale
        yield Part("papillary_muscle", box, np.minimum(coverage(muscle_field, grid.spacing_mm[0]), cavity.coverage()), None)


def _surface(grid: Grid, field: Field, box: Box) -> Surface:
    return surface(field * grid.pose.scale, box, grid.spacing_mm)


def _shell(wall: Surface, offset_mm: float) -> Field:
    return wall.coverage(offset_mm + 0.8) - wall.coverage(offset_mm - 0.8)


def _left_cavity(points: Points, heart: Heart, wall: float) -> Field:
    """A half prolate spheroid, open at the base; `wall` 0 is its inside, 1 its outside, where the wall thins towards the apex."""
    height = BASE_MM - APEX_MM
    radius, apex = heart.radius_mm + wall * heart.wall_mm, height + 0.7 * wall * heart.wall_mm
    return ellipsoid(points, (0, 0, BASE_MM - 6), (radius, radius, apex - 6))


def _right_cavity(points: Points, heart: Heart, left_outside: Field, thickness_mm: float) -> Field:
    """The crescent that wraps the left ventricle from the septal side, shorter and with a taper towards the apex."""
    x, y, z = points
    outer_x = heart.radius_mm + heart.wall_mm
    centre = (0.5 * outer_x + 8, -1.0, BASE_MM - 8)
    t = thickness_mm
    radii = (0.5 * outer_x + heart.right_mm - 8 + t, outer_x + 3 + t, BASE_MM - APEX_MM - 12 + t)
    bowl = smooth_max(ellipsoid((x, y, z), centre, radii), z - BASE_MM, 2)
    return smooth_max(bowl, t - left_outside if t == 0 else -left_outside - 2, 2)


def _atria_and_outflow(grid: Grid, heart: Heart, box: Box) -> Iterator[Part]:
    """Above the base: both atria, the root of the aorta and the pulmonary trunk."""
    points, scale, voxel_mm = grid.at(box), grid.pose.scale, grid.mean_spacing_mm
    above = BASE_MM + 2 - points[2]
    left = smooth_max(ellipsoid(points, (-6, -14, BASE_MM + 22), (27, 23, 27)), above, 2) * scale
    right = smooth_max(ellipsoid(points, (48, -24, BASE_MM + 16), (23, 23, 30)), above, 2) * scale
    aorta = smooth_max(capsule(points, (16, 8, BASE_MM), (22, 10, BASE_MM + 80), 15, 14), above, 2) * scale
    trunk = smooth_max(capsule(points, (30, 34, BASE_MM), (4, 36, BASE_MM + 80), 14, 13), above, 2) * scale
    hearts = [("right_atrium", right), ("pulmonary_trunk", trunk)] if "right_ventricle" not in heart.missing else []
    if "left_atrium" not in heart.missing:
        hearts.append(("left_atrium", left))
    for name, field in (*hearts, ("aorta", aorta)):
        yield Part("myocardium", box, coverage(field - 1.5, voxel_mm))
        yield Part("blood", box, coverage(field, voxel_mm), LABELS.get(name, 0))
    valve = np.maximum(np.abs(above - 1) - 2, smooth_min(left, aorta, 2))
    yield Part("valve", box, 0.6 * coverage(valve, voxel_mm))


def _infarcted(points: Points, depth: Field, infarct: Infarct) -> Field:
    """The share of the wall's voxels that the infarct has taken; `depth` is 1 at the inside of the wall and 0 outside."""
    x, y, z = points
    away = np.arctan2(y, x) - infarct.angle
    around = np.abs(np.arctan2(np.sin(away), np.cos(away))) / infarct.half_width
    along = np.abs(z - infarct.z_mm) / infarct.half_length_mm
    spread = np.hypot(around, along)  # below 1 inside the sector
    return coverage((spread - 1) * 6, 1.0) * coverage(
        (1 - infarct.transmurality * np.sqrt(np.clip(1 - spread**4, 0, 1)) - depth) * 8, 1.0
    )
