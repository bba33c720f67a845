"""What a receive coil and its noise do to a magnetic resonance image."""

from __future__ import annotations

import numpy as np

from raykd.data.phantom.implicit import Field

BIAS = 0.25


def coil_sensitivity(axes_mm: list[Field], slow: Field, rng: np.random.Generator) -> Field:
    """Receive sensitivity of the coil: the exponential of a quadratic plus a slow field."""
    x, y, z = (axis * (1 / np.abs(axis).max()) for axis in axes_mm)
    a, b, c, d = rng.standard_normal(4).tolist()
    x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]
    quadratic = 0.35 * (a * x + b * y + c * z) + 0.3 * d * x * y - 0.55 * (x * x + y * y + 1.4 * z * z)
    return np.exp(BIAS * (quadratic + 0.22 * slow))


def add_rician_noise(image: Field, noise_sd: float, rng: np.random.Generator) -> Field:
    """Magnitude of the image with Gaussian noise of this standard deviation in both channels."""
    real, imaginary = np.float32(noise_sd) * rng.standard_normal((2, *image.shape), dtype=np.float32)
    return np.hypot(image + real, imaginary)
