"""How far two surfaces lie apart, each piece of a surface counted by its area.

Definitions and numbers as in surface-distance (Nikolov et al., Journal of Medical Internet Research 23(7), 2021,
https://doi.org/10.2196/26151; https://github.com/google-deepmind/surface-distance, Apache License 2.0). A surface runs through the
corners of voxels: each corner whose eight voxels are not all alike is a point of it, with the area of the triangles that marching
cubes puts there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

ROUNDING = 1e-5
"""Share of a tolerance that a distance may lie beyond it: 0.7 mm is then within 0.7 mm."""
TRIANGLES = {
    ".": "", "a": "111", "b": "004 004", "c": "022 022", "d": "040 040", "e": "111 111", "f": "202 202", "g": "220 220",
    "h": "400 400", "i": "004 111 222", "j": "022 022 111", "k": "040 111 222", "l": "111 111 111", "m": "111 202 202",
    "n": "111 220 220", "o": "111 222 400", "p": "004 111 111 222", "q": "022 022 022 022", "r": "022 111 202 333",
    "s": "022 111 220 333", "t": "040 111 111 222", "u": "111 111 111 111", "v": "111 111 222 222", "w": "111 111 222 400",
    "x": "111 202 220 333", "y": "202 202 202 202", "z": "220 220 220 220",
}  # fmt: skip
"""By kind of corner, the area vectors of its triangles in eighths of a face of a voxel: across I, J and K, without sign."""
KINDS = (
    ".aagafeoaefogoohacekeilvejmrnswoaeckemjrelivnwsogkkdnxtkntxkznng"
    "aeencijselmwkvrofimxibpimpymximfeljtjpqjlupltljeovrksijcwlmeneea"
)
"""The kind of corner with code 0, ..., 127; one with the opposite voxels inside, 255 minus the code, is of the same kind."""


@dataclass(frozen=True)
class Distances:
    """From each point of one surface to the nearest point of another.

    Attributes:
        mm: distances, in rising order.
        areas_mm2: of the surface at the points, in the same order.
    """

    mm: NDArray[np.float64]
    areas_mm2: NDArray[np.float64]

    def area_within(self, tolerance_mm: float) -> float:
        """The area in mm2 that is no further away than a tolerance."""
        return float(self.areas_mm2[self.mm <= tolerance_mm * (1 + ROUNDING)].sum())

    def percentile_mm(self, share: float) -> float:
        """The smallest distance that `share` of the area, 0 to 1, does not exceed."""
        summed = np.cumsum(self.areas_mm2)
        return float(self.mm[min(int(np.searchsorted(summed, share * summed[-1])), len(self.mm) - 1)])


def surface_distances(
    pred_IJK: NDArray[np.integer], ref_IJK: NDArray[np.integer], num_classes: int, spacing_mm: Sequence[float]
) -> list[tuple[Distances, Distances] | None]:
    """By class 1, ..., `num_classes`, the distances of the prediction's surface to the reference's, and back.

    None where a map lacks the class. The border of the image bounds what reaches it.

    Args:
        pred_IJK, ref_IJK: classes, alike in shape.
        spacing_mm: voxel edges along I, J, K.
    """
    areas = corner_areas_mm2(spacing_mm)
    boxes = zip(find_objects(pred_IJK, num_classes), find_objects(ref_IJK, num_classes), strict=True)
    results: list[tuple[Distances, Distances] | None] = []
    for index, (box_pred, box_ref) in enumerate(boxes, start=1):
        if box_pred is None or box_ref is None:
            results.append(None)
            continue
        box = tuple(slice(min(p.start, r.start), max(p.stop, r.stop)) for p, r in zip(box_pred, box_ref, strict=True))
        results.append(_between(corner_codes(pred_IJK[box] == index), corner_codes(ref_IJK[box] == index), areas, spacing_mm))
    return results


def surface_scores(between: tuple[Distances, Distances], tolerance_mm: float) -> tuple[float, float, float]:
    """NSD, HD95 and ASSD, the latter two in mm.

    Args:
        between: the distances both ways.
        tolerance_mm: distance up to which two surfaces coincide, at least 0.

    Returns:
        The share of both areas within the tolerance; the larger of the two 95th percentiles; the mean distance over both areas.
    """
    area_mm2 = sum(float(way.areas_mm2.sum()) for way in between)
    nsd = sum(way.area_within(tolerance_mm) for way in between) / area_mm2
    assd_mm = sum(float(way.mm @ way.areas_mm2) for way in between) / area_mm2
    return min(nsd, 1.0), max(way.percentile_mm(0.95) for way in between), assd_mm


def corner_codes(mask_IJK: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Which of the eight voxels around each corner are inside, one bit each: uint8 (I + 1, J + 1, K + 1).

    The bit of a voxel before the corner along I counts 16 times that of the one after it; along J 4 times, along K twice. All is
    outside beyond the array.
    """
    found = np.pad(mask_IJK.astype(np.uint8), 1)
    found = 2 * found[:, :, :-1] + found[:, :, 1:]
    found = 4 * found[:, :-1] + found[:, 1:]
    codes: NDArray[np.uint8] = 16 * found[:-1] + found[1:]
    return codes


def corner_areas_mm2(spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """By code 0, ..., 255, the area of a surface at a corner.

    Args:
        spacing_mm: voxel edges along I, J, K.
    """
    i, j, k = spacing_mm
    faces_mm2 = np.array([j * k, i * k, i * j]) / 8
    by_kind = {kind: _area_mm2(triangles, faces_mm2) for kind, triangles in TRIANGLES.items()}
    first = [by_kind[kind] for kind in KINDS]
    return np.array(first + first[::-1])


def _area_mm2(triangles: str, faces_mm2: NDArray[np.float64]) -> float:
    vectors = [np.array([int(digit) for digit in vector]) * faces_mm2 for vector in triangles.split()]
    return float(sum(np.linalg.norm(vector) for vector in vectors))


def _between(
    pred_IJK: NDArray[np.uint8], ref_IJK: NDArray[np.uint8], areas_mm2: NDArray[np.float64], spacing_mm: Sequence[float]
) -> tuple[Distances, Distances]:
    """The distances of two surfaces, each given by the codes of corners."""
    pred, ref = ((codes > 0) & (codes < 255) for codes in (pred_IJK, ref_IJK))  # some of the eight voxels inside, some outside
    points_pred, points_ref = (np.argwhere(surface) * spacing_mm for surface in (pred, ref))
    forth = _distances(points_pred, points_ref, ref[pred], areas_mm2[pred_IJK[pred]])
    return forth, _distances(points_ref, points_pred, pred[ref], areas_mm2[ref_IJK[ref]])


def _distances(
    points: NDArray[np.floating], targets: NDArray[np.floating], is_shared: NDArray[np.bool_], areas_mm2: NDArray[np.float64]
) -> Distances:
    """From each of the points to the nearest of the targets, in mm; those that are shared lie at distance 0."""
    found = np.zeros(len(points))
    # A tree built without medians answers one batch of queries sooner.
    tree = cKDTree(targets, leafsize=32, balanced_tree=False, compact_nodes=False)
    found[~is_shared] = tree.query(points[~is_shared])[0]
    order = np.argsort(found, kind="stable")
    return Distances(found[order], areas_mm2[order])
