"""Signal equations of the sequences, and the protocols that knees are scanned with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raykd.data.phantom.tissues import TISSUES

Signal = NDArray[np.float64]


def spin_echo(pd: ArrayLike, t1_ms: ArrayLike, t2_ms: ArrayLike, tr_ms: float, te_ms: float) -> Signal:
    """Signal of a (fast) spin echo: PD (1 - E1) exp(-TE/T2), E1 = exp(-TR/T1)."""
    pd, t1, t2 = (np.asarray(value, dtype=np.float64) for value in (pd, t1_ms, t2_ms))
    return pd * -np.expm1(-tr_ms / t1) * np.exp(-te_ms / t2)


def spoiled_gradient_echo(
    pd: ArrayLike, t1_ms: ArrayLike, t2_star_ms: ArrayLike, tr_ms: float, te_ms: float, flip_deg: float
) -> Signal:
    """Signal of a spoiled gradient echo (Ernst): PD sin a (1 - E1) / (1 - E1 cos a) exp(-TE/T2*)."""
    pd, t1, t2_star = (np.asarray(value, dtype=np.float64) for value in (pd, t1_ms, t2_star_ms))
    angle, e1 = np.deg2rad(flip_deg), np.exp(-tr_ms / t1)
    return pd * np.sin(angle) * (1 - e1) / (1 - e1 * np.cos(angle)) * np.exp(-te_ms / t2_star)


def dess_echoes(
    pd: ArrayLike, t1_ms: ArrayLike, t2_ms: ArrayLike, t2_star_ms: ArrayLike, tr_ms: float, te_ms: float, flip_deg: float
) -> tuple[Signal, Signal]:
    """The two echoes S+ (TE after a pulse) and S- (TE before the next) of a double-echo steady state.

    Source: Hänicke and Vogel, Magn Reson Med 49:771, 2003, https://doi.org/10.1002/mrm.10410. The second echo is refocused
    at the pulse, so TE before it the signal is larger by exp(TE/T2) and smaller by exp(-TE/T2'), 1/T2' = 1/T2* - 1/T2.
    """
    pd, t1, t2, t2_star = (np.asarray(value, dtype=np.float64) for value in (pd, t1_ms, t2_ms, t2_star_ms))
    angle = np.deg2rad(flip_deg)
    c, e1, e2 = np.cos(angle), np.exp(-tr_ms / t1), np.exp(-tr_ms / t2)
    p = 1 - e1 * c - e2**2 * (e1 - c)
    q = e2 * (1 - e1) * (1 + c)
    r = (1 - e2**2) / np.sqrt(p**2 - q**2)
    amplitude = pd * np.tan(angle / 2)
    plus = amplitude * (1 - (e1 - c) * r) * np.exp(-te_ms / t2_star)
    minus = amplitude * (1 - (1 - e1 * c) * r) * np.exp(2 * te_ms / t2 - te_ms / t2_star)
    return plus, minus


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
