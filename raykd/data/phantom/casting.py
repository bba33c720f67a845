"""A cast housing of aluminium on industrial CT, with gas pores, shrinkage cavities and inclusions.

Part coordinates in mm of the nominal part: z is the axis of its hub, x and y span its flange; the origin lies in the middle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from raykd.data.phantom.casting_scan import PROTOCOLS, acquire
from raykd.data.phantom.family import Family, Image, Labels, Profile, Shape
from raykd.data.phantom.grid import Grid, Pose
from raykd.data.phantom.implicit import (
    Box,
    Field,
    Points,
    Vector,
    capsule,
    coverage,
    ellipsoid,
    smooth_max,
    smooth_min,
    superellipse,
)
from raykd.data.phantom.scene import Part, label_map

LABELS = {"metal": 1, "gas_pore": 2, "shrinkage": 3, "inclusion": 4}
FLANGE_Z_MM = -17.0
FLANGE_HALF_MM = 5.0
SKIN_MM = 0.8
"""Sound metal that every fault keeps between itself and the surface."""


class Fault(NamedTuple):
    """An ellipsoid of what is not the metal: one pore, one inclusion, or one of the many bubbles of a shrinkage cavity."""

    name: str
    centre_mm: Vector
    radii_mm: Vector


@dataclass(frozen=True)
class Casting:
    """One part.

    Attributes:
        flange_mm: half lengths of the flange along x and y.
        hub_mm, bore_mm: radii of the hub's outside and inside.
        num_ribs: that hold the hub.
        hole_mm: radius of the four bolt holes.
        faults: what went wrong in the mould.
    """

    severity: float
    pose: Pose
    flange_mm: tuple[float, float]
    hub_mm: float
    bore_mm: float
    num_ribs: int
    hole_mm: float
    faults: tuple[Fault, ...] = ()


class CastingCt(Family[Casting]):
    """A cast housing on industrial CT."""

    structures = {
        **{name: (label,) for name, label in LABELS.items()},
        "part": (1, 2, 3, 4),
        "void": (2, 3),
        "fault": (2, 3, 4),
    }
    protocols = tuple(PROTOCOLS)
    spacing_mm = (0.8, 0.8, 0.8)
    field_of_view_mm = (100.0, 100.0, 60.0)
    field_limits_mm = (20.0, 300.0)
    removable = ("gas_pore", "shrinkage", "inclusion")

    def draw(self, rng: np.random.Generator, profile: Profile) -> Casting:
        x, y, z = rng.normal(0, 1.0, 3).tolist()
        tilt_x, tilt_y = rng.normal(0, 4.0, 2).tolist()
        hub = float(rng.uniform(17, 22))
        part = Casting(
            severity=profile.severity,
            pose=Pose(
                scale=profile.size,
                shift_mm=(x, y, z),
                rotation_deg=(tilt_x, tilt_y, float(rng.uniform(-180, 180))),
                texture_seed=int(rng.integers(2**31)),
                warp_mm=0.0,
            ),
            flange_mm=(float(rng.uniform(33, 39)), float(rng.uniform(25, 31))),
            hub_mm=hub,
            bore_mm=hub - float(rng.uniform(7, 9.5)),
            num_ribs=int(rng.integers(3, 7)),
            hole_mm=float(rng.uniform(2.6, 3.8)),
        )
        faults = tuple(fault for fault in _draw_faults(rng, part) if fault.name not in profile.missing)
        return Casting(**{**vars(part), "faults": faults})

    def traits(self, subject: Casting) -> dict[str, float | str]:
        counts = {f"num_{name}s": float(sum(f.name == name for f in subject.faults)) for name in ("gas_pore", "inclusion")}
        has_shrinkage = any(fault.name == "shrinkage" for fault in subject.faults)
        return {"scale": subject.pose.scale, "severity": subject.severity, "shrinkage": float(has_shrinkage), **counts}

    def scan(
        self, subject: Casting, protocol: str, shape: Shape, spacing_mm: Vector, rng: np.random.Generator
    ) -> tuple[Image, Labels]:
        grid = Grid(subject.pose, shape, spacing_mm)
        parts = list(_parts(grid, subject))
        return acquire(parts, PROTOCOLS[protocol], grid, rng), label_map(parts, shape)


def _draw_faults(rng: np.random.Generator, part: Casting) -> Iterator[Fault]:
    """Faults grow in number and size with the severity; none breaks through the surface."""
    severity = part.severity
    for _ in range(rng.poisson(14 * severity)):
        radius = float(np.clip(rng.lognormal(math.log(1.0 + 1.5 * severity), 0.3), 0.6, 3.4))
        yield from _placed(rng, part, "gas_pore", (radius, radius, radius))
    for _ in range(rng.poisson(4 * severity)):
        radius = float(rng.uniform(0.6, 1.0 + 1.2 * severity))
        yield from _placed(rng, part, "inclusion", (radius, 0.7 * radius, 1.3 * radius))
    for _ in range(rng.poisson(2.5 * severity)):
        yield from _draw_cavity(rng, part)


def _draw_cavity(rng: np.random.Generator, part: Casting) -> Iterator[Fault]:
    """A shrinkage cavity: a walk of bubbles through the metal that froze last."""
    for seed in _placed(rng, part, "shrinkage", (2.0, 2.0, 2.0)):
        centre = np.array(seed.centre_mm)
        for _ in range(int(rng.integers(6, 6 + int(18 * part.severity) + 1))):
            a, b, c = rng.uniform(0.5, 0.9 + 0.9 * part.severity, 3).tolist()
            x, y, z = centre.tolist()
            if _depth(part, centre[:, None])[0] > max(a, b, c) + SKIN_MM:
                yield Fault("shrinkage", (x, y, z), (a, b, c))
            centre = np.array(seed.centre_mm) + 0.75 * (centre - seed.centre_mm) + rng.normal(0, 1.1, 3)


def _placed(rng: np.random.Generator, part: Casting, name: str, radii: Vector) -> Iterator[Fault]:
    """The fault at the first of many random places that leaves it whole inside the metal; none where no place does."""
    places = rng.uniform(-1, 1, (3, 200)) * np.array([*part.flange_mm, 24.0])[:, None]
    fitting = np.flatnonzero(_depth(part, places) > max(radii) + SKIN_MM)
    if fitting.size:
        x, y, z = places[:, fitting[0]].tolist()
        yield Fault(name, (x, y, z), radii)


def _depth(part: Casting, places: Field) -> Field:
    x, y, z = places.astype(np.float64)
    return -_metal((x, y, z), part)


def _metal(points: Points, part: Casting) -> Field:
    """Flange with bolt holes, hub with a bore, and ribs between them, all with rounded edges and fillets."""
    x, y, z = points
    radius = np.hypot(x, y)
    (width, depth), hub = part.flange_mm, part.hub_mm
    outline = (superellipse(x * (1 / width), y * (1 / depth), 5.0) - 1) * min(width, depth)
    flange = smooth_max(outline, np.abs(z - FLANGE_Z_MM) - FLANGE_HALF_MM, 1.5)
    cylinder = smooth_max(radius - hub, np.abs(z + 0.0) - 22, 1.5)
    body = smooth_min(flange, cylinder, 3.0)
    for rib in range(part.num_ribs):
        angle = 2 * math.pi * (rib + 0.5) / part.num_ribs
        along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        slope = (along - hub + z - FLANGE_Z_MM - 16) * math.sqrt(0.5)
        plate = np.maximum(np.maximum(np.abs(across) - 2.4, slope), np.maximum(-along + 0.5 * hub, FLANGE_Z_MM - z))
        body = smooth_min(body, smooth_max(plate, outline + 1.5, 1.0), 2.0)
    body = smooth_max(body, part.bore_mm - radius, 1.0)
    body = smooth_max(body, -smooth_max(radius - part.bore_mm - 3.0, 14 - z, 0.8), 1.0)  # seat of a bearing
    for hole_x, hole_y in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        bolt = np.hypot(x - hole_x * (width - 7.5), y - hole_y * (depth - 7.0)) - part.hole_mm
        body = smooth_max(body, -bolt, 0.6)
    return body


def _parts(grid: Grid, part: Casting) -> Iterator[Part]:
    whole, scale, voxel_mm = grid.whole(), grid.pose.scale, grid.mean_spacing_mm
    # The turntable's post holds the part from below: it is in the image, and nobody's class.
    post = capsule(grid.points, (0, 0, FLANGE_Z_MM - 12), (0, 0, -400), 15, 15) * scale
    yield Part("holder", whole, coverage(np.maximum(post, grid.points[2] - FLANGE_Z_MM + FLANGE_HALF_MM), voxel_mm))
    yield Part("metal", whole, coverage(_metal(grid.points, part) * scale, voxel_mm), LABELS["metal"])
    for fault in part.faults:
        box, share = _ellipsoid_on(grid, fault)
        yield Part(fault.name, box, share, LABELS[fault.name])


def _ellipsoid_on(grid: Grid, fault: Fault) -> tuple[Box, Field]:
    box = grid.around(fault.centre_mm, fault.centre_mm, max(fault.radii_mm) + 2)
    return box, coverage(ellipsoid(grid.at(box), fault.centre_mm, fault.radii_mm) * grid.pose.scale, grid.mean_spacing_mm)
