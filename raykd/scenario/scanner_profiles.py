"""Named scanners: what each gives to a `scanner` block that names it.

The numbers are typical of a class of machines, not measured on one. They are in the units of the `scanner` block; `noise` is what
the scanner would have at 3 T, because the block multiplies it by 3 over the field strength.

Sources:
    Noise over field strength and the habits of low-field scanning: Marques, Simonis and Webb, Low-field MRI: An MR physics
    perspective, Journal of Magnetic Resonance Imaging 49, 2019, https://doi.org/10.1002/jmri.26637
    Portable scanning at 64 mT: Kimberly et al., Brain imaging with portable low-field MRI, Nature Reviews Bioengineering 1, 2023,
    https://doi.org/10.1038/s44222-023-00086-w
    Ranges of bias field, motion, ghosts and spikes: Pérez-García, Sparks and Ourselin, TorchIO, Computer Methods and Programs in
    Biomedicine 208, 2021, https://arxiv.org/abs/2003.04696
    Noise over dose of CT, 1 / sqrt(dose): Yu et al., Radiation dose reduction in computed tomography, Imaging in Medicine 1, 2009,
    https://doi.org/10.2217/iim.09.5
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

ScannerProfile = Literal[
    "modern_3t",
    "worn_1_5t",
    "low_field_0_3t",
    "mobile_0_06t",
    "knee_coil_off_centre",
    "restless_patients",
    "other_sequence",
    "ct_low_dose",
    "ct_soft_kernel",
]
Strength = float | int | tuple[float, float]

SCANNER_PROFILES: Mapping[ScannerProfile, Mapping[str, Strength]] = {
    # A good coil and parallel transmission: little noise, a mild receive profile.
    "modern_3t": {"field_strength_t": 3.0, "noise": 0.03, "bias_field": 0.1, "jitter": 0.1},
    # An old gradient system and a failing amplifier: ghosts from instability, a spark in some rows, drifting gain.
    "worn_1_5t": {
        "field_strength_t": 1.5,
        "noise": 0.05,
        "bias_field": 0.3,
        "gamma": (0.85, 1.2),
        "ghosting": 0.15,
        "spike": 0.3,
        "intensity_scale": (0.6, 1.6),
        "jitter": 0.3,
    },
    # Ten times the noise of 3 T, half of which longer scans buy back; T1 is shorter, hence another contrast.
    "low_field_0_3t": {"field_strength_t": 0.3, "noise": 0.02, "bias_field": 0.15, "blur_mm": 0.5, "contrast": 0.3, "motion": 1},
    # Fifty times the noise of 3 T, most of which coarse voxels, averages and denoising buy back at the price of sharpness.
    "mobile_0_06t": {
        "field_strength_t": 0.064,
        "noise": 0.008,
        "bias_field": 0.3,
        "blur_mm": 1.2,
        "contrast": 0.5,
        "ghosting": 0.1,
        "motion": 2,
    },
    # The knee lies at the rim of its coil: bright on one side, a third as bright on the other, another tilt in every scan.
    "knee_coil_off_centre": {"noise": 0.05, "bias_field": 0.6, "jitter": 0.5},
    # Pain, children, no sedation: three movements of a few millimetres a scan.
    "restless_patients": {"noise": 0.03, "motion": 3, "motion_degrees": 4.0, "motion_mm": 3.0, "ghosting": 0.1},
    # A sequence that orders the tissues otherwise.
    "other_sequence": {"noise": 0.03, "contrast": 1.0, "gamma": (0.7, 1.4)},
    # A quarter of the dose: twice the noise, none of what belongs to magnets.
    "ct_low_dose": {"noise": 0.12, "jitter": 0.15},
    # Reconstructed for soft tissue: smooth.
    "ct_soft_kernel": {"noise": 0.02, "blur_mm": 0.8, "jitter": 0.1},
}
"""By name, the keys of the `scanner` block that the profile gives; all others stay at their defaults."""
