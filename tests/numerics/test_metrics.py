"""Metrics against MONAI and surface-distance, against shapes whose distances are known, and the table of empty classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics.utils import get_edge_surface_distance
from scipy.ndimage import gaussian_filter

from raykd.numerics.metrics import ClassMetrics, evaluate_case
from raykd.numerics.rng import numpy_generator
from raykd.numerics.surfaces import corner_areas_mm2, corner_codes

SHAPE = (14, 18, 16)


def smooth_labels(rng: np.random.Generator, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping label maps; blobs reach the border of the image."""
    field = gaussian_filter(rng.standard_normal(SHAPE), 2.0)
    other = field + rng.uniform(0.1, 0.8) * gaussian_filter(rng.standard_normal(SHAPE), 2.0)
    share = 1 - np.linspace(0.5, 0.15, num_classes)
    return tuple(np.digitize(f, np.quantile(f, share)).astype(np.uint8) for f in (other, field))  # type: ignore[return-value]


def monai_scores(pred: np.ndarray, ref: np.ndarray, spacing_mm: tuple[float, ...], tolerance_mm: float) -> tuple[float, ...]:
    """NSD, HD95 and ASSD of MONAI's surface elements, whose areas are those of surface-distance, too."""
    pair = [torch.from_numpy(np.pad(mask, 1)).float() for mask in (pred, ref)]
    edges, apart, areas = get_edge_surface_distance(*pair, spacing=list(spacing_mm), use_subvoxels=True, symmetric=True)
    areas = [area[edge].numpy().astype(float) for area, edge in zip(areas, edges, strict=True)]
    apart = [distance.numpy().astype(float) for distance in apart]
    both, weights = np.concatenate(apart), np.concatenate(areas)
    hd95_mm = max(_percentile(*way) for way in zip(apart, areas, strict=True))
    return weights[both <= tolerance_mm].sum() / weights.sum(), hd95_mm, float(both @ weights / weights.sum())


def _percentile(distances: np.ndarray, areas: np.ndarray) -> float:
    order = distances.argsort()
    reached = areas[order].cumsum() / areas.sum() >= 0.95
    return float(distances[order][reached.argmax()])


def scores(metrics: ClassMetrics) -> tuple[float | None, float | None, float | None]:
    return metrics.nsd, metrics.hd95_mm, metrics.assd_mm


