"""Adaptive federated optimisation with Adam at the server. Reddi et al., ICLR 2021. https://arxiv.org/abs/2003.00295"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raykd.methods._server_optimiser import ServerOptimiser
from raykd.methods.fedavg import FedAvg
from raykd.numerics.server_optimisers import Tensors, adaptive_step
from raykd.scenario.fields import PositiveFloat
from raykd.scenario.registry import METHODS

Decay = Annotated[float, Field(ge=0.0, lt=1.0)]


@METHODS.register("fedadam")
class FedAdam(ServerOptimiser):
    """FedAvg whose server takes Adam's step along the average update, without bias correction, as the source has it."""

    is_yogi = False

    class Settings(FedAvg.Settings):
        name: Literal["fedadam"]  # type: ignore[assignment]
        server_learning_rate: PositiveFloat = 0.01
        """[eta]: about the size of every parameter's step; worth a grid from 0.001 to 0.1."""
        beta_1: Decay = 0.9
        beta_2: Decay = 0.99
        tau: PositiveFloat = 1.0e-3
        """Adaptivity: the larger, the closer to plain averaging with momentum."""

    def start_values(self) -> dict[str, float]:
        return {"mean": 0.0, "square": self.settings.tau**2}

    def step(self, server: Tensors, d: Tensors, moments: dict[str, Tensors]) -> tuple[Tensors, dict[str, Tensors]]:
        s = self.settings
        moved, mean, square = adaptive_step(
            server,
            d,
            moments["mean"],
            moments["square"],
            learning_rate=s.server_learning_rate,
            beta_1=s.beta_1,
            beta_2=s.beta_2,
            tau=s.tau,
            is_yogi=self.is_yogi,
        )
        return moved, {"mean": mean, "square": square}
