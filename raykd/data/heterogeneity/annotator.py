"""How annotators err: boundaries that wander, lie too far out or in, and structures that are overlooked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import ndtri

from raykd.data.case import LABEL_UNKNOWN, Case
from raykd.numerics.rng import numpy_generator
from raykd.scenario.sites import LabelNoise

CORRELATION_MM = 4.0
"""Standard deviation of the Gaussian that smooths the displacements: a hand strays over centimetres, not from voxel to voxel."""
EDGE_VOXELS = 0.6
"""Standard deviation, in voxels, of the Gaussian whose value at a mask's edge tells how far within a voxel its surface lies."""
REACH_SIGMAS = 4.0
"""Displacements beyond so many standard deviations are cut off."""


def annotate(case: Case, noise: LabelNoise, *, seed: int, site: str) -> Case:
    """The case as a site's annotator would outline it.

    First components (of 26 neighbours) of classes are overlooked and become background; then the surface of every class moves
    outwards by `bias_mm` plus a smooth field of its own with standard deviation `boundary_mm`. A voxel belongs to the class that
    it lies deepest in, so that classes never overlap and two that touch keep their common surface under bias; unknown voxels
    stay unknown and take part in nothing. For training labels.

    Args:
        case: with or without labels; without, or where all of `noise` is 0, it is returned as it came.
        noise: strengths, in mm, and a probability.
        seed, site: with the case's name, the address of every draw.
    """
    if case.label_IJK is None or noise == LabelNoise():
        return case
    label = case.label_IJK.numpy().copy()
    classes = [int(value) for value in np.unique(label) if value not in (0, LABEL_UNKNOWN)]
    overlooked = _overlook(label, classes, noise.missing, numpy_generator(seed, "annotator missing", site, case.case_id))
    if noise.boundary_mm or noise.bias_mm:
        rngs = {value: numpy_generator(seed, "annotator", site, case.case_id, value) for value in classes}
        label = _redrawn(label, rngs, noise, case.spacing_mm)
    recorded = {
        "annotator.boundary_mm": noise.boundary_mm,
        "annotator.bias_mm": noise.bias_mm,
        "annotator.num_overlooked": float(overlooked),
    }
    return replace(case.with_record(**recorded), label_IJK=torch.from_numpy(label))


def _overlook(label: NDArray[np.uint8], classes: Sequence[int], probability: float, rng: np.random.Generator) -> int:
    """Turns components into background, in place; how many."""
    count = 0
    for value in classes:
        components, number = ndimage.label(label == value, structure=np.ones((3, 3, 3)))
        is_missed = np.concatenate([[False], rng.random(number) < probability])
        label[is_missed[components]] = 0
        count += int(is_missed.sum())
    return count


def _redrawn(
    label: NDArray[np.uint8], rngs: dict[int, np.random.Generator], noise: LabelNoise, spacing_mm: Sequence[float]
) -> NDArray[np.uint8]:
    """The label map after the surface of every class has moved."""
    depth, result = np.zeros(label.shape), np.zeros_like(label)
    reach_mm = abs(noise.bias_mm) + REACH_SIGMAS * noise.boundary_mm
    for value, rng in rngs.items():
        box = _box(label == value, reach_mm, spacing_mm)
        if box is None:
            continue
        moved = signed_distance(label[box] == value, spacing_mm) + noise.bias_mm
        if noise.boundary_mm:
            limit = REACH_SIGMAS * noise.boundary_mm
            moved += np.clip(noise.boundary_mm * smooth_field(label.shape, spacing_mm, rng)[box], -limit, limit)
        is_deeper = moved > depth[box]
        depth[box][is_deeper], result[box][is_deeper] = moved[is_deeper], value
    result[label == LABEL_UNKNOWN] = LABEL_UNKNOWN
    return result


def _box(mask: NDArray[np.bool_], reach_mm: float, spacing_mm: Sequence[float]) -> tuple[slice, ...] | None:
    """The part of the volume that a mask can grow into, with two voxels to spare; None: the mask is empty."""
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        return None
    margins = [math.ceil(reach_mm / mm) + 2 for mm in spacing_mm]
    edges = zip(found[0], margins, mask.shape, strict=True)
    return tuple(slice(max(side.start - more, 0), min(side.stop + more, size)) for side, more, size in edges)


def signed_distance(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Distance of every voxel's centre to the surface of a mask, in mm, positive inside.

    Distances between centres alone would make every surface lie on a centre. Where within a voxel it lies is told by the mask
    after a slight blur: beside a flat surface that is the normal distribution function of distance over the blur's width. Every
    voxel then has the distance to the nearest centre on the other side, less that centre's own distance to the surface.

    Args:
        mask: (I, J, K), not empty; a full one has no surface, and every distance is infinite.
        spacing_mm: voxel edges.
    """
    if mask.all():
        return np.full(mask.shape, np.inf)
    edges_mm = np.asarray(spacing_mm)
    blurred = ndimage.gaussian_filter(mask.astype(np.float64), EDGE_VOXELS, mode="nearest")
    normal = np.stack([ndimage.sobel(blurred, axis) / mm for axis, mm in enumerate(edges_mm)], axis=-1)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    width_mm = EDGE_VOXELS * np.linalg.norm(normal * edges_mm, axis=-1)
    to_surface_mm = np.abs(ndtri(np.clip(blurred, 1e-3, 1 - 1e-3))) * width_mm
    is_across = (blurred > 0.5) != mask
    to_surface_mm[is_across] = 0.0
    distance = np.zeros(mask.shape)
    for side, sign in ((mask, 1.0), (~mask, -1.0)):
        between_mm, nearest = ndimage.distance_transform_edt(side, sampling=edges_mm, return_indices=True)
        inside_mm = np.maximum(between_mm - to_surface_mm[tuple(nearest)], 1e-3 * edges_mm.min())
        distance[side] = sign * inside_mm[side]
    return distance


def smooth_field(shape: Sequence[int], spacing_mm: Sequence[float], rng: np.random.Generator) -> NDArray[np.float64]:
    """A Gaussian random field of standard deviation 1 at every voxel, correlated over `CORRELATION_MM`, periodic at the borders.

    Args:
        shape: of the volume.
        spacing_mm: voxel edges.
        rng: source of the field.
    """
    field: NDArray[np.float64] = rng.standard_normal(tuple(shape))
    for axis, (size, mm) in enumerate(zip(shape, spacing_mm, strict=True)):
        point = np.zeros(size)
        point[0] = 1.0
        kernel = ndimage.gaussian_filter1d(point, CORRELATION_MM / mm, mode="wrap")
        field = ndimage.gaussian_filter1d(field, CORRELATION_MM / mm, axis=axis, mode="wrap") / np.linalg.norm(kernel)
    return field
