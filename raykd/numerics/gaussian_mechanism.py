"""The Gaussian mechanism on payloads: an update clipped to a norm, with noise. McMahan et al., Learning differentially private
recurrent language models, ICLR 2018, https://arxiv.org/abs/1710.06963.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from scipy.optimize import brentq
from scipy.special import log_ndtr
from torch import Tensor

from raykd.numerics.params import Payload


def update_of(payload: Mapping[str, Tensor], received: Mapping[str, Tensor]) -> Payload:
    """What a payload adds to what was received, in float64; an entry that was not received, or in another shape, counts from zero.

    Raises:
        ValueError: an entry holds whole numbers, to which noise cannot be added.
    """
    if whole := sorted(key for key, value in payload.items() if not value.is_floating_point()):
        raise ValueError(f"noise can be added to real numbers only, got {payload[whole[0]].dtype} in {whole[0]}")
    return {key: value.double() - _reference(key, value, received) for key, value in payload.items()}


def norm_of(update: Mapping[str, Tensor]) -> float:
    """The Euclidean norm over all entries together."""
    return float(torch.stack([value.double().square().sum() for value in update.values()]).sum().sqrt()) if update else 0.0


def clipped(update: Mapping[str, Tensor], clip_norm: float) -> Payload:
    """The update, scaled down to norm `clip_norm` where it is longer [min(1, C / |u|)]."""
    factor = min(1.0, clip_norm / max(norm_of(update), 1e-300))
    return {key: value * factor for key, value in update.items()}


def privatised(
    payload: Mapping[str, Tensor], received: Mapping[str, Tensor], *, clip_norm: float, noise_std: float, rng: torch.Generator
) -> Payload:
    """The payload with its update clipped, and independent Gaussian noise on every value; types stay.

    Args:
        payload: what is to be uploaded.
        received: what the client had received, which is no secret.
        clip_norm: C > 0.
        noise_std: standard deviation of the noise, >= 0.
        rng: source of the noise, drawn key by key in alphabetical order.

    Raises:
        ValueError: an entry holds whole numbers.
    """
    short = clipped(update_of(payload, received), clip_norm)
    noisy: Payload = {}
    for key in sorted(short):
        noise = noise_std * torch.randn(short[key].shape, generator=rng, dtype=torch.float64) if noise_std else 0.0
        moved = _reference(key, payload[key], received) + short[key] + noise
        noisy[key] = moved.to(payload[key].dtype)
    return noisy


def gaussian_epsilon(noise_multiplier: float, num_releases: int, delta: float) -> float:
    """The epsilon of so many releases of a Gaussian mechanism, each seen in full: the smallest that holds.

    Args:
        noise_multiplier: standard deviation of the noise over the distance that two neighbours lie apart, > 0.
        num_releases: > 0; each may depend on those before.
        delta: in (0, 1).

    Source:
        Balle and Wang, Improving the Gaussian mechanism for differential privacy, ICML 2018, https://arxiv.org/abs/1805.06530,
        Theorem 8. T releases are one whose multiplier is smaller by sqrt(T) (Dong, Roth and Su, Gaussian differential privacy,
        Journal of the Royal Statistical Society B 84(1), 2022, https://arxiv.org/abs/1905.02383, Corollary 2).
    """
    apart = math.sqrt(num_releases) / noise_multiplier

    def excess(found: float) -> float:
        low, high = log_ndtr(apart / 2 - found / apart), log_ndtr(-apart / 2 - found / apart)
        return math.exp(low) - math.exp(found + high) - delta

    if excess(0.0) <= 0:
        return 0.0
    most = apart**2 / 2 + apart * math.sqrt(2 * math.log(1 / delta))  # what follows from Renyi divergence
    return float(brentq(excess, 0.0, most, xtol=1e-12, rtol=1e-12))


def _reference(key: str, value: Tensor, received: Mapping[str, Tensor]) -> Tensor:
    known = received.get(key)
    return torch.zeros_like(value, dtype=torch.float64) if known is None or known.shape != value.shape else known.double()
