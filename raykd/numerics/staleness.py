"""Updates that started from an older model than the server's."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from raykd.numerics.params import Payload


def staleness_weight(staleness: int, exponent: float = 0.5) -> float:
    """s(tau) = (1 + tau)^-a: with a = 1 / 2 what FedBuff uses (Nguyen et al., AISTATS 2022, https://arxiv.org/abs/2106.06639, from
    FedAsync, Xie et al., 2019, https://arxiv.org/abs/1903.03934).

    Args:
        staleness: tau, server updates since the model that the update started from, >= 0.
        exponent: a, >= 0.
    """
    return float((1.0 + staleness) ** -exponent)


def rebased(
    now: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    upload: Mapping[str, Tensor],
    trainable: Collection[str],
    *,
    weight: float,
    learning_rate: float = 1.0,
) -> Payload:
    """An upload as it would be had it started from the server's model: w + eta s (u - v) for what is trained. The mean of such
    uploads is FedBuff's w + eta sum p_k s_k (u_k - v_k).

    Running statistics are no update: they are (1 - s) w + s u, which stays between the two, so that no variance turns negative.

    Args:
        now: w, the server's model.
        start: v, the model that the client was sent.
        upload: u, with the same keys; further entries are left as they are.
        trainable: keys of what is optimised.
        weight: s, in [0, 1].
        learning_rate: eta, > 0.
    """
    moved = dict(upload)
    for key, w in now.items():
        u = upload[key].double()
        if key in trainable:
            value = w.double() + learning_rate * weight * (u - start[key].double())
        else:
            value = (1.0 - weight) * w.double() + weight * u
        moved[key] = (value if w.is_floating_point() else value.round()).to(w.dtype)
    return moved
