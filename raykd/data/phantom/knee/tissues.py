"""Magnetic properties of the tissues of a knee at 3 T."""

from __future__ import annotations

from typing import NamedTuple


class Tissue(NamedTuple):
    """What an MR sequence sees of a tissue.

    Attributes:
        pd: proton density relative to water.
        t1_ms, t2_ms, t2_star_ms: relaxation times; T2* includes dephasing inside a voxel.
        fat_fraction: part of the signal that fat suppression removes, in [0, 1].
    """

    pd: float
    t1_ms: float
    t2_ms: float
    t2_star_ms: float
    fat_fraction: float


# T1 and T2 of cartilage, fluid, muscle, fat and fatty marrow: Gold et al., AJR 2004; T2 of cartilage and muscle also
# Pai et al. 2008, of the meniscus Rauscher et al. 2008. All PD and T2*, and the other tissues, are plausible values.
# The PD of muscle is lowered for magnetisation transfer.
TISSUES: dict[str, Tissue] = {
    "skin": Tissue(0.40, 800, 18, 8, 0.20),
    "fat": Tissue(0.92, 370, 133, 45, 1.0),
    "fat_pad": Tissue(0.90, 368, 128, 42, 0.95),
    "synovium": Tissue(0.72, 950, 38, 18, 0.55),
    "muscle": Tissue(0.62, 1420, 32, 20, 0.03),
    "vessel": Tissue(0.35, 1900, 120, 40, 0.0),  # PD lowered: flow void
    "fluid": Tissue(1.00, 3620, 767, 250, 0.0),
    "meniscus": Tissue(0.62, 850, 13, 7, 0.0),
    "ligament": Tissue(0.55, 900, 9, 5, 0.0),
    "tendon": Tissue(0.50, 700, 5, 2, 0.0),
    "cortical_bone": Tissue(0.12, 250, 1, 0.5, 0.0),
    "fatty_marrow": Tissue(0.82, 365, 133, 14, 0.93),
    "red_marrow": Tissue(0.80, 700, 80, 12, 0.50),
    "marrow_lesion": Tissue(0.85, 1200, 70, 9, 0.30),
    "deep_cartilage": Tissue(0.66, 1150, 28, 15, 0.0),
    "superficial_cartilage": Tissue(0.82, 1300, 46, 30, 0.0),
}
