"""CT of the abdomen in Hounsfield units: phases of contrast, dose, reconstruction kernels, and beam hardening by bone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from raykd.data.phantom.family import Image
from raykd.data.phantom.grid import Grid, smooth_field
from raykd.data.phantom.scene import Part, paint
from raykd.data.phantom.tomography import (
    effective_attenuation,
    equivalent_mm,
    parallel_beam,
    polychromatic,
    reconstruct_with_kernel,
)

SPECTRUM = (0.12, 0.22, 0.26, 0.24, 0.12, 0.04)
"""Share of `tomography.ENERGIES_KEV` in the signal at 120 kV; plausible, of about 65 keV on average."""
REFERENCE_MM = 280.0
"""Water that the noise of a protocol is stated behind."""
SLICE_MM = 5.0
LONGEST_MM = 800.0
"""The longest way through a patient, in water."""
BONE_HU = 250.0
"""From here on attenuation counts as bone where the beam hardens."""
JITTER_HU = 3.0


class Attenuation(NamedTuple):
    """Hounsfield units without contrast agent, in the arterial and in the portal venous phase."""

    native: float
    arterial: float
    portal: float


# Native liver, spleen, pancreas, muscle, fat, bile and blood: the order of Lamba et al., AJR 203:1013, 2014,
# https://pmc.ncbi.nlm.nih.gov/articles/PMC5015439 (liver also 58 +- 9: https://doi.org/10.1007/s00414-019-02016-1). Enhanced values
# and all others are plausible ones of clinical practice.
ATTENUATION: dict[str, Attenuation] = {
    "skin": Attenuation(40, 45, 50),
    "fat": Attenuation(-105, -104, -102),
    "muscle": Attenuation(52, 57, 64),
    "liver": Attenuation(57, 68, 112),
    "tumour": Attenuation(40, 48, 62),
    "spleen": Attenuation(49, 125, 120),
    "renal_cortex": Attenuation(33, 175, 185),
    "renal_medulla": Attenuation(30, 70, 160),
    "pancreas": Attenuation(42, 102, 88),
    "adrenal": Attenuation(30, 70, 65),
    "arterial_blood": Attenuation(42, 310, 150),
    "venous_blood": Attenuation(42, 85, 140),
    "portal_blood": Attenuation(42, 80, 165),
    "bile": Attenuation(6, 6, 7),
    "gut_wall": Attenuation(40, 70, 85),
    "fluid": Attenuation(14, 14, 15),
    "gas": Attenuation(-990, -990, -990),
    "lung": Attenuation(-850, -840, -835),
    "cord": Attenuation(32, 33, 35),
    "disc": Attenuation(78, 79, 82),
    "cortical_bone": Attenuation(720, 720, 725),
    "trabecular_bone": Attenuation(190, 195, 205),
}


@dataclass(frozen=True)
class Protocol:
    """How a CT is taken and reconstructed.

    Attributes:
        phase: of the contrast agent.
        noise_hu: standard deviation behind `REFERENCE_MM` of water in slices of `SLICE_MM`.
        cutoff: of the kernel, as a share of the grid's highest frequency.
        boost: of the kernel's middle frequencies: edge enhancement.
    """

    phase: Literal["native", "arterial", "portal"]
    noise_hu: float
    cutoff: float = 0.8
    boost: float = 0.0


PROTOCOLS: dict[str, Protocol] = {
    "portal_venous": Protocol("portal", 11.0),
    "arterial": Protocol("arterial", 13.0),
    "native": Protocol("native", 11.0),
    "low_dose": Protocol("native", 30.0),
    "soft_kernel": Protocol("portal", 7.0, cutoff=0.5),
    "sharp_kernel": Protocol("portal", 28.0, cutoff=1.1, boost=1.2),
}
"""`low_dose` gives about a seventh of the dose of `native`: the variance of the noise is inverse to it."""


def acquire(parts: Sequence[Part], protocol: Protocol, steatosis: float, grid: Grid, rng: np.random.Generator) -> Image:
    """One scan in whole Hounsfield units, from -1024 to 3071.

    Args:
        parts: of the trunk, in painting order.
        steatosis: share of fat in the liver.
        rng: draws each tissue's deviation and the noise.
    """
    values = {name: getattr(hu, protocol.phase) + JITTER_HU * rng.standard_normal() for name, hu in ATTENUATION.items()}
    values["liver"] += steatosis * (values["fat"] - values["liver"])
    image = paint(parts, values, grid.shape, background=-1000.0)
    texture = smooth_field(rng, [axis.ravel() for axis in grid.straight_axes], 9.0, grid.pose.half_extent_mm)
    image += np.where(np.abs(image) < 250, np.float32(2.5), np.float32(0)) * texture
    beam = parallel_beam(grid.shape[:2], grid.spacing_mm[:2])
    relative = np.maximum(image * np.float32(1e-3) + 1, 0)  # to water
    bone = np.clip(image - BONE_HU, 0, None) * np.float32(1e-3)
    water_mm, bone_mm = beam.project(relative - bone), beam.project(bone)
    image += beam.reconstruct(_hardening(water_mm, bone_mm)) * np.float32(1000)
    rays = effective_attenuation("water", SPECTRUM) * (water_mm + bone_mm - REFERENCE_MM)
    noise_sd = np.sqrt(beam.mean_over_views(np.exp(rays)))
    noise_sd *= np.float32(protocol.noise_hu * np.sqrt(SLICE_MM / grid.spacing_mm[2]))
    white = rng.standard_normal(grid.shape, dtype=np.float32)
    blurred, noise = reconstruct_with_kernel(image, white, protocol.cutoff, protocol.boost)
    return np.clip(np.rint(blurred + noise_sd * noise), -1024, 3071)


def _hardening(water_mm: np.ndarray, bone_mm: np.ndarray) -> np.ndarray:
    """What the scanner's correction, made for water, gets wrong behind bone, in mm of water.

    Args:
        bone_mm: water-equivalent length of bone along each ray.
    """
    ratio = effective_attenuation("water", SPECTRUM) / effective_attenuation("bone", SPECTRUM)
    measured = polychromatic({"water": water_mm, "bone": bone_mm * np.float32(ratio)}, SPECTRUM)
    return equivalent_mm(measured, "water", SPECTRUM, LONGEST_MM) - (water_mm + bone_mm)
