"""How much an image resembles another. Images are (I, J, K); intensities are z-scored."""

from __future__ import annotations

import math

import torch
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor

INTENSITY_RANGE = 8.0
"""From the darkest to the brightest intensity that counts, in standard deviations."""


def correlation(one_IJK: Tensor, other_IJK: Tensor) -> float:
    """Pearson's, -1 to 1; 0 where one of the two is constant."""
    a, b = (image.double().flatten() - image.double().mean() for image in (one_IJK, other_IJK))
    norm = float(a.norm() * b.norm())
    return float(a @ b) / norm if norm > 1e-12 else 0.0


def psnr_db(one_IJK: Tensor, other_IJK: Tensor) -> float:
    """Peak signal-to-noise ratio in decibels, of the second as it is and the first with the second's mean and spread."""
    mse = float((standardised_like(one_IJK, other_IJK) - other_IJK).square().mean())
    return 10.0 * math.log10(INTENSITY_RANGE**2 / max(mse, 1e-12))


def ssim(one_IJK: Tensor, other_IJK: Tensor) -> float:
    """Mean structural similarity in windows of up to 7 voxels (Wang et al., IEEE TIP 2004, https://doi.org/10.1109/TIP.2003.819861)
    of the second as it is and the first with the second's mean and spread."""
    window = min(7, *(edge - (edge + 1) % 2 for edge in other_IJK.shape))
    pair = [image[None, None].float() for image in (standardised_like(one_IJK, other_IJK), other_IJK)]
    value, _ = compute_ssim_and_cs(
        pair[0],
        pair[1],
        spatial_dims=3,
        data_range=INTENSITY_RANGE,
        kernel_type="uniform",
        kernel_size=(window,) * 3,
        kernel_sigma=(1.5,) * 3,
    )
    return float(value.mean())


def standardised_like(image_IJK: Tensor, other_IJK: Tensor) -> Tensor:
    """The image with another's mean and standard deviation; constant where it is constant itself."""
    spread = image_IJK.std()
    scale = other_IJK.std() / spread if float(spread) > 1e-6 else torch.zeros(())
    return (image_IJK - image_IJK.mean()) * scale + other_IJK.mean()
