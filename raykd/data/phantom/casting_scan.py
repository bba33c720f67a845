"""Industrial CT of an aluminium part: tube voltage and filter, beam hardening, rings of the detector, and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raykd.data.phantom.family import Image
from raykd.data.phantom.grid import Grid
from raykd.data.phantom.scene import Part, paint
from raykd.data.phantom.tomography import effective_attenuation, parallel_beam, polychromatic, reconstruct_with_kernel

GREY_VALUE = 1000.0
"""Image value of a thin piece of the metal; air is 0."""
REFERENCE_MM = 40.0
"""Metal that the noise of a protocol is stated behind."""
VOXEL_MM = 0.8
"""Edge of the slices that the noise is stated for."""

ATTENUATION: dict[str, float] = {
    "metal": 1.0,
    "gas_pore": 0.0,
    "shrinkage": 0.0,
    "inclusion": 1.55,  # oxide (3.95 over 2.70 g/cm3 in density) and a little iron
    "holder": 0.42,  # a filled plastic
}
"""Linear attenuation relative to aluminium; plausible values of their densities."""


@dataclass(frozen=True)
class Protocol:
    """How a part is scanned.

    Attributes:
        spectrum: share of `tomography.ENERGIES_KEV` in the signal; plausible for a tube voltage and its filter.
        noise: standard deviation behind `REFERENCE_MM` of metal, relative to the metal.
        is_linearised: the measurements were corrected for beam hardening with a wedge of the metal.
        ring: deviation of the detector's elements in what they measure.
        cutoff: of the reconstruction kernel, as a share of the grid's highest frequency.
    """

    spectrum: tuple[float, ...]
    noise: float
    is_linearised: bool = False
    ring: float = 0.004
    cutoff: float = 0.9


_FILTERED_225_KV = (0.0, 0.04, 0.11, 0.28, 0.32, 0.25)
_BARE_120_KV = (0.30, 0.25, 0.20, 0.17, 0.08, 0.0)

PROTOCOLS: dict[str, Protocol] = {
    "kv225": Protocol(_FILTERED_225_KV, 0.05),
    "kv225_linearised": Protocol(_FILTERED_225_KV, 0.055, is_linearised=True),
    "kv120": Protocol(_BARE_120_KV, 0.07),
    "inline_fast": Protocol(_FILTERED_225_KV, 0.16, ring=0.012, cutoff=0.6),
}
"""225 kV through a copper filter, without and with linearisation; 120 kV unfiltered; a few seconds beside the production line."""


def acquire(parts: Sequence[Part], protocol: Protocol, grid: Grid, rng: np.random.Generator) -> Image:
    """One scan: linear attenuation times `GREY_VALUE` over that of a thin piece of the metal, in whole numbers.

    Args:
        parts: of the casting, in painting order.
        rng: draws the detector's rings and the noise.
    """
    image = paint(parts, ATTENUATION, grid.shape)
    beam = parallel_beam(grid.shape[:2], grid.spacing_mm[:2])
    lengths_mm = beam.project(image)
    thin = np.float32(effective_attenuation("aluminium", protocol.spectrum))
    measured = polychromatic({"aluminium": lengths_mm}, protocol.spectrum)
    error_mm = np.zeros_like(lengths_mm) if protocol.is_linearised else measured / thin - lengths_mm
    gain = protocol.ring * rng.standard_normal(lengths_mm.shape[1:], dtype=np.float32)
    image += beam.reconstruct(error_mm + gain / thin)
    noise_sd = np.sqrt(beam.mean_over_views(np.exp(measured - thin * REFERENCE_MM)))
    noise_sd *= np.float32(protocol.noise * np.sqrt(VOXEL_MM / grid.spacing_mm[2]))
    white = rng.standard_normal(grid.shape, dtype=np.float32)
    blurred, noise = reconstruct_with_kernel(image, white, protocol.cutoff, 0.0)
    return np.rint((blurred + noise_sd * noise) * np.float32(GREY_VALUE))
