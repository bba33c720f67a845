"""Bins of confidence by hand, and against MONAI's calibration error, which bins one class at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import CalibrationErrorMetric

from raykd.numerics.calibration import LEAST_PROB, NUM_BINS, near_foreground, reliability_bins
from raykd.numerics.rng import numpy_generator


def error_of(probs_LN: np.ndarray, ref_N: np.ndarray) -> float:
    """The gap between confidence and accuracy of each bin, weighted by its voxels."""
    bins = reliability_bins(probs_LN, ref_N)
    return sum(abs(one.sum_confidence - one.num_correct) for one in bins) / sum(one.num_voxels for one in bins)


def test_four_voxels_by_hand() -> None:
    probs = np.array([[0.9, 0.92, 0.3, 0.05], [0.1, 0.08, 0.7, 0.95]])
    low, high, last = reliability_bins(probs, np.array([0, 1, 1, 0]))
    # 0.7 lies in (10/15, 11/15], 0.9 and 0.92 in (13/15, 14/15], 0.95 in the bin after that.
    assert (low.index, low.num_voxels, low.num_correct, low.sum_confidence) == (10, 1, 1, pytest.approx(0.7))
    assert (high.index, high.num_voxels, high.num_correct, high.sum_confidence) == (13, 2, 1, pytest.approx(1.82))
    assert (last.index, last.num_voxels, last.num_correct, last.sum_confidence) == (14, 1, 0, pytest.approx(0.95))


def test_brier_and_likelihood_by_hand() -> None:
    (found,) = reliability_bins(np.array([[0.2], [0.5], [0.3]]), np.array([2]))
    assert found.sum_brier == pytest.approx(0.2**2 + 0.5**2 + 0.7**2) and found.sum_nll == pytest.approx(-math.log(0.3))
    (never,) = reliability_bins(np.array([[1.0], [0.0]]), np.array([1]))
    assert never.sum_brier == pytest.approx(2.0) and never.sum_nll == pytest.approx(-math.log(LEAST_PROB))


def test_a_bin_holds_its_upper_end_and_the_last_one_certainty() -> None:
    probs = np.array([[9 / 15, 9 / 15 + 1e-9, 1.0], [6 / 15, 6 / 15 - 1e-9, 0.0]])
    assert [b.index for b in reliability_bins(probs, np.zeros(3, np.uint8))] == [8, 9, NUM_BINS - 1]


@pytest.mark.parametrize("seed", range(10))
def test_the_error_equals_that_of_monai(seed: int) -> None:
    """Which bins a channel: given the confidence as a channel and "it is right" as its truth, it has the top-label error."""
    rng = numpy_generator(seed, "test")
    probs = rng.dirichlet(np.full(4, 0.4), 5000).T.astype(np.float32)
    ref = np.where(rng.uniform(size=5000) < 0.7, probs.argmax(axis=0), rng.integers(4, size=5000))
    metric = CalibrationErrorMetric(num_bins=NUM_BINS, include_background=True, calibration_reduction="expected")
    confidence, is_right = probs.max(axis=0), (probs.argmax(axis=0) == ref).astype(np.float32)
    metric(y_pred=torch.from_numpy(confidence)[None, None], y=torch.from_numpy(is_right)[None, None])
    assert error_of(probs, ref) == pytest.approx(float(metric.aggregate()), abs=1e-5)


def test_a_model_whose_truth_is_drawn_from_its_probabilities_is_calibrated() -> None:
    rng = numpy_generator(0, "drawn")
    probs = rng.dirichlet(np.ones(3), 200_000)
    drawn = (rng.uniform(size=(200_000, 1)) > probs.cumsum(axis=1)).sum(axis=1)
    assert error_of(probs.T, drawn) < 0.005
    surer = probs**3 / (probs**3).sum(axis=1, keepdims=True)
    assert error_of(surer.T, drawn) > 0.15


def test_near_means_millimetres_along_every_axis() -> None:
    ref = np.zeros((9, 15, 31), np.uint8)
    ref[4, 7, 15] = 2
    near = near_foreground(ref, (3.0, 1.0, 0.5), 5.0)
    assert np.flatnonzero(near[:, 7, 15]).tolist() == [3, 4, 5]
    assert np.flatnonzero(near[4, :, 15]).tolist() == list(range(2, 13))
    assert np.flatnonzero(near[4, 7]).tolist() == list(range(5, 26))
    assert near[3, 3, 15] and not near[3, 2, 15]  # 3-4-5 and 3-5


def test_near_equals_the_distance_to_every_voxel_and_leaves_out_what_is_unknown() -> None:
    rng = numpy_generator(1, "near")
    ref = (rng.uniform(size=(7, 9, 8)) < 0.01).astype(np.uint8)
    ref[2:4] = np.where(ref[2:4], 1, 255)
    spacing = np.array([2.1, 1.3, 0.7])
    places = np.stack(np.meshgrid(*map(np.arange, ref.shape), indexing="ij"), axis=-1) * spacing
    apart = np.linalg.norm(places[..., None, :] - places[ref == 1], axis=-1).min(axis=-1)
    np.testing.assert_array_equal(near_foreground(ref, tuple(spacing)), (apart <= 5.0) & (ref != 255))


def test_without_a_structure_nothing_counts() -> None:
    assert not near_foreground(np.zeros((3, 3, 3), np.uint8), (1.0, 1.0, 1.0)).any()
    assert reliability_bins(np.zeros((2, 0)), np.zeros(0, np.uint8)) == []


@pytest.mark.parametrize(("probs", "ref"), [(np.ones((2, 3)), np.zeros(2)), (np.ones((2, 1)), np.array([2]))])
def test_what_does_not_fit_is_refused(probs: np.ndarray, ref: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must"):
        reliability_bins(probs, ref)
