"""Weights of clients that follow what was measured at them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def refined_weights(weight_K: Tensor, divergence_K: Tensor, step: float) -> Tensor:
    """a_k + step * g_k / max |g|, clipped to [0, 1] and scaled to the sum of a: a client whose data pulled its model further from
    the received one counts more from now on (generalisation-aware aggregation, Deng et al., Medical Image Analysis, 2025,
    https://arxiv.org/abs/2501.07378).

    Args:
        weight_K: a_k, >= 0, of the clients that answered, with a positive sum.
        divergence_K: g_k; where all are zero nothing changes.
        step: >= 0.
    """
    largest = divergence_K.abs().max().clamp(min=1e-24)
    moved_K = (weight_K + step * divergence_K / largest).clamp(0.0, 1.0)
    return moved_K * (weight_K.sum() / moved_K.sum()) if float(moved_K.sum()) > 0 else weight_K.clone()


def prototype_similarity(one_CF: Tensor, present_C: Tensor, other_CF: Tensor, other_present_C: Tensor) -> float:
    """Mean cosine of two sites' prototypes over the foreground classes that both have; 0 where they share none."""
    shared_C = present_C & other_present_C
    shared_C[0] = False  # background is of any kind
    if not bool(shared_C.any()):
        return 0.0
    return float(F.cosine_similarity(one_CF[shared_C], other_CF[shared_C], dim=1).mean())


def softmax_weights(similarities: Sequence[float]) -> list[float]:
    """exp(s_j) / sum exp(s)."""
    weights: list[float] = torch.softmax(torch.tensor(similarities, dtype=torch.float64), dim=0).tolist()
    return weights