def cube(low: tuple[int, int, int], edge: int = 6, shape: tuple[int, int, int] = (20, 22, 24)) -> np.ndarray:
    mask = np.zeros(shape, dtype=np.uint8)
    mask[tuple(slice(start, start + edge) for start in low)] = 1
    return mask


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")
@pytest.mark.parametrize("seed", range(40))
def test_surface_metrics_are_those_of_monai_s_surface_elements(seed: int) -> None:
    rng = numpy_generator(seed, "test")
    spacing_mm = tuple(rng.uniform(0.3, 4.0, 3))
    tolerance_mm = float(rng.uniform(0.2, 3.0))
    pred, ref = smooth_labels(rng, 2)
    for index, metrics in enumerate(evaluate_case(pred, ref, 2, spacing_mm, surface=True, nsd_tolerance_mm=tolerance_mm), 1):
        expected = monai_scores(pred == index, ref == index, spacing_mm, tolerance_mm)
        assert scores(metrics) == pytest.approx(expected, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_dice_equals_counting_sets(seed: int) -> None:
    pred, ref = smooth_labels(numpy_generator(seed, "test"), 3)
    for index, metrics in enumerate(evaluate_case(pred, ref, 3, (1, 1, 1), surface=False), 1):
        a, b = set(np.flatnonzero(pred == index)), set(np.flatnonzero(ref == index))
        assert metrics.dsc == pytest.approx(2 * len(a & b) / (len(a) + len(b)))


@pytest.mark.parametrize(("axis", "shift_mm"), [(0, 3 * 0.5), (1, 3 * 0.7), (2, 3 * 1.3)])
def test_shifted_cube(axis: int, shift_mm: float) -> None:
    """A cube of edge 6 moved by 3 voxels along an axis: half of it overlaps."""
    spacing_mm = (0.5, 0.7, 1.3)
    low, moved = [5, 6, 7], [5, 6, 7]
    moved[axis] += 3
    [metrics] = evaluate_case(cube(tuple(moved)), cube(tuple(low)), 1, spacing_mm, surface=True, nsd_tolerance_mm=shift_mm)
    assert metrics.dsc == pytest.approx(0.5)
    # The uncovered end face, at least 5 % of either area, lies a whole shift away; nothing lies further.
    assert metrics.hd95_mm == pytest.approx(shift_mm)
    assert metrics.nsd == 1.0
    assert metrics.volume_ref_mm3 == metrics.volume_pred_mm3 == pytest.approx(216 * 0.5 * 0.7 * 1.3)
    [closer] = evaluate_case(cube(tuple(moved)), cube(tuple(low)), 1, spacing_mm, surface=True, nsd_tolerance_mm=shift_mm - 1e-3)
    assert closer.nsd is not None and closer.nsd < 1.0


@pytest.mark.parametrize("low", [[2, 5], [5, 2]])
def test_single_voxels_three_apart(low: list[int]) -> None:
    """The corners of one are two and three voxels of 0.7 mm from the nearest of the other, four each, all of one area."""
    pred, ref = (cube((i, 2, 2), 1) for i in low)
    [metrics] = evaluate_case(pred, ref, 1, (0.7, 9.0, 9.0), surface=True, nsd_tolerance_mm=2.1)
    assert scores(metrics) == pytest.approx((1.0, 2.1, 1.75))
    [closer] = evaluate_case(pred, ref, 1, (0.7, 9.0, 9.0), surface=True, nsd_tolerance_mm=1.4)
    assert closer.nsd == pytest.approx(0.5)


def test_surfaces_are_pooled_by_area() -> None:
    """One voxel against it and another, two voxels of 2 mm along I: 8 corners at 0 mm; 8 at 0, 4 at 2 and 4 at 4 mm back."""
    pred, ref = cube((2, 2, 2), 1), cube((2, 2, 2), 1)
    ref[4, 2, 2] = 1
    [metrics] = evaluate_case(pred, ref, 1, (2.0, 1.0, 1.0), surface=True, nsd_tolerance_mm=1.0)
    # A mean of means would be 0.75 mm; three quarters of the reference's area lie within 2 mm.
    assert scores(metrics) == pytest.approx((16 / 24, 4.0, (4 * 2 + 4 * 4) / 24))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_tolerance_below_a_voxel_is_none_and_by_default_it_is_the_finest_edge(axis: int) -> None:
    """A cube moved by one voxel of 1.25 mm: at 1 mm all that moved is wrong, as at 0 mm; at the finest edge nothing is."""
    low, moved, spacing_mm = [5, 6, 7], [5, 6, 7], [2.5, 2.5, 2.5]
    moved[axis] += 1
    spacing_mm[axis] = 1.25
    at = {
        mm: evaluate_case(cube(tuple(moved)), cube(tuple(low)), 1, tuple(spacing_mm), surface=True, nsd_tolerance_mm=mm)[0].nsd
        for mm in (0.0, 1.0, 1.25, None)
    }
    assert at[0.0] == at[1.0] < 0.9 and at[1.25] == at[None] == 1.0


def test_a_surface_has_the_area_of_its_corners() -> None:
    """Of a corner of a voxel a triangle through the middles of three edges, of a flat face its own, of an edge a slope."""
    areas = corner_areas_mm2((2.0, 3.0, 5.0))
    triangle = 0.5 * np.linalg.norm(np.cross([1.0, -1.5, 0.0], [1.0, 0.0, -2.5]))
    assert areas[[1, 2, 4, 8, 16, 32, 64, 128, 127]] == pytest.approx([triangle] * 9)
    assert areas[[0b11110000, 0b11001100, 0b10101010]] == pytest.approx([15.0, 10.0, 6.0])
    assert areas[0b11000000] == pytest.approx(5.0 * math.hypot(1.0, 1.5)) and areas[0] == areas[255] == 0.0


def test_codes_say_which_voxels_lie_around_a_corner() -> None:
    codes = corner_codes(np.ones((1, 1, 1), dtype=bool))
    assert codes.tolist() == [[[1, 2], [4, 8]], [[16, 32], [64, 128]]]


# What compute_surface_dice_at_tolerance and compute_robust_hausdorff of surface-distance 0.1 gave for these volumes.
RECORDED = {
    0: (0.9526498398432575, 1.730300422655095, 0.09035528010179288),
    1: (0.9958233464180779, 0.3810747243292233, 0.03633568570195015),
    2: (0.9562829547839431, 1.0114369483841372, 0.16891633649806903),
    3: (0.9867084678586676, 0.8044860272324554, 0.06700508978115384),
}


@pytest.mark.parametrize("seed", RECORDED)
def test_recorded_values_of_surface_distance(seed: int) -> None:
    rng = numpy_generator(seed, "recorded")
    spacing_mm = tuple(rng.uniform(0.3, 4.0, 3))
    pred, ref = smooth_labels(rng, 1)
    [metrics] = evaluate_case(pred, ref, 1, spacing_mm, surface=True, nsd_tolerance_mm=1.5)
    assert scores(metrics) == pytest.approx(RECORDED[seed], rel=1e-9)


def test_concentric_spheres() -> None:
    spacing_mm = (1.0, 0.5, 0.8)
    grid = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * s for n, s in zip((40, 80, 50), spacing_mm, strict=True)], indexing="ij")
    radius_mm = np.sqrt(sum(g**2 for g in grid))
    pred, ref = (radius_mm <= 16).astype(np.uint8), (radius_mm <= 12).astype(np.uint8)
    [metrics] = evaluate_case(pred, ref, 1, spacing_mm, surface=True, nsd_tolerance_mm=2.0)
    assert metrics.hd95_mm == pytest.approx(4.0, abs=1.0)
    assert metrics.assd_mm == pytest.approx(4.0, abs=0.5)
    assert metrics.nsd == 0.0
    assert metrics.volume_ref_mm3 == pytest.approx(4 / 3 * math.pi * 12**3, rel=0.01)
    assert metrics.dsc == pytest.approx(2 * 12**3 / (12**3 + 16**3), rel=0.01)


