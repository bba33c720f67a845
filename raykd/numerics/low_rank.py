"""Updates of matrices as products of two thin ones, cut where enough of their energy is kept (FedKD, Wu et al., Nature
Communications 13, 2022, https://doi.org/10.1038/s41467-022-29763-x).

A kernel of (O, I, i, j, k) is the matrix of O rows and I i j k columns; M rows, N columns, rank R.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from raykd.numerics.params import Payload


def truncated_factors(matrix_MN: Tensor, energy: float) -> tuple[Tensor, Tensor]:
    """Factors (M, R) and (R, N) of the smallest rank R whose squared singular values sum to `energy` of all or more.

    Args:
        matrix_MN: whose best approximation of that rank is their product; of zeros, R is 0.
        energy: E, in (0, 1].

    Raises:
        ValueError: an energy outside (0, 1].
    """
    if not 0.0 < energy <= 1.0:
        raise ValueError(f"energy must lie in (0, 1], got {energy}")
    left, values, right = torch.linalg.svd(matrix_MN.double(), full_matrices=False)
    held = values.square().cumsum(0)
    rank = 0 if held[-1] == 0 else min(int((held < energy * held[-1]).sum()) + 1, len(values))
    return (left[:, :rank] * values[:rank]).to(matrix_MN.dtype), right[:rank].to(matrix_MN.dtype)


def pack(model: Mapping[str, Tensor], base: Mapping[str, Tensor], energy: float) -> Payload:
    """A model as what changed since `base`: of every matrix and kernel the truncated factors in one flat tensor, where these are
    fewer numbers, R (M + N) < M N; of all else, vectors and integers among it, the value itself.

    Args:
        model, base: of the same keys and shapes.
        energy: that every update keeps, in (0, 1].
    """
    return {key: _packed(value, base[key], energy) for key, value in model.items()}


def _packed(value: Tensor, base: Tensor, energy: float) -> Tensor:
    if value.ndim < 2 or not value.is_floating_point():
        return value
    left_MR, right_RN = truncated_factors((value - base).flatten(1), energy)
    if left_MR.numel() + right_RN.numel() >= value.numel():
        return value
    return torch.cat([left_MR.flatten(), right_RN.flatten()])


def unpack(packed: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> Payload:
    """The model again, given the same `base` as was packed against; of values that were not packed, `base` is not needed."""
    return {
        key: value if key not in base or value.shape == base[key].shape else _unpacked(value, base[key])
        for key, value in packed.items()
    }


def _unpacked(flat: Tensor, base: Tensor) -> Tensor:
    num_rows, num_columns = base.flatten(1).shape
    rank = flat.numel() // (num_rows + num_columns)
    left_MR, right_RN = flat[: num_rows * rank].view(num_rows, rank), flat[num_rows * rank :].view(rank, num_columns)
    return base + (left_MR @ right_RN).view(base.shape)
