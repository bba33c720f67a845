"""What holds the abdomen: skin, fat and muscles, ribs and spine, the diaphragm, and the gut that fills what organs leave."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from raykd.data.phantom.grid import Grid
from raykd.data.phantom.implicit import Box, Field, Points, Vector, capsule, coverage, smooth_max, smooth_min, step, superellipse
from raykd.data.phantom.scene import Part, chain
from raykd.numerics.rng import numpy_generator

WALL_MM = 15.0
"""Thickness of the muscles and ribs between the subcutaneous fat and the cavity."""


def skin_distance(grid: Grid, fat_mm: float) -> Field:
    """Millimetres outside the skin: a super-ellipse with a waist, whose fat comes on top of the average's."""
    x, y, z = grid.points
    extra = fat_mm - 14
    half_width, half_depth = 160 + 7 * np.cos(z * (1 / 70)) + extra, 106 + 4 * np.cos((z + 20) * (1 / 60)) + extra
    flattened_back = y + 8 * step(-y - 70, 12) * np.exp(-((x * (1 / 25)) ** 2))
    ratio = superellipse(x / half_width, flattened_back / half_depth, 2.4)
    return np.hypot(x, y) * (1 - 1 / np.maximum(ratio, 0.05)) * grid.pose.scale  # along the radius


def diaphragm(points: Points) -> Field:
    """Height of the diaphragm: two domes, the right one higher, falling off to the back."""
    x, y, _ = points
    dome = np.exp(-(((np.abs(x) - 72) * (1 / 62)) ** 2) - ((y - 8) * (1 / 75)) ** 2)
    return 62 + 42 * dome + 7 * step(x, 20) - 26 * step(-y - 45, 12)


def tube(grid: Grid, material: str, nodes: list[tuple[Vector, float]], label: int | None = 0) -> Iterator[Part]:
    """A chain of rounded cones on its own box."""
    low, high = (tuple(fn(c[axis] for c, _ in nodes) for axis in range(3)) for fn in (min, max))
    box = grid.around(low, high, max(r for _, r in nodes) + 2)  # type: ignore[arg-type]
    yield Part(material, box, coverage(chain(grid.at(box), nodes) * grid.pose.scale, grid.mean_spacing_mm), label)


def muscles_and_spine(grid: Grid, cavity: Field, vertebrae: int) -> Iterator[Part]:
    for side in (1, -1):
        yield from tube(grid, "muscle", [((side * 34, -42, 25), 9), ((side * 50, -34, -70), 20), ((side * 58, -22, -170), 24)])
        yield from tube(grid, "muscle", [((side * 27, -84, 170), 15), ((side * 31, -80, -170), 21)])
    yield from _ribs(grid, cavity)
    yield from _vertebrae(grid, vertebrae)


def _ribs(grid: Grid, cavity: Field) -> Iterator[Part]:
    """Bands in the wall that fall from back to front, above the costal arch."""
    _, y, z = grid.points
    oblique = z + 0.45 * y
    band = np.abs(np.mod(oblique, 34) - 17) - 6.5
    shell = np.abs(cavity + 1 - 0.45 * WALL_MM) - 4.0
    rib = smooth_max(smooth_max(shell, band, 3), (y - 50) - 0.7 * (z - 30), 3)
    rib = np.maximum(rib, -25 - oblique)
    yield Part("cortical_bone", grid.whole(), coverage(rib, grid.mean_spacing_mm))
    yield Part("trabecular_bone", grid.whole(), coverage(rib + 2.2, grid.mean_spacing_mm))


def _vertebrae(grid: Grid, label: int) -> Iterator[Part]:
    box = grid.box((-48, -112, -210), (48, -22, 210))
    x, y, z = grid.at(box)
    level = np.mod(z + 17.5, 35) - 17.5
    radial = (superellipse(x * (1 / 23.5), (y + 49) * (1 / 16.5), 2.3) - 1) * 19
    radial = radial - 2 * (level * (1 / 13)) ** 2 + 1
    body = smooth_max(radial, np.abs(level) - 13.0, 2)
    flat = (x, y, level)
    arch = smooth_max(np.abs(np.hypot(x, y + 75) - 13.5) - 3.5, np.abs(level + 2) - 10, 2)
    processes = [
        capsule(flat, (0, -88, -2), (0, -104, -9), 3.5, 4),
        *(capsule(flat, (s * 14, -71, 0), (s * 40, -76, 0), 4.5, 3.5) for s in (1, -1)),
    ]
    bone = smooth_min(np.minimum(body, arch), np.minimum.reduce(processes), 2)
    canal = np.hypot(x, y + 75) - 9.5
    bone = np.maximum(bone, -canal) * grid.pose.scale
    voxel_mm = grid.mean_spacing_mm
    yield Part("disc", box, coverage(radial + 1.5, voxel_mm))
    yield Part("cord", box, coverage(canal, voxel_mm))
    yield Part("cortical_bone", box, coverage(bone, voxel_mm), label)
    yield Part("trabecular_bone", box, coverage(bone + 1.8, voxel_mm), None)


def gut(grid: Grid, cavity: Field) -> Iterator[Part]:
    """Ascending and descending colon, then loops of small bowel in the lower front."""
    rng = numpy_generator(grid.pose.texture_seed, "phantom-gut")
    tubes = [[((s * 108.0, -22.0, -180.0), 23.0), ((s * 106.0, -18.0, top), 21.0)] for s, top in ((1, -55.0), (-1, -5.0))]
    for _ in range(16):
        x, y, z = rng.uniform((-85, 2, -150), (85, 62, -42)).tolist()
        dx, dy, dz = rng.uniform((-45, -12, -22), (45, 12, 22)).tolist()
        radius = float(rng.uniform(11, 18))
        tubes.append([((x, y, z), radius), ((x + dx, y + dy, z + dz), radius)])
    for nodes in tubes:
        low, high = nodes[0][0], nodes[1][0]
        box = grid.around(low, high, nodes[0][1] + 2)
        distance = smooth_max(chain(grid.at(box), nodes) * grid.pose.scale, cavity[box] + 3, 4)
        yield from hollow(grid, box, distance, "fluid", float(rng.uniform(-0.6, 1.2)) * nodes[0][1] + (low[1] + high[1]) / 2)


def hollow(grid: Grid, box: Box, distance: Field, content: str, gas_above_mm: float, label: int | None = 0) -> Iterator[Part]:
    """A wall around a content with gas on top, the patient lying on the back."""
    voxel_mm = grid.mean_spacing_mm
    inside = coverage(distance + 3.5, voxel_mm)
    yield Part("gut_wall", box, coverage(distance, voxel_mm), label)
    yield Part(content, box, inside, None)
    yield Part("gas", box, inside * coverage(gas_above_mm - grid.at(box)[1], voxel_mm), None)
