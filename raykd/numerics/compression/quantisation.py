"""Numbers on coarser grids: half precision, eight bits a channel, few random levels."""

from __future__ import annotations

import torch
from torch import Tensor

NUM_LEVELS_INT8 = 127


def rows_of(value: Tensor) -> Tensor:
    """A tensor as (channels, values): its first axis, a convolution's output channels, by all others; a vector is one channel."""
    return value.flatten(1) if value.ndim > 1 else value.reshape(1, -1)


def to_int8(value: Tensor) -> tuple[Tensor, Tensor]:
    """Eight-bit numbers of the same shape, and the scale s_c = max|x_c| / 127 of every channel; each is within s_c / 2.

    Krishnamoorthi, 2018. https://arxiv.org/abs/1806.08342
    """
    rows = rows_of(value.float())
    scale_C = rows.abs().amax(dim=1) / NUM_LEVELS_INT8 if rows.numel() else rows.new_zeros(len(rows))
    coded = (rows / _one_for_zero(scale_C)[:, None]).round().clamp(-NUM_LEVELS_INT8, NUM_LEVELS_INT8)
    return coded.to(torch.int8).reshape(value.shape), scale_C


def from_int8(coded: Tensor, scale_C: Tensor) -> Tensor:
    """The numbers again, in float32."""
    return (rows_of(coded).float() * scale_C[:, None]).reshape(coded.shape)


def to_half(value: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor divided by its largest magnitude, in half precision, and that magnitude: small changes do not underflow."""
    scale = value.float().abs().amax() if value.numel() else value.new_zeros((), dtype=torch.float32)
    return (value.float() / _one_for_zero(scale)).half(), scale


def from_half(coded: Tensor, scale: Tensor) -> Tensor:
    """The numbers again, in float32."""
    return coded.float() * scale


def to_levels(value: Tensor, num_levels: int, bucket: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Of every number one of the levels -s, ..., s, drawn so that its mean is the number, and the norm of every bucket.

    |v_i| / ||v|| lies between l/s and (l+1)/s and becomes the upper with the probability that makes it unbiased; the variance is at
    most min(d / s^2, sqrt(d) / s) ||v||^2 for buckets of d values. Alistarh et al., NeurIPS 2017. https://arxiv.org/abs/1610.02132

    Args:
        value: of any shape, taken as a vector.
        num_levels: [s].
        bucket: values that share a norm [d].
        rng: one draw a value.

    Returns:
        levels (N,) int64 and norms (ceil(N / bucket),) float32.
    """
    flat = value.float().flatten()
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % bucket)).reshape(-1, bucket)
    norm = torch.linalg.vector_norm(padded, dim=1)
    place = padded.abs() / _one_for_zero(norm)[:, None] * num_levels
    level = (place + torch.rand(padded.shape, generator=rng)).floor().clamp(max=num_levels)
    return (level * padded.sign()).long().flatten()[: len(flat)], norm


def from_levels(levels: Tensor, norm: Tensor, num_levels: int, bucket: int) -> Tensor:
    """The numbers again, (N,) in float32."""
    return levels.float() * norm.repeat_interleave(bucket)[: len(levels)] / num_levels


def _one_for_zero(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, scale, torch.ones_like(scale))
