"""Weak and strong views of a patch for consistency training: changes of intensity alone, so that both share one geometry.

Images are z-scored. Shapes: B patches, C channels, I J K voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor

WEAK_NOISE = 0.25
STRONG_NOISE = 0.75
CONTRAST = 0.25
BRIGHTNESS = 0.25


def additive_noise(image_BCIJK: Tensor, std: float, rng: torch.Generator) -> Tensor:
    """The image plus std * N(0, 1), clipped at +- std, in every voxel on its own.

    Args:
        image_BCIJK: z-scored, on any device.
        std: of the noise before it is clipped, >= 0.
        rng: of the CPU, whatever the image's device.
    """
    noise = torch.randn(image_BCIJK.shape, generator=rng).mul_(std).clamp_(-std, std)
    return image_BCIJK + noise.to(image_BCIJK)


def weak(image_BCIJK: Tensor, rng: torch.Generator) -> Tensor:
    """Slight noise: the view that is believed (Yang et al., Medical Image Analysis 70, 2021, as He et al. re-implemented it)."""
    return additive_noise(image_BCIJK, WEAK_NOISE, rng)


def strong(image_BCIJK: Tensor, rng: torch.Generator) -> Tensor:
    """Another contrast and brightness for every patch, and three times the noise of the weak view: the view that is learnt from.

    He et al. take the noise alone, which a network of some depth averages away.
    """
    shape = (len(image_BCIJK), 1, 1, 1, 1)
    contrast, brightness = (2.0 * torch.rand(shape, generator=rng).to(image_BCIJK) - 1.0 for _ in range(2))
    shifted = image_BCIJK * (1.0 + CONTRAST * contrast) + BRIGHTNESS * brightness
    return additive_noise(shifted, STRONG_NOISE, rng)