BLOB, NOTHING = cube((1, 1, 1), 2, (3, 4, 12)), np.zeros((3, 4, 12), dtype=np.uint8)


@pytest.mark.parametrize(
    ("pred", "ref", "expected"),
    [
        (NOTHING, NOTHING, ClassMetrics(None, None, None, None, 0.0, 0.0, True, True)),
        (BLOB, NOTHING, ClassMetrics(None, None, None, None, 0.0, 8.0, True, False)),
        (NOTHING, BLOB, ClassMetrics(0.0, 0.0, 13.0, 13.0, 8.0, 0.0, False, True)),
        (BLOB, BLOB, ClassMetrics(1.0, 1.0, 0.0, 0.0, 8.0, 8.0, False, False)),
    ],
)
def test_empty_classes(pred: np.ndarray, ref: np.ndarray, expected: ClassMetrics) -> None:
    """The image is 3 x 4 x 12 mm: its diagonal is 13 mm. An empty reference has no score, only the volume predicted there."""
    assert evaluate_case(pred, ref, 1, (1.0, 1.0, 1.0), surface=True) == [expected]


def test_classes_are_independent() -> None:
    """A class that only one map has, one that neither has and one that both have, in one case."""
    pred, ref = 3 * BLOB, 3 * BLOB
    ref[0, 0, 0] = 1
    first, second, third = evaluate_case(pred, ref, 3, (1.0, 1.0, 1.0), surface=True)
    assert (first.dsc, first.is_ref_empty, first.is_pred_empty) == (0.0, False, True)
    assert (second.dsc, second.is_ref_empty, second.is_pred_empty) == (None, True, True)
    assert (third.dsc, third.hd95_mm) == (1.0, 0.0)


def test_without_surface_nothing_is_invented() -> None:
    assert [scores(m) for m in evaluate_case(BLOB, NOTHING, 2, (1, 1, 1), surface=False)] == [(None, None, None)] * 2


def test_ignored_voxels_count_on_neither_side() -> None:
    ref = cube((2, 2, 2))
    pred = ref.copy()
    pred[12:, :, :] = 1
    ref[12:, :, :] = 255
    ref[2, 2, 2] = 255
    [metrics] = evaluate_case(pred, ref, 1, (1.0, 1.0, 1.0), surface=True)
    assert metrics == ClassMetrics(1.0, 1.0, 0.0, 0.0, 215.0, 215.0, False, False)


@pytest.mark.parametrize(
    ("pred", "ref", "message"),
    [
        (BLOB, NOTHING[1:], "alike in shape"),
        (4 * BLOB, NOTHING, r"prediction must lie in 0..3, got 0..4"),
        (NOTHING, 4 * BLOB, r"reference must lie in 0..3, got 0..4"),
    ],
)
def test_refusals(pred: np.ndarray, ref: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_case(pred, ref, 3, (1, 1, 1), surface=True)
