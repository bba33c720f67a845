"""How a server weighs its clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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
