"""Metrics against MONAI, against shapes whose distances are known, and the table of empty classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import gaussian_filter

from raykd.numerics.metrics import ClassMetrics, evaluate_case
from raykd.numerics.rng import numpy_generator

SHAPE = (14, 18, 16)


def smooth_labels(rng: np.random.Generator, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping label maps; blobs reach the border of the image."""
    field = gaussian_filter(rng.standard_normal(SHAPE), 2.0)
    other = field + rng.uniform(0.1, 0.8) * gaussian_filter(rng.standard_normal(SHAPE), 2.0)
    share = 1 - np.linspace(0.5, 0.15, num_classes)
    return tuple(np.digitize(f, np.quantile(f, share)).astype(np.uint8) for f in (other, field))  # type: ignore[return-value]


def monai_scores(pred: np.ndarray, ref: np.ndarray, spacing_mm: tuple[float, ...], tolerance_mm: float) -> tuple[float, ...]:
    p, r = torch.from_numpy(pred)[None, None].float(), torch.from_numpy(ref)[None, None].float()
    spacing = list(spacing_mm)
    return (
        float(compute_surface_dice(p, r, [tolerance_mm], include_background=True, spacing=spacing)),
        float(compute_hausdorff_distance(p, r, include_background=True, percentile=95, directed=False, spacing=spacing)),
        float(compute_average_surface_distance(p, r, include_background=True, symmetric=True, spacing=spacing)),
    )


def scores(metrics: ClassMetrics) -> tuple[float | None, float | None, float | None]:
    return metrics.nsd, metrics.hd95_mm, metrics.assd_mm


def cube(low: tuple[int, int, int], edge: int = 6, shape: tuple[int, int, int] = (20, 22, 24)) -> np.ndarray:
    mask = np.zeros(shape, dtype=np.uint8)
    mask[tuple(slice(start, start + edge) for start in low)] = 1
    return mask


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")
@pytest.mark.parametrize("seed", range(60))
def test_surface_metrics_equal_monai(seed: int) -> None:
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
    # The uncovered end face (36 of 152 surface voxels, more than 5 %) lies a whole shift away; no voxel lies further.
    assert metrics.hd95_mm == pytest.approx(shift_mm)
    assert metrics.nsd == 1.0
    assert metrics.volume_ref_mm3 == metrics.volume_pred_mm3 == pytest.approx(216 * 0.5 * 0.7 * 1.3)
    [closer] = evaluate_case(cube(tuple(moved)), cube(tuple(low)), 1, spacing_mm, surface=True, nsd_tolerance_mm=shift_mm - 1e-3)
    assert closer.nsd is not None and closer.nsd < 1.0


@pytest.mark.parametrize("low", [[2, 5], [5, 2]])
def test_single_voxels_three_apart(low: list[int]) -> None:
    pred, ref = (cube((i, 2, 2), 1) for i in low)
    [metrics] = evaluate_case(pred, ref, 1, (0.7, 9.0, 9.0), surface=True, nsd_tolerance_mm=2.1)
    assert scores(metrics) == pytest.approx((1.0, 2.1, 2.1))


def test_assd_pools_both_surfaces() -> None:
    """One voxel against two: distances 0 one way, 0 and 4 mm the other; pooled mean 4/3, where a mean of means would be 1."""
    pred, ref = cube((2, 2, 2), 1), cube((2, 2, 2), 1)
    ref[4, 2, 2] = 1
    [metrics] = evaluate_case(pred, ref, 1, (2.0, 1.0, 1.0), surface=True, nsd_tolerance_mm=1.0)
    # The 95th percentile of (0, 4), linearly interpolated, is 3.8.
    assert scores(metrics) == pytest.approx((2 / 3, 3.8, 4 / 3))


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
