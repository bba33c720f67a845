"""A matrix as the product of two narrow ones, by subspace iteration from where the last one left off."""

from __future__ import annotations

import torch
from torch import Tensor


def is_worth_factoring(rows: int, columns: int, rank: int) -> bool:
    """Whether two factors of this rank hold fewer numbers than the matrix."""
    return rank * (rows + columns) < rows * columns


def factors(matrix_MN: Tensor, start_NR: Tensor, num_iterations: int = 1) -> tuple[Tensor, Tensor]:
    """P = orth(M Q) and Q = M^T P, so that P Q^T is M projected onto R directions; M itself where its rank is at most R.

    Vogels et al., NeurIPS 2019, algorithm 1. https://arxiv.org/abs/1905.13727

    Args:
        matrix_MN: what is factored.
        start_NR: the Q of the last time, or a random one.
        num_iterations: the more, the nearer to the best directions.
    """
    q_NR = start_NR
    for _ in range(num_iterations):
        p_MR = torch.linalg.qr(matrix_MN @ q_NR).Q
        q_NR = matrix_MN.T @ p_MR
    return p_MR, q_NR


def is_start(q_NR: Tensor) -> bool:
    """Whether an iteration can begin with it: a direction that was lost is never found again."""
    norms = torch.linalg.vector_norm(q_NR, dim=0)
    return bool((norms > 1e-6 * norms.max()).all() & (norms.max() > 0))
