"""Scans an anatomy: tissues, B1, coil sensitivity, texture and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raykd.data.phantom.coil import add_rician_noise, coil_sensitivity
from raykd.data.phantom.grid import centred_axes, smooth_field
from raykd.data.phantom.implicit import Field, step
from raykd.data.phantom.knee.anatomy import Anatomy
from raykd.data.phantom.knee.sequences import PROTOCOLS, Protocol
from raykd.data.phantom.knee.tissues import TISSUES
from raykd.scenario.errors import DataError, did_you_mean

INTENSITY = 100.0
"""Image value of a tissue that gives the full signal of water."""
JITTER = 0.03
B1_SD = 0.044
FAT_SUPPRESSION_FAILURE = 0.15


def render(anatomy: Anatomy, protocol: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """One scan of an anatomy.

    Args:
        anatomy: built by `build_anatomy`.
        protocol: a name of `PROTOCOLS`.
        rng: draws the scan: tissue jitter, B1, coil, texture, noise.

    Returns:
        Magnitude image, float32 (I, J, K), not normalised: a voxel of water with full signal would be 100.

    Raises:
        DataError: the protocol is unknown.
    """
    if protocol not in PROTOCOLS:
        raise DataError(f"protocol must be one the phantom knows, got {protocol!r}; {did_you_mean(protocol, PROTOCOLS)}")
    settings = PROTOCOLS[protocol]
    axes_mm = centred_axes(anatomy.label_IJK.shape, anatomy.spacing_mm)
    jitter = 1 + rng.normal(0, JITTER, (len(TISSUES), 4))
    slow = smooth_field(rng, axes_mm, 32.0)  # B1, fat suppression and coil follow one slow field, as all depend on the leg's pose
    image = _paint(anatomy, settings, jitter, slow)
    image *= _texture(anatomy, axes_mm, rng)
    image *= coil_sensitivity(axes_mm, slow, rng)
    noise_sd = settings.signals(jitter=jitter)["superficial_cartilage"] / settings.snr
    return add_rician_noise(image, noise_sd, rng) * np.float32(INTENSITY)


def _paint(anatomy: Anatomy, protocol: Protocol, jitter: NDArray[np.float64], slow: Field) -> Field:
    """Painter's algorithm: each tissue's signal, to first order in B1, over what lies below it."""
    nominal, strong = protocol.signals(jitter=jitter), protocol.signals(b1=1.1, jitter=jitter)
    unsuppressed = protocol.without_fat_suppression().signals(jitter=jitter)
    image = np.zeros_like(slow)
    b1 = np.float32(B1_SD) * slow
    height = np.linspace(-1, 1, slow.shape[2], dtype=np.float32)
    failure = FAT_SUPPRESSION_FAILURE * step(np.abs(height) + 0.14 * slow - 0.92, 0.1)  # towards the ends of the coil
    for layer in anatomy.layers:
        signal = nominal[layer.tissue]
        value = signal + (strong[layer.tissue] - signal) / 0.1 * b1[layer.box]
        if unsuppressed[layer.tissue] > signal:
            value += (unsuppressed[layer.tissue] - signal) * failure[layer.box]
        part = image[layer.box]
        part += layer.opacity * np.float32(1 / 255) * (value - part)
    return image


def _texture(anatomy: Anatomy, axes_mm: list[Field], rng: np.random.Generator) -> Field:
    """Factors near 1: voxel-fine in marrow (trabeculae) and muscle, slow everywhere."""
    grain = np.zeros(anatomy.label_IJK.shape, np.float32)
    for layer in anatomy.layers:
        strength = {"fatty_marrow": 1.0, "muscle": 0.45}.get(layer.tissue)
        if strength:
            np.maximum(grain[layer.box], layer.opacity * np.float32(strength / 255), out=grain[layer.box])
    fine = ndimage.gaussian_filter(rng.standard_normal(grain.shape, dtype=np.float32), (0.5, 0.7, 0.7), truncate=2.5)
    return 1 + 0.10 * grain * fine + 0.027 * smooth_field(rng, axes_mm, 4.3)
