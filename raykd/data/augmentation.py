"""Random intensity changes of a training patch. Draws come from the generator handed in; images are z-scored before and after.

Shapes: I J K voxels of a patch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from raykd.numerics.intensity import clip_limits
from raykd.numerics.rng import integer, uniform
from raykd.scenario.training import Augmentation

NUM_CONTROL_POINTS = 6


def augment_intensity(
    image_IJK: Tensor, label_IJK: Tensor | None, sample: Tensor, settings: Augmentation, rng: torch.Generator
) -> Tensor:
    """Contrast, gamma, bias field, blur and noise, in the order in which a scanner makes them.

    Args:
        image_IJK: z-scored patch.
        label_IJK: its labels, if any; each class then gets a contrast of its own now and then.
        sample: intensities of the whole z-scored volume, at evenly spaced ranks: they tell what its mean and spread become.
        settings: strengths; zeros leave the patch as it is.
        rng: source of every draw.
    """
    if settings.contrast > 0 and uniform(rng) < settings.contrast:
        image_IJK = random_contrast(image_IJK, label_IJK, sample, rng)
    if settings.gamma > 0:
        image_IJK = random_gamma(image_IJK, sample, settings.gamma, rng)
    if settings.bias_field > 0:
        image_IJK = random_bias_field(image_IJK, settings.bias_field, rng)
    if settings.blur > 0:
        image_IJK = gaussian_blur(image_IJK, [uniform(rng, 0.0, settings.blur) for _ in range(3)])
    if settings.noise > 0:
        strength = uniform(rng, 0.0, settings.noise)
        image_IJK = image_IJK + strength * torch.randn(image_IJK.shape, generator=rng)
    return image_IJK


def random_contrast(image_IJK: Tensor, label_IJK: Tensor | None, sample: Tensor, rng: torch.Generator) -> Tensor:
    """Intensities through a random piecewise-linear map, monotone, inverted or neither, and each labelled class shifted on its own.

    In the spirit of SynthSeg (Billot et al., Medical Image Analysis 86, 2023, https://arxiv.org/abs/2107.09559), which renders
    any contrast from labels; here the unlabelled tissues keep the real texture and change their order of brightness.
    """
    low, high = clip_limits(sample, 0.01, 0.99)
    values = torch.rand(NUM_CONTROL_POINTS, generator=rng)
    kind = integer(rng, 3)
    if kind < 2:
        values = values.sort(descending=kind == 1).values

    def remap(x: Tensor) -> Tensor:
        position = ((x - low) / max(high - low, 1e-6)).clamp(0, 1) * (NUM_CONTROL_POINTS - 1)
        left = position.floor().clamp(max=NUM_CONTROL_POINTS - 2)
        index = left.long()
        return values[index] + (values[index + 1] - values[index]) * (position - left)

    mapped_sample = remap(sample)
    mapped = (remap(image_IJK) - mapped_sample.mean()) / mapped_sample.std().clamp(min=1e-3)
    if label_IJK is None:
        return mapped
    for value in label_IJK.unique().tolist():
        if value not in (0, 255) and uniform(rng) < 0.5:
            member = F.avg_pool3d((label_IJK == value).float()[None, None], 3, stride=1, padding=1)[0, 0]
            mapped = mapped + member * uniform(rng, -1.5, 1.5)
    return mapped


def random_gamma(image_IJK: Tensor, sample: Tensor, half_width: float, rng: torch.Generator) -> Tensor:
    """Intensities scaled to [0, 1] by the volume's percentiles, raised to a power exp(u), u uniform in +- half_width, and
    z-scored again.
    """
    low, high = clip_limits(sample, 0.01, 0.99)
    power = float(torch.exp(torch.tensor(uniform(rng, -half_width, half_width))))

    def remap(x: Tensor) -> Tensor:
        scaled: Tensor = ((x - low) / max(high - low, 1e-6)).clamp(0, 1) ** power
        return scaled

    mapped_sample = remap(sample)
    return (remap(image_IJK) - mapped_sample.mean()) / mapped_sample.std().clamp(min=1e-3)


def random_bias_field(image_IJK: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """The image, shifted to be positive, times exp of a smooth field drawn on a 3 x 3 x 3 grid."""
    coarse = strength * torch.randn((1, 1, 3, 3, 3), generator=rng)
    field = F.interpolate(coarse, size=image_IJK.shape, mode="trilinear", align_corners=True)[0, 0]
    floor = image_IJK.min()
    return (image_IJK - floor) * torch.exp(field) + floor


def gaussian_blur(image_IJK: Tensor, sigma_voxels: list[float]) -> Tensor:
    """Separable Gaussian blur; the border is repeated outwards."""
    volume = image_IJK[None, None]
    for axis, sigma in enumerate(sigma_voxels):
        if sigma < 0.1:
            continue
        radius = max(1, round(2.5 * sigma))
        kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
        kernel = kernel / kernel.sum()
        shape, padding = [1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]
        shape[2 + axis] = len(kernel)
        padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = radius
        volume = F.conv3d(F.pad(volume, padding, mode="replicate"), kernel.view(shape))
    return volume[0, 0]
