"""Federated averaging with server momentum. Hsu et al., 2019. https://arxiv.org/abs/1909.06335"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raykd.methods._server_optimiser import ServerOptimiser
from raykd.methods.fedavg import FedAvg
from raykd.numerics.server_optimisers import Tensors, momentum_step
from raykd.scenario.fields import PositiveFloat
from raykd.scenario.registry import METHODS


@METHODS.register("fedavgm")
class FedAvgM(ServerOptimiser):
    """FedAvg whose server keeps a momentum of the average updates."""

    class Settings(FedAvg.Settings):
        name: Literal["fedavgm"]  # type: ignore[assignment]
        server_learning_rate: PositiveFloat = 1.0
        """[eta]"""
        momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
        """[beta]; 0 with a server learning rate of 1: FedAvg."""

    def start_values(self) -> dict[str, float]:
        return {"momentum": 0.0}

    def step(self, server: Tensors, d: Tensors, moments: dict[str, Tensors]) -> tuple[Tensors, dict[str, Tensors]]:
        rate, beta = self.settings.server_learning_rate, self.settings.momentum
        moved, momentum = momentum_step(server, d, moments["momentum"], learning_rate=rate, beta=beta)
        return moved, {"momentum": momentum}
