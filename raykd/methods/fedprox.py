"""Federated averaging with a proximal term. Li et al., MLSys 2020. https://arxiv.org/abs/1812.06127"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from raykd.methods._base import LocalContext, LocalUpdate, supervised_loss
from raykd.methods.fedavg import FedAvg
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload, squared_distance
from raykd.scenario.fields import NonNegativeFloat
from raykd.scenario.registry import METHODS


@METHODS.register("fedprox")
class FedProx(FedAvg):
    """FedAvg whose clients are held near the received model."""

    class Settings(FedAvg.Settings):
        name: Literal["fedprox"]  # type: ignore[assignment]
        mu: NonNegativeFloat = 0.01
        """Weight of half the squared distance from the received trainable parameters, a term of the loss [mu]; 0: FedAvg."""

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        supervised = supervised_loss(context.annotated)

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            return supervised(model, batch) | {"proximal": self.settings.mu / 2 * squared_distance(model, download)}

        params, result = context.fit(download, loss)
        return LocalUpdate(state, params, result)
