"""Whether a model is as sure as it is right: voxels near the structures, sorted into bins by how sure the model is of them.

Shapes: L classes with background, I J K voxels, N voxels that count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects

from raykd.numerics.metrics import LABEL_IGNORED

NUM_BINS = 15
"""Equal bins of confidence, of which the first holds (0, 1/15] and the last (14/15, 1]."""
MARGIN_MM = 5.0
"""How far from a structure voxels still count: the rest of a volume is background that any model is sure of."""
LEAST_PROB = 1e-7
"""What a class is taken to have at least in the log-likelihood, so that it stays finite; about the resolution of a float32."""


@dataclass(frozen=True)
class Bin:
    """The voxels of one bin of confidence.

    Attributes:
        index: 0 to `NUM_BINS` - 1.
        num_voxels: at least 1.
        sum_confidence: of the probability of the most probable class.
        num_correct: voxels whose most probable class is that of the reference.
        sum_brier: of the squared distance between the probabilities and the true class, 0 to 2 a voxel.
        sum_nll: of minus the logarithm of the true class's probability.
    """

    index: int
    num_voxels: int
    sum_confidence: float
    num_correct: int
    sum_brier: float
    sum_nll: float


def near_foreground(
    ref_IJK: NDArray[np.integer], spacing_mm: tuple[float, float, float], margin_mm: float = MARGIN_MM
) -> NDArray[np.bool_]:
    """The voxels of known class whose centre is at most `margin_mm` from the centre of a foreground voxel; none without foreground.

    Args:
        ref_IJK: reference classes, or 255: unknown.
        spacing_mm: voxel edges along I, J, K.
        margin_mm: at least 0.
    """
    is_known = ref_IJK != LABEL_IGNORED
    is_foreground = is_known & (ref_IJK > 0)
    is_near = np.zeros(ref_IJK.shape, dtype=bool)
    for found in find_objects(is_foreground.astype(np.uint8)):
        reach = [int(margin_mm // edge) + 1 for edge in spacing_mm]
        box = tuple(slice(max(axis.start - r, 0), axis.stop + r) for axis, r in zip(found, reach, strict=True))
        is_near[box] = distance_transform_edt(~is_foreground[box], sampling=spacing_mm) <= margin_mm
    return is_near & is_known


def reliability_bins(probs_LN: NDArray[np.floating], ref_N: NDArray[np.integer]) -> list[Bin]:
    """The bins that hold a voxel, by confidence.

    Args:
        probs_LN: class probabilities of voxels, as from `near_foreground`; each voxel's add up to 1.
        ref_N: their true classes, 0 to L - 1.

    Raises:
        ValueError: the shapes differ, or a class is out of range.

    Source:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, https://arxiv.org/abs/1706.04599, for the bins; Brier,
        Monthly Weather Review 78, 1950, for the score over all classes.
    """
    if probs_LN.ndim != 2 or probs_LN.shape[1:] != ref_N.shape:
        raise ValueError(f"there must be probabilities (L, N) of N voxels, got {probs_LN.shape} and {ref_N.shape}")
    if ref_N.size and not 0 <= ref_N.min() <= ref_N.max() < len(probs_LN):
        raise ValueError(f"classes of the reference must lie in 0..{len(probs_LN) - 1}, got {ref_N.min()}..{ref_N.max()}")
    probs = probs_LN.astype(np.float64)
    confidence, is_correct = probs.max(axis=0, initial=0.0), probs.argmax(axis=0) == ref_N
    true = np.take_along_axis(probs, ref_N[None].astype(np.intp), axis=0)[0]
    brier = (probs**2).sum(axis=0) - 2 * true + 1
    nll = -np.log(np.maximum(true, LEAST_PROB))
    bins = np.clip(np.ceil(confidence * NUM_BINS).astype(np.intp) - 1, 0, NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    sums = [np.bincount(bins, weights=values, minlength=NUM_BINS) for values in (confidence, is_correct, brier, nll)]
    return [
        Bin(index, int(counts[index]), float(sums[0][index]), int(sums[1][index]), float(sums[2][index]), float(sums[3][index]))
        for index in np.flatnonzero(counts).tolist()
    ]
