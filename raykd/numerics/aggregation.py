"""How a server weighs its clients."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from raykd.numerics.params import Payload, weighted_mean

Weighting = Literal["uniform", "labelled", "all"]


def aggregation_weights(weighting: Weighting, num_labelled: Sequence[int], num_unlabelled: Sequence[int]) -> list[float]:
    """One weight a client, summing to one: equal shares, by labelled cases, or by all training cases (FedAvg, McMahan et al.,
    AISTATS 2017, https://arxiv.org/abs/1602.05629). Clients without a single counted case all weigh alike.
    """
    if weighting == "uniform":
        counts = [1] * len(num_labelled)
    elif weighting == "labelled":
        counts = list(num_labelled)
    else:
        counts = [labelled + unlabelled for labelled, unlabelled in zip(num_labelled, num_unlabelled, strict=True)]
    if sum(counts) == 0:
        counts = [1] * len(counts)
    return [count / sum(counts) for count in counts]


def local_progress(num_steps: int, momentum: float = 0.0) -> float:
    """FedNova's a_k, by how much tau steps of SGD move a model for a constant gradient, in steps without momentum:
    [tau - rho (1 - rho^tau) / (1 - rho)] / (1 - rho).

    Args:
        num_steps: tau, >= 0.
        momentum: rho, in [0, 1).
    """
    if momentum == 0.0:
        return float(num_steps)
    return (num_steps - momentum * (1 - momentum**num_steps) / (1 - momentum)) / (1 - momentum)


def normalised_average(
    server: Mapping[str, Tensor],
    models: Iterable[Mapping[str, Tensor]],
    shares: Sequence[float],
    work: Sequence[float],
    trainable: Collection[str],
) -> Payload:
    """w + (sum p_k a_k) sum p_k (w_k - w) / a_k for trainable entries, the weighted mean for the others (Wang et al., NeurIPS 2020,
    https://arxiv.org/abs/2007.07481). One model is looked at at a time.

    Args:
        server: w.
        models: w_k, one a client.
        shares: p_k, summing to 1.
        work: a_k, > 0.
        trainable: keys of what is optimised; buffers are averaged plainly.
    """
    effective = sum(p * a for p, a in zip(shares, work, strict=True))
    scale = [effective * p / a for p, a in zip(shares, work, strict=True)]
    start = {key: server[key].double() for key in trainable}
    moves = {key: torch.zeros_like(value) for key, value in start.items()}

    def accumulated() -> Iterator[Mapping[str, Tensor]]:
        for factor, model in zip(scale, models, strict=True):
            for key in trainable:
                moves[key] += factor * (model[key].double() - start[key])
            yield model

    mean = weighted_mean(accumulated(), shares)
    return mean | {key: (start[key] + moves[key]).to(server[key].dtype) for key in trainable}
