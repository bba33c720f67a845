"""From a subject to a labelled volume and the list of tissues that a scan paints, one over the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raykd.data.phantom.implicit import Box, Field, Points, Surface, coverage, ellipsoid, overlap, smooth_min, step, surface, within
from raykd.data.phantom.knee import bones, joint
from raykd.data.phantom.knee.cartilage import Plate, femoral_thickness, patellar_thickness, plate, share_contact, tibial_thickness
from raykd.data.phantom.knee.grid import KneeGrid
from raykd.data.phantom.knee.leg import Layers, leg
from raykd.data.phantom.knee.placement import Placement, place
from raykd.data.phantom.knee.population import Subject
from raykd.scenario.errors import DataError

LABELS = {
    "femur": 1,
    "femoral_cartilage": 2,
    "tibia": 3,
    "medial_tibial_cartilage": 4,
    "lateral_tibial_cartilage": 5,
    "patella": 6,
    "patellar_cartilage": 7,
    "medial_meniscus": 8,
    "lateral_meniscus": 9,
}
STRUCTURES: dict[str, tuple[int, ...]] = {
    **{name: (label,) for name, label in LABELS.items()},
    "tibial_cartilage": (4, 5),
    "meniscus": (8, 9),
}
"""Every structure that can be asked for, and the labels it is made of."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A tissue painted on a box of voxels; `opacity` 255 hides what lies below."""

    tissue: str
    box: Box
    opacity: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A subject on a grid: independent of the sequence, so that a second contrast costs one more painting.

    Attributes:
        subject: who it is.
        spacing_mm: voxel edges along I, J, K (right, anterior, superior).
        label_IJK: uint8, 0 background, else as in `LABELS`.
        layers: in painting order.
    """

    subject: Subject
    spacing_mm: tuple[float, float, float]
    label_IJK: NDArray[np.uint8]
    layers: tuple[Layer, ...]


@dataclass(frozen=True, eq=False)
class Knee:
    """Bones, cartilage plates, menisci. `space` is the box of the tibial plate and the menisci, inside both bones' boxes."""

    grid: KneeGrid
    femur: Surface
    tibia: Surface
    patella: Surface
    fibula: Surface
    femoral: Plate
    tibial: Plate
    patellar: Plate
    space: Box
    menisci: tuple[Field, Field]


