"""What a server does with the average of its clients' updates: momentum and adaptive steps.

Symbols: w the server's parameters, d = sum p_k (w_k - w) the pseudo-gradient, m and v its running moments.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


def pseudo_gradient(server: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> Tensors:
    """d, the average less the server's parameters."""
    return {key: average[key] - server[key] for key in average}


def momentum_step(
    server: Mapping[str, Tensor], d: Mapping[str, Tensor], m: Mapping[str, Tensor], *, learning_rate: float, beta: float
) -> tuple[Tensors, Tensors]:
    """m' = beta m + d and w' = w + eta m' (FedAvgM, Hsu et al., 2019, https://arxiv.org/abs/1909.06335): (w', m')."""
    new_m = {key: beta * m[key] + d[key] for key in d}
    return {key: server[key] + learning_rate * new_m[key] for key in d}, new_m


def adaptive_step(
    server: Mapping[str, Tensor],
    d: Mapping[str, Tensor],
    m: Mapping[str, Tensor],
    v: Mapping[str, Tensor],
    *,
    learning_rate: float,
    beta_1: float,
    beta_2: float,
    tau: float,
    is_yogi: bool,
) -> tuple[Tensors, Tensors, Tensors]:
    """m' = b1 m + (1 - b1) d; v' = b2 v + (1 - b2) d^2 (Adam) or v - (1 - b2) d^2 sign(v - d^2) (Yogi); w' = w + eta m' /
    (sqrt(v') + tau): (w', m', v'). Reddi et al., ICLR 2021, https://arxiv.org/abs/2003.00295.

    Args:
        v: starts at tau^2.
        learning_rate: eta; the step's size hardly depends on the length of d.
        tau: adaptivity, > 0: the larger, the closer to plain averaging with momentum.
    """
    new_m = {key: beta_1 * m[key] + (1 - beta_1) * d[key] for key in d}
    square = {key: value.square() for key, value in d.items()}
    if is_yogi:
        new_v = {key: v[key] - (1 - beta_2) * square[key] * torch.sign(v[key] - square[key]) for key in d}
    else:
        new_v = {key: beta_2 * v[key] + (1 - beta_2) * square[key] for key in d}
    return {key: server[key] + learning_rate * new_m[key] / (new_v[key].sqrt() + tau) for key in d}, new_m, new_v
