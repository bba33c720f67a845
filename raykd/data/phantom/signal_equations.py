"""Signal equations of magnetic resonance sequences; times in ms, angles in degrees, PD relative to water."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

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


def balanced_ssfp(pd: ArrayLike, t1_ms: ArrayLike, t2_ms: ArrayLike, tr_ms: float, te_ms: float, flip_deg: float) -> Signal:
    """Signal of a balanced steady state free precession on resonance.

    PD sin a (1 - E1) / (1 - (E1 - E2) cos a - E1 E2) exp(-TE/T2). Source: Scheffler and Lehnhardt, Eur Radiol 13:2409, 2003,
    https://doi.org/10.1007/s00330-003-1957-x.
    """
    pd, t1, t2 = (np.asarray(value, dtype=np.float64) for value in (pd, t1_ms, t2_ms))
    angle, e1, e2 = np.deg2rad(flip_deg), np.exp(-tr_ms / t1), np.exp(-tr_ms / t2)
    return pd * np.sin(angle) * (1 - e1) / (1 - (e1 - e2) * np.cos(angle) - e1 * e2) * np.exp(-te_ms / t2)


def inversion_recovery(pd: ArrayLike, t1_ms: ArrayLike, tr_ms: float, ti_ms: float) -> Signal:
    """Magnitude after an inversion repeated every `tr_ms`: PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)|."""
    pd, t1 = (np.asarray(value, dtype=np.float64) for value in (pd, t1_ms))
    return pd * np.abs(1 - 2 * np.exp(-ti_ms / t1) + np.exp(-tr_ms / t1))


def nulling_time(t1_ms: float, tr_ms: float) -> float:
    """The inversion time at which a tissue gives no signal: T1 ln(2 / (1 + exp(-TR/T1)))."""
    return float(t1_ms * np.log(2 / (1 + np.exp(-tr_ms / t1_ms))))
