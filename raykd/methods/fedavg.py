"""Federated averaging. McMahan et al., AISTATS 2017. https://arxiv.org/abs/1602.05629"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from raykd.methods._base import (
    LocalContext,
    LocalUpdate,
    Method,
    MethodSettings,
    Noise,
    Upload,
    average,
    supervised_loss,
    takes_older_updates,
)
from raykd.numerics.aggregation import Weighting
from raykd.numerics.params import Payload
from raykd.scenario.registry import METHODS


@METHODS.register("fedavg")
class FedAvg(Method):
    """Clients train the received model on their labelled cases; the server averages their parameters."""

    noise: Noise = "sum"
    learns_by_gradients_alone = True

    class Settings(MethodSettings):
        name: Literal["fedavg"]
        weighting: Weighting = "uniform"
        """p_k: equal shares, or by labelled cases, or by all training cases."""

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        params, result = context.fit(download, supervised_loss(context.annotated))
        return LocalUpdate(state, params, result)

    @takes_older_updates
    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        return average(uploads, self.settings.weighting)
