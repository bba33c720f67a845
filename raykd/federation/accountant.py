"""How much privacy has been spent, by the accountant that Opacus keeps (Yousefpour et al., Opacus: user-friendly differential
privacy library in PyTorch, 2021, https://arxiv.org/abs/2109.12298).
"""

from __future__ import annotations

import functools
import importlib.util
import warnings

HOW_TO_INSTALL = "privacy is accounted for by Opacus, which is not installed; run: pip install 'raykd[privacy]'"


def is_installed() -> bool:
    """Whether there is an accountant."""
    return importlib.util.find_spec("opacus") is not None


@functools.cache
def epsilon(noise_multiplier: float, sample_rate: float, num_releases: int, delta: float) -> float | None:
    """Epsilon of so many releases of a Gaussian mechanism of sensitivity 1, by Rényi differential privacy (Mironov, Talwar and
    Zhang, 2019, https://arxiv.org/abs/1908.10530).

    Args:
        noise_multiplier: standard deviation of the noise over the sensitivity, >= 0.
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
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, sample_rate, num_releases)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that another order might give a smaller epsilon: what is given holds
        return float(accountant.get_epsilon(delta=delta))