def build_anatomy(subject: Subject, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Anatomy:
    """Builds the knee of a subject on a grid centred on the joint.

    Args:
        subject: drawn by `draw_subject`.
        shape: number of voxels along I, J, K; 100 mm by 135 mm by 100 mm hold the joint, less crops it.
        spacing_mm: voxel edges along I, J, K; above 3 mm the cartilage is thinner than a voxel.

    Raises:
        DataError: the grid is so small that a bone lies outside it.
    """
    grid = KneeGrid(subject, shape, spacing_mm)
    placement = place(subject)
    knee = _assemble(grid, placement)
    layers = (*leg(grid, placement), *_joint_layers(knee, placement), *_bone_layers(knee))
    painted = tuple(Layer(tissue, box, (opacity * 255 + 0.5).astype(np.uint8)) for tissue, box, opacity in layers)
    return Anatomy(subject, spacing_mm, _label(knee), painted)


def _assemble(grid: KneeGrid, placement: Placement) -> Knee:
    subject = grid.subject
    femur, tibia, patella, fibula = _bones(grid, placement)
    joint_box = grid.box((-50, -46, -20), (50, 78, 68))
    space = overlap(joint_box, tibia.box)
    roughness = 1 + 0.08 * grid.noise("thickness", 10.0)
    tibial_bone, femoral_bone = tibia.at(space), femur.at(joint_box)
    femoral_points = placement.femur_frame(grid.at(joint_box))
    tibial = plate(tibial_bone, tibial_thickness(grid.at(space), tibial_bone, subject) * roughness[space])
    femoral = plate(femoral_bone, femoral_thickness(femoral_points, femoral_bone, subject) * roughness[joint_box])
    patellar = plate(patella, patellar_thickness(grid.at(patella.box), patella, subject) * roughness[patella.box])
    femoral_share, tibial_share = share_contact(femoral.at(space), tibial)
    coverage_f = femoral.coverage.copy()
    coverage_f[within(joint_box, space)] = femoral_share
    return Knee(
        grid=grid,
        femur=femur,
        tibia=tibia,
        patella=patella,
        fibula=fibula,
        femoral=replace(femoral, coverage=coverage_f),
        tibial=replace(tibial, coverage=tibial_share),
        patellar=patellar,
        space=space,
        menisci=_menisci(grid.at(space), tibial_bone, grid),
    )


def _menisci(points: Points, tibia: Surface, grid: KneeGrid) -> tuple[Field, Field]:
    """Coverage of both; of one that was taken out, nothing."""
    has = ["medial_meniscus" not in grid.subject.missing, "lateral_meniscus" not in grid.subject.missing]
    medial, lateral = joint.menisci(points, tibia, grid.subject, grid.mean_spacing_mm)
    return medial * np.float32(has[0]), lateral * np.float32(has[1])


def _bones(grid: KneeGrid, placement: Placement) -> tuple[Surface, Surface, Surface, Surface]:
    """Femur, tibia, patella and fibula in the scanner, each on a box of its own."""
    subject = grid.subject
    boxes = (
        grid.box((-50, -46, -20), (50, 78, 150)),
        grid.box((-50, -46, -150), (50, 78, 20)),
        grid.box((-32, 30, 5), (32, 75, 66)),
        grid.box((-50, -40, -150), (-15, 5, -8)),
    )
    if any(axis.stop - axis.start < 1 for box in boxes for axis in box):
        raise DataError(
            f"the grid must reach every bone, got {grid.shape} voxels of {grid.spacing_mm} mm; enlarge the field of view"
        )
    femur_points = placement.femur_frame(grid.at(boxes[0]))
    femur = bones.femur(femur_points, subject)
    tibia_points = grid.at(boxes[1])
    tibia = bones.tibia(tibia_points, subject)
    for spur in subject.osteophytes:
        r = spur.radius_mm
        if spur.centre_mm[2] < 2:
            tibia = smooth_min(tibia, ellipsoid(tibia_points, spur.centre_mm, (1.2 * r, 1.6 * r, r)), 2)
        else:
            femur = smooth_min(femur, ellipsoid(femur_points, spur.centre_mm, (1.2 * r, 1.6 * r, 1.2 * r)), 2)
    fields = (femur, tibia, bones.patella(grid.at(boxes[2]), placement.patella_y_mm), bones.fibula(grid.at(boxes[3])))
    f, t, p, b = (surface(field * subject.scale, box, grid.spacing_mm) for field, box in zip(fields, boxes, strict=True))
    return f, t, p, b


def _joint_layers(knee: Knee, placement: Placement) -> Layers:
    """Fluid, menisci, ligaments and cartilage."""
    grid, effusion, voxel_mm = knee.grid, knee.grid.subject.effusion, knee.grid.mean_spacing_mm
    yield "fluid", knee.space, joint.tibiofemoral_film(grid.at(knee.space), knee.femoral.at(knee.space), knee.tibial, effusion)
    bursa = grid.box((-30, 20, 18), (30, 62, 78))
    yield "fluid", bursa, joint.suprapatellar_bursa(grid.at(bursa), knee.femur.at(bursa), effusion, voxel_mm)
    behind = knee.patella.box
    if _has_patella(knee):
        yield "fluid", behind, joint.patellofemoral_film(grid.at(behind), knee.femoral.at(behind), knee.patellar, effusion)
    for meniscus in knee.menisci:
        yield "meniscus", knee.space, meniscus
    yield from joint.cords(grid, placement)
    for cartilage in (knee.femoral, knee.tibial, knee.patellar)[: 2 + _has_patella(knee)]:
        yield "deep_cartilage", cartilage.bone.box, cartilage.coverage
        yield "superficial_cartilage", cartilage.bone.box, cartilage.coverage * cartilage.depth**2


def _bone_layers(knee: Knee) -> Layers:
    grid = knee.grid
    red = grid.subject.red_marrow + 0.12 * grid.noise("red-marrow", 6.5)
    x, _, z = grid.points
    upper, lower = knee.femur.box, knee.tibia.box
    yield from _long_bone(knee.femur, x[upper], z[upper], red[upper], (52, 34, 33), grid.mean_spacing_mm)
    yield from _long_bone(knee.tibia, x[lower], -z[lower], red[lower], (38, 22, 18), grid.mean_spacing_mm)
    for bone, cortex_mm in ((knee.fibula, 1.2), (knee.patella, 1.1))[: 1 + _has_patella(knee)]:
        yield "cortical_bone", bone.box, bone.coverage()
        yield "fatty_marrow", bone.box, bone.coverage(-cortex_mm)
    yield from _marrow_lesions(knee)


def _long_bone(
    bone: Surface, x: Field, height: Field, red: Field, levels_mm: tuple[float, float, float], voxel_mm: float
) -> Layers:
    """A bone whose cortex thickens and whose marrow reddens away from the joint.

    Args:
        height: distance from the joint along the shaft, in mm.
        red: share of red marrow in the shaft.
        levels_mm: heights at which the cortex thickens, the red marrow begins, and the physeal scar lies.
    """
    cortex_at, red_at, scar_at = levels_mm
    inner = bone.coverage(-(0.9 + 2.2 * step(height - cortex_at, 6)))
    yield "cortical_bone", bone.box, bone.coverage()
    yield "fatty_marrow", bone.box, inner
    yield "red_marrow", bone.box, inner * np.clip(red * step(height - red_at, 3), 0, 0.8)
    scar = np.abs(height - scar_at - 1.2 * np.cos(x * (1 / 7))) - 0.35
    yield "cortical_bone", bone.box, 0.5 * inner * coverage(scar, voxel_mm)


def _marrow_lesions(knee: Knee) -> Layers:
    """Oedema of the bone under deep cartilage defects."""
    for lesion in knee.grid.subject.lesions:
        if lesion.depth > 0.6:
            bone, z_mm = (knee.tibia, -5.0) if lesion.is_tibial else (knee.femur, 10.0)
            centre = (lesion.x_mm, lesion.y_mm, z_mm)
            box = overlap(bone.box, knee.grid.around(centre, centre, 12))
            square = sum((p - c) ** 2 for p, c in zip(knee.grid.at(box), centre, strict=True))
            glow = np.exp(square * (-0.5 / (0.7 * lesion.radius_mm) ** 2))
            yield "marrow_lesion", box, 0.75 * glow * bone.at(box).coverage(-1.0)


def _has_patella(knee: Knee) -> bool:
    """False after a patellectomy, which takes the cartilage along."""
    return "patella" not in knee.grid.subject.missing


def _label(knee: Knee) -> NDArray[np.uint8]:
    """A structure owns a voxel when it covers more than half of it; bone wins over cartilage, cartilage over meniscus."""
    label = np.zeros(knee.grid.shape, np.uint8)
    for name, box, share in _owners(knee):
        label[box][share > 0.5] = LABELS[name]
    return label


def _owners(knee: Knee) -> Iterator[tuple[str, Box, Field]]:
    is_medial = knee.grid.at(knee.space)[0] > 0
    yield "medial_meniscus", knee.space, knee.menisci[0]
    yield "lateral_meniscus", knee.space, knee.menisci[1]
    yield "femoral_cartilage", knee.femoral.bone.box, knee.femoral.coverage
    yield "medial_tibial_cartilage", knee.space, knee.tibial.coverage * is_medial
    yield "lateral_tibial_cartilage", knee.space, knee.tibial.coverage * ~is_medial
    for name, bone in (("femur", knee.femur), ("tibia", knee.tibia)):
        yield name, bone.box, bone.coverage()
    if _has_patella(knee):
        yield "patellar_cartilage", knee.patella.box, knee.patellar.coverage
        yield "patella", knee.patella.box, knee.patella.coverage()
