"""How much privacy has been spent: exactly where everybody takes part in every release, and where patients are drawn by the
accountant that Opacus keeps (Yousefpour et al., Opacus: user-friendly differential privacy library in PyTorch, 2021,
https://arxiv.org/abs/2109.12298).

Two data sets are neighbours in one of two senses. *Add or remove*: one of those that are protected is there or is not; its clipped
contribution moves the sum by the clipping norm C at most. *Replace one*: it is another, and everybody is known to be there; one
contribution within C is exchanged for another, which moves the sum by 2 C.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import warnings

from raykd.numerics.gaussian_mechanism import gaussian_epsilon

HOW_TO_INSTALL = "privacy is accounted for by Opacus, which is not installed; run: pip install 'raykd[privacy]'"
LARGEST = 300.0
"""An epsilon beyond which the delta that it is sought for would be too small for a float."""


def is_installed() -> bool:
    """Whether there is an accountant."""
    return importlib.util.find_spec("opacus") is not None


@functools.cache
def epsilon(noise_multiplier: float, sample_rate: float, num_releases: int, delta: float) -> float | None:
    """Epsilon, against adding or removing one, of so many releases of a Gaussian mechanism whose contributions have norm 1 at most:
    exact without sampling; with it by Renyi differential privacy (Mironov, Talwar and Zhang, 2019,
    https://arxiv.org/abs/1908.10530), which is no less than the exact one.

    Args:
        noise_multiplier: standard deviation of the noise over the largest norm of one contribution, >= 0.
        sample_rate: probability with which each of those that are protected takes part in a release, drawn for each of them and
            each release alone (Poisson sampling), 0 < q <= 1.
        num_releases: >= 0.
        delta: in (0, 1).

    Returns:
        None: no epsilon, because no noise was added.
    """
    if num_releases == 0:
        return 0.0
    if noise_multiplier == 0.0:
        return None
    always = gaussian_epsilon(noise_multiplier, num_releases, delta)
    if sample_rate == 1.0:
        return always
    return min(always, _at_delta(_divergences(noise_multiplier, sample_rate, num_releases), delta))


@functools.cache
def epsilon_replace_one(noise_multiplier: float, sample_rate: float, num_releases: int, delta: float) -> float | None:
    """Epsilon, against replacing one by another, of the same releases; arguments and what is returned as for `epsilon`.

    Without sampling it is exact: the exchange moves the sum by twice the norm, which is half the multiplier. With sampling the
    smaller of two bounds is given. To exchange is to remove and to add, so that (e, d) against either gives
    (2 e, (1 + exp(e)) d). And sampling cannot make it worse than half the multiplier without: both outputs are mixtures, in equal
    shares, of outputs that are no further apart than that.
    """
    always = epsilon(noise_multiplier / 2, 1.0, num_releases, delta)
    if always is None or num_releases == 0 or sample_rate == 1.0:
        return always
    return min(always, _removed_and_added(_divergences(noise_multiplier, sample_rate, num_releases), delta))


def _removed_and_added(divergences: tuple[float, ...], delta: float) -> float:
    """Twice the epsilon e that holds with delta / (1 + exp(e))."""
    found, before = 0.0, -1.0
    while found - before > 1e-9 and found < LARGEST:
        before, found = found, _at_delta(divergences, delta / (1 + math.exp(found)))
    return 2 * found if found < LARGEST else math.inf


@functools.cache
def _divergences(noise_multiplier: float, sample_rate: float, num_releases: int) -> tuple[float, ...]:
    """The Rényi divergences of the releases at Opacus's orders."""
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis.rdp import compute_rdp

    orders = RDPAccountant.DEFAULT_ALPHAS
    found = compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=num_releases, orders=orders)
    return tuple(float(value) for value in found)


def _at_delta(divergences: tuple[float, ...], delta: float) -> float:
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis.rdp import get_privacy_spent

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that another order might give a smaller epsilon: what is given holds
        found, _ = get_privacy_spent(orders=RDPAccountant.DEFAULT_ALPHAS, rdp=list(divergences), delta=delta)
    return float(found)
