"""The upper abdomen on CT: organs, great vessels, spine and ribs, gut, and tumours of the liver.

Body coordinates in mm of an average adult: x right, y anterior, z superior; the origin lies in the middle of the trunk, at the
second lumbar vertebra.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from raykd.data.phantom.abdomen_scan import PROTOCOLS, acquire
from raykd.data.phantom.abdomen_wall import WALL_MM, diaphragm, gut, hollow, muscles_and_spine, skin_distance, tube
from raykd.data.phantom.family import Family, Image, Labels, Profile, Shape
from raykd.data.phantom.grid import Grid, Pose
from raykd.data.phantom.implicit import (
    Box,
    Field,
    Points,
    Vector,
    coverage,
    ellipsoid,
    smooth_max,
    smooth_min,
)
from raykd.data.phantom.scene import Part, chain, label_map

LABELS = {
    "liver_parenchyma": 1,
    "liver_tumour": 2,
    "spleen": 3,
    "right_kidney": 4,
    "left_kidney": 5,
    "pancreas": 6,
    "stomach": 7,
    "gallbladder": 8,
    "aorta": 9,
    "vena_cava": 10,
    "vertebrae": 11,
}
LIVER_LOBE = ((83.0, 2.0, 42.0), (70.0, 78.0, 73.0))
KIDNEY_MM = (29.0, 27.0, 58.0)


@dataclass(frozen=True)
class Tumour:
    """A focal lesion of the liver: an ellipsoid of this mean radius."""

    centre_mm: Vector
    radii_mm: Vector


@dataclass(frozen=True)
class Trunk:
    """One person's abdomen.

    Attributes:
        fat_mm: thickness of the subcutaneous fat.
        steatosis: share of fat in the liver, 0 to 0.3.
        tumours: of the liver.
        missing: organs taken out.
    """

    is_male: bool
    severity: float
    pose: Pose
    fat_mm: float
    steatosis: float
    tumours: tuple[Tumour, ...]
    missing: frozenset[str]


class Abdomen(Family[Trunk]):
    """The upper abdomen on CT."""

    structures = {
        **{name: (label,) for name, label in LABELS.items()},
        "liver": (1, 2),
        "kidneys": (4, 5),
    }
    protocols = tuple(PROTOCOLS)
    spacing_mm = (2.5, 2.5, 5.0)
    field_of_view_mm = (400.0, 290.0, 280.0)
    field_limits_mm = (150.0, 500.0)
    removable = ("gallbladder", "spleen", "right_kidney", "left_kidney", "pancreas", "stomach")

    def draw(self, rng: np.random.Generator, profile: Profile) -> Trunk:
        is_male = bool(rng.random() < 0.5)
        x, y, z = rng.normal(0, (6.0, 6.0, 8.0)).tolist()
        a, b, c = rng.normal(0, 1.5, 3).tolist()
        pose = Pose(
            scale=profile.size * float(np.clip(rng.normal(1.03 if is_male else 0.95, 0.04), 0.84, 1.14)),
            shift_mm=(x, y, z),
            rotation_deg=(a, b, c),
            texture_seed=int(rng.integers(2**31)),
            aspect=float(np.clip(rng.normal(1.0, 0.03), 0.92, 1.08)),
            warp_mm=3.0,
            warp_knot_mm=55.0,
            half_extent_mm=260.0,
        )
        return Trunk(
            is_male=is_male,
            severity=profile.severity,
            pose=pose,
            fat_mm=float(np.clip(rng.lognormal(math.log(14 if is_male else 18), 0.35), 6, 35)),
            steatosis=float(np.clip(rng.gamma(0.8, 0.05), 0, 0.3)),
            missing=profile.missing,
            tumours=_draw_tumours(rng, profile.severity),  # last: another severity changes the tumours and nothing else
        )

    def traits(self, subject: Trunk) -> dict[str, float | str]:
        return {
            "sex": "male" if subject.is_male else "female",
            "scale": subject.pose.scale,
            "severity": subject.severity,
            "num_tumours": float(len(subject.tumours)),
            "fat_mm": subject.fat_mm,
        }

    def scan(
        self, subject: Trunk, protocol: str, shape: Shape, spacing_mm: Vector, rng: np.random.Generator
    ) -> tuple[Image, Labels]:
        grid = Grid(subject.pose, shape, spacing_mm)
        parts = list(_parts(grid, subject))
        return acquire(parts, PROTOCOLS[protocol], subject.steatosis, grid, rng), label_map(parts, shape)


def _draw_tumours(rng: np.random.Generator, severity: float) -> tuple[Tumour, ...]:
    """Tumours grow in number and size with the severity; they lie in the right lobe, away from its surface."""
    return tuple(_draw_tumour(rng, severity) for _ in range(rng.poisson(6 * severity)))


def _draw_tumour(rng: np.random.Generator, severity: float) -> Tumour:
    direction = rng.standard_normal(3)
    reach = 0.75 * rng.random() ** (1 / 3) / np.linalg.norm(direction)
    x, y, z = (c + r * d * reach for c, r, d in zip(*LIVER_LOBE, direction.tolist(), strict=True))
    radius = float(np.clip(rng.lognormal(math.log(7 + 11 * severity), 0.35), 4, 35))
    a, b, c = (radius * rng.uniform(0.85, 1.15, 3)).tolist()
    return Tumour((float(x), float(y), float(z)), (a, b, c))


def _parts(grid: Grid, trunk: Trunk) -> Iterator[Part]:
    """All that a scan shows, in painting order."""
    whole, voxel_mm = grid.whole(), grid.mean_spacing_mm
    skin = skin_distance(grid, trunk.fat_mm)
    cavity = skin + trunk.fat_mm + WALL_MM
    dome = diaphragm(grid.points)
    yield Part("skin", whole, coverage(skin, voxel_mm))
    yield Part("fat", whole, coverage(skin + 2, voxel_mm))
    yield Part("muscle", whole, coverage(skin + trunk.fat_mm, voxel_mm))
    yield Part("fat", whole, coverage(cavity, voxel_mm))
    lung = smooth_max(cavity + 4, dome - grid.points[2], 4)
    yield from muscles_and_spine(grid, cavity, LABELS["vertebrae"])
    yield from gut(grid, cavity)
    yield Part("lung", whole, coverage(lung, voxel_mm))
    yield from _viscera(grid, trunk, cavity, dome)
    yield from _vessels(grid)


def _viscera(grid: Grid, trunk: Trunk, cavity: Field, dome: Field) -> Iterator[Part]:
    has = {name: name not in trunk.missing for name in LABELS}
    scale, voxel_mm = grid.pose.scale, grid.mean_spacing_mm
    yield from _heart(grid, cavity)
    if has["stomach"]:
        box = grid.box((-110, -30, -25), (40, 85, 135))
        nodes: list[tuple[Vector, float]] = [((-58, 8, 76), 27), ((-58, 32, 40), 23), ((-18, 46, 8), 16), ((20, 36, 10), 9)]
        distance = smooth_max(chain(grid.at(box), nodes) * scale, np.maximum(cavity[box] + 3, grid.at(box)[2] - dome[box] + 4), 5)
        yield from hollow(grid, box, distance, "fluid", 36 - 10 * trunk.steatosis, LABELS["stomach"])
    if has["pancreas"]:
        gland: list[tuple[Vector, float]] = [((34, 12, -12), 18), ((12, 22, 6), 12), ((-25, 14, 18), 12), ((-72, -18, 40), 11.5)]
        yield from tube(grid, "pancreas", gland, LABELS["pancreas"])
    if has["spleen"]:
        box = grid.box((-150, -95, 0), (-60, 40, 130))
        x, y, z = grid.at(box)
        turned = (x + 0.35 * (y + 32), y, z)
        spleen = smooth_max(ellipsoid(turned, (-104, -32, 58), (29, 53, 51)) * scale, cavity[box] + 3, 6)
        spleen = np.maximum(spleen, z - dome[box] + 3)
        yield Part("spleen", box, coverage(spleen, voxel_mm), LABELS["spleen"])
    yield from _liver(grid, trunk, cavity, dome)
    for name, side, height in (("right_kidney", 1, -14.0), ("left_kidney", -1, -2.0)):
        if has[name]:
            yield from _kidney(grid, side, height, LABELS[name])
    yield Part("adrenal", *_blob(grid, (-42, -30, 62), (5, 14, 10)))


def _blob(grid: Grid, centre: Vector, radii: Vector) -> tuple[Box, Field]:
    box = grid.around(centre, centre, max(radii) + 2)
    return box, coverage(ellipsoid(grid.at(box), centre, radii) * grid.pose.scale, grid.mean_spacing_mm)


def _heart(grid: Grid, cavity: Field) -> Iterator[Part]:
    box = grid.box((-80, -20, 88), (35, 95, 190))
    heart = smooth_max(ellipsoid(grid.at(box), (-22, 32, 140), (52, 46, 44)) * grid.pose.scale, cavity[box] + 8, 5)
    yield Part("muscle", box, coverage(heart, grid.mean_spacing_mm))
    yield Part("venous_blood", box, coverage(heart + 11, grid.mean_spacing_mm))


def _liver(grid: Grid, trunk: Trunk, cavity: Field, dome: Field) -> Iterator[Part]:
    box = grid.box((-80, -85, -55), (160, 100, 140))
    points, scale, voxel_mm = grid.at(box), grid.pose.scale, grid.mean_spacing_mm
    _, _, z = points
    lobes = smooth_min(ellipsoid(points, *LIVER_LOBE), ellipsoid(points, (12, 42, 60), (64, 33, 34)), 14)
    bag: list[tuple[Vector, float]] = [((50, 44, -2), 9), ((58, 58, -26), 15)]
    gallbladder = chain(points, bag)
    liver = smooth_max(lobes * scale, np.maximum(cavity[box] + 3, z - dome[box] + 3), 5)
    if "gallbladder" not in trunk.missing:
        liver = smooth_max(liver, -(gallbladder + 1) * scale, 4)
    inside = coverage(liver, voxel_mm)
    yield Part("liver", box, inside, LABELS["liver_parenchyma"])
    veins = np.minimum(
        chain(points, [((18, -8, 78), 5), ((58, 12, 58), 4), ((88, 20, 28), 2)]),
        chain(points, [((20, 8, 12), 6.5), ((44, 8, 34), 6), ((84, -14, 40), 2.5)]),
    )
    veins = np.minimum(veins, chain(points, [((18, -8, 78), 4.5), ((30, 40, 62), 3), ((28, 60, 45), 1.5)]))
    yield Part("portal_blood", box, np.minimum(coverage(veins * scale, voxel_mm), inside), None)
    for tumour in trunk.tumours:
        part_box = grid.around(tumour.centre_mm, tumour.centre_mm, max(tumour.radii_mm) + 2)
        distance = ellipsoid(grid.at(part_box), tumour.centre_mm, tumour.radii_mm) * scale
        covered = np.zeros(grid.shape, np.float32)
        covered[box] = inside
        share = np.minimum(coverage(distance, voxel_mm), covered[part_box])
        yield Part("tumour", part_box, share, LABELS["liver_tumour"])
    if "gallbladder" not in trunk.missing:
        yield Part("gut_wall", box, coverage(gallbladder * scale, voxel_mm), LABELS["gallbladder"])
        yield Part("bile", box, coverage((gallbladder + 1.5) * scale, voxel_mm), None)


def _kidney(grid: Grid, side: int, height: float, label: int) -> Iterator[Part]:
    """Cortex, medulla, and the fat of the sinus, which is not kidney; the upper pole leans to the spine."""
    centre: Vector = (side * 60.0, -46.0, height)
    box = grid.around(centre, centre, 66)
    x, y, z = grid.at(box)
    leaning: Points = (x + side * 0.22 * (z - height), y + 0.12 * (z - height), z)
    voxel_mm, scale = grid.mean_spacing_mm, grid.pose.scale
    kidney = ellipsoid(leaning, centre, KIDNEY_MM)
    kidney = smooth_max(kidney, -ellipsoid(leaning, (side * 28, -40, height), (15, 12, 17)), 5) * scale
    lobes = np.cos(np.arctan2(leaning[2] - height, (leaning[0] - centre[0]) * 2) * 7)
    yield Part("renal_cortex", box, coverage(kidney, voxel_mm), label)
    yield Part("renal_medulla", box, coverage(kidney + 7 + 2.5 * lobes, voxel_mm), None)
    sinus = ellipsoid(leaning, (side * 50, -43, height), (11, 9, 27)) * scale
    yield Part("fat", box, np.minimum(coverage(sinus, voxel_mm), coverage(kidney, voxel_mm)))


def _vessels(grid: Grid) -> Iterator[Part]:
    yield from tube(grid, "arterial_blood", [((-9, -18, 190), 11.0), ((-9, -18, 0), 10.0), ((-6, -18, -80), 8.5)], LABELS["aorta"])
    for side in (1, -1):
        yield from tube(grid, "arterial_blood", [((-6, -18, -80), 5.5), ((side * 38 - 4, -18, -170), 5.0)])
    yield from tube(grid, "arterial_blood", [((-8, -9, 12), 3.2), ((-4, 10, -10), 3.0), ((-4, 14, -70), 2.5)])
    cava: list[tuple[Vector, float]] = [((17, -16, -85), 10), ((19, -15, 30), 11), ((20, -6, 90), 12)]
    yield from tube(grid, "venous_blood", cava, LABELS["vena_cava"])
    for side, end in ((1, (48.0, -38.0, -14.0)), (-1, (-46.0, -38.0, -2.0))):
        yield from tube(grid, "venous_blood", [((side * 4 + 14, -12, 0), 4.5), (end, 4.0)], None)
