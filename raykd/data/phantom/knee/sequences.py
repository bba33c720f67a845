"""The protocols that knees are scanned with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raykd.data.phantom.knee.tissues import TISSUES
from raykd.data.phantom.signal_equations import dess_echoes, spin_echo, spoiled_gradient_echo


@dataclass(frozen=True)
class Protocol:
    """A sequence with its settings.

    Attributes:
        sequence: fse, spoiled gradient echo, or the root sum of squares of the DESS echoes.
        tr_ms, te_ms, flip_deg: repetition time, echo time, flip angle (not used by fse).
        fat_residual: what fat suppression or water excitation leaves of the fat signal; 1: no suppression.
        snr: signal of superficial cartilage over the standard deviation of the noise.
    """

    sequence: Literal["fse", "spgr", "dess"]
    tr_ms: float
    te_ms: float
    flip_deg: float
    fat_residual: float
    snr: float

    def without_fat_suppression(self) -> Protocol:
        """The same protocol where suppression fails."""
        return replace(self, fat_residual=1.0)

    def signals(self, b1: float = 1.0, jitter: NDArray[np.float64] | None = None) -> dict[str, float]:
        """Signal of every tissue.

        Args:
            b1: actual over nominal flip angle.
            jitter: factors on (PD, T1, T2, T2*) of each tissue, shape (number of tissues, 4).
        """
        properties = np.array(list(TISSUES.values()))
        if jitter is not None:
            properties[:, :4] *= jitter
        pd, t1, t2, t2_star, fat_fraction = properties.T
        if self.sequence == "dess":
            raw = np.hypot(*dess_echoes(pd, t1, t2, t2_star, self.tr_ms, self.te_ms, self.flip_deg * b1))
        elif self.sequence == "spgr":
            raw = spoiled_gradient_echo(pd, t1, t2_star, self.tr_ms, self.te_ms, self.flip_deg * b1)
        else:
            raw = spin_echo(pd, t1, t2, self.tr_ms, self.te_ms)
        values = raw * (1 - fat_fraction + fat_fraction * self.fat_residual)
        return dict(zip(TISSUES, values.tolist(), strict=True))


# DESS, IW-FSE and SPGR as in the Osteoarthritis Initiative (Peterfy et al., Osteoarthritis Cartilage 2008).
PROTOCOLS: dict[str, Protocol] = {
    "dess_we": Protocol("dess", 16.3, 4.7, 25.0, fat_residual=0.04, snr=30.0),
    "pd_fse_fs": Protocol("fse", 3200.0, 30.0, 90.0, fat_residual=0.10, snr=26.0),
    "iw_fse": Protocol("fse", 3700.0, 29.0, 90.0, fat_residual=1.0, snr=30.0),
    "t2_fse_fs": Protocol("fse", 4000.0, 70.0, 90.0, fat_residual=0.10, snr=16.0),
    "spgr_we": Protocol("spgr", 20.0, 7.6, 12.0, fat_residual=0.05, snr=18.0),
    "t1_fse": Protocol("fse", 700.0, 12.0, 90.0, fat_residual=1.0, snr=28.0),
}
