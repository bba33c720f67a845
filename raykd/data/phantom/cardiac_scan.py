"""Cardiac MR at 1.5 T: tissues before and after contrast agent, and the protocols of a short-axis stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raykd.data.phantom.coil import add_rician_noise, coil_sensitivity
from raykd.data.phantom.family import Image
from raykd.data.phantom.grid import Grid, smooth_field
from raykd.data.phantom.scene import Part, paint
from raykd.data.phantom.signal_equations import balanced_ssfp, inversion_recovery, nulling_time, spin_echo, spoiled_gradient_echo

INTENSITY = 1000.0
"""Image value of a tissue that gives the full signal of water."""
JITTER = 0.03
INFLOW = 0.4
"""Share of the flowing blood in a slice that has felt no pulse before: why it is bright on a spoiled gradient echo."""
TR_HEART_MS = 1600.0
"""Two beats of a heart at 75 a minute: the repetition time of what is triggered every second beat."""


class Tissue(NamedTuple):
    """What an MR sequence sees of a tissue.

    Attributes:
        pd: proton density relative to water.
        t1_ms, t2_ms, t2_star_ms: relaxation times.
        late_t1_ms: T1 a quarter of an hour after the contrast agent.
        fat_fraction: part of the signal that fat suppression removes, in [0, 1].
        flowing: part of the signal that moves out of a double-inverted slice, in [0, 1].
    """

    pd: float
    t1_ms: float
    t2_ms: float
    t2_star_ms: float
    late_t1_ms: float
    fat_fraction: float = 0.0
    flowing: float = 0.0


# T1 and T2 of myocardium and blood at 1.5 T, of muscle and liver: Stanisz et al., Magn Reson Med 54:507, 2005,
# https://doi.org/10.1002/mrm.20605 (heart 1030 and 40 ms, blood 1441 and 290 ms, muscle 1008 and 44 ms, liver 576 and 46 ms); T1
# of myocardium after contrast agent, 546 +- 32 ms: https://pmc.ncbi.nlm.nih.gov/articles/PMC3996239; that scar keeps the agent
# longest: Biglands et al., J Cardiovasc Magn Reson 14:66, 2012, https://doi.org/10.1186/1532-429X-14-66. All others are plausible.
TISSUES: dict[str, Tissue] = {
    "skin": Tissue(0.5, 800, 25, 12, 500, 0.2),
    "fat": Tissue(0.90, 290, 70, 30, 280, 1.0),
    "muscle": Tissue(0.75, 1008, 44, 28, 600),
    "lung": Tissue(0.15, 1100, 40, 2, 700),
    "bone": Tissue(0.30, 400, 40, 8, 350, 0.6),
    "liver": Tissue(0.75, 576, 46, 25, 380),
    "blood": Tissue(0.92, 1441, 290, 120, 370, flowing=0.96),
    "myocardium": Tissue(0.80, 1030, 40, 30, 540),
    "scar": Tissue(0.85, 1150, 58, 35, 290),
    "papillary_muscle": Tissue(0.80, 1030, 40, 30, 540),
    "valve": Tissue(0.50, 900, 30, 15, 500),
    "pericardium": Tissue(0.25, 900, 15, 8, 600),
}


@dataclass(frozen=True)
class Protocol:
    """A sequence with its settings.

    Attributes:
        sequence: balanced SSFP, spoiled gradient echo, spin echo, or the inversion recovery that nulls enhanced myocardium.
        tr_ms, te_ms, flip_deg: repetition time, echo time, flip angle.
        fat_residual: what fat suppression leaves.
        is_black_blood: a double inversion has darkened what flows.
        snr: signal of blood, or of myocardium where blood is dark, over the standard deviation of the noise.
    """

    sequence: Literal["ssfp", "spgr", "late", "fse"]
    tr_ms: float
    te_ms: float
    flip_deg: float
    fat_residual: float = 1.0
    is_black_blood: bool = False
    snr: float = 30.0

    def signals(self, jitter: NDArray[np.float64] | None = None) -> dict[str, float]:
        """Signal of every tissue.

        Args:
            jitter: factors on (PD, T1, T2, T2*, late T1) of each tissue, shape (number of tissues, 5).
        """
        properties = np.array(list(TISSUES.values()))
        if jitter is not None:
            properties[:, :5] *= jitter
        pd, t1, t2, t2_star, late_t1, fat_fraction, flowing = properties.T
        if self.sequence == "ssfp":
            raw = balanced_ssfp(pd, t1, t2, self.tr_ms, self.te_ms, self.flip_deg)
        elif self.sequence == "spgr":
            steady = spoiled_gradient_echo(pd, t1, t2_star, self.tr_ms, self.te_ms, self.flip_deg)
            fresh = pd * np.sin(np.deg2rad(self.flip_deg)) * np.exp(-self.te_ms / t2_star)
            raw = steady + INFLOW * flowing * (fresh - steady)
        elif self.sequence == "late":
            ti_ms = nulling_time(TISSUES["myocardium"].late_t1_ms, self.tr_ms)
            raw = inversion_recovery(pd, late_t1, self.tr_ms, ti_ms) * np.exp(-self.te_ms / t2_star)
        else:
            raw = spin_echo(pd, t1, t2, self.tr_ms, self.te_ms)
        raw = raw * (1 - flowing * self.is_black_blood) * (1 - fat_fraction + fat_fraction * self.fat_residual)
        return dict(zip(TISSUES, raw.tolist(), strict=True))


PROTOCOLS: dict[str, Protocol] = {
    "cine_ssfp": Protocol("ssfp", 3.2, 1.6, 60.0, snr=35.0),
    "cine_spgr": Protocol("spgr", 9.0, 4.8, 20.0, snr=12.0),
    "lge": Protocol("late", TR_HEART_MS, 3.0, 25.0, snr=22.0),
    "t2_black_blood": Protocol("fse", TR_HEART_MS, 65.0, 90.0, fat_residual=0.1, is_black_blood=True, snr=14.0),
}
"""Cine by balanced SSFP and by spoiled gradient echo, late gadolinium enhancement, and T2-weighted black blood."""


def acquire(parts: Sequence[Part], protocol: Protocol, grid: Grid, rng: np.random.Generator) -> Image:
    """One magnitude image, not normalised: full signal of water would be `INTENSITY`.

    Args:
        parts: of the chest, in painting order.
        rng: draws tissue jitter, coil, texture and noise.
    """
    signals = protocol.signals(1 + rng.normal(0, JITTER, (len(TISSUES), 5)))
    reference = protocol.signals()["myocardium" if protocol.is_black_blood else "blood"]
    axes = [axis.ravel() for axis in grid.straight_axes]
    image = paint(parts, signals, grid.shape)
    fine = ndimage.gaussian_filter(rng.standard_normal(grid.shape, dtype=np.float32), (0.8, 0.8, 0.2), truncate=2.5)
    image *= 1 + 0.05 * fine + 0.04 * smooth_field(rng, axes, 9.0, grid.pose.half_extent_mm)
    image *= coil_sensitivity(axes, smooth_field(rng, axes, 45.0, grid.pose.half_extent_mm), rng)
    return (add_rician_noise(image, reference / protocol.snr, rng) * np.float32(INTENSITY)).astype(np.float32)
