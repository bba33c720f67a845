"""A personal model near the global one at every site. Li et al., ICML 2021. https://arxiv.org/abs/2012.04221"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from raykd.methods._base import LocalContext, LocalUpdate, supervised_loss
from raykd.methods.fedavg import FedAvg
from raykd.numerics.local_sgd import Batch, LocalResult
from raykd.numerics.params import Payload, squared_distance
from raykd.scenario.fields import NonNegativeFloat
from raykd.scenario.registry import METHODS


@METHODS.register("ditto")
class Ditto(FedAvg):
    """FedAvg, and beside it every site trains a model of its own that is held near the received one. Twice the local work."""

    deployed = "personal"

    class Settings(FedAvg.Settings):
        name: Literal["ditto"]  # type: ignore[assignment]
        pull: NonNegativeFloat = 1.0
        """Weight of half the squared distance of the personal model from the received one [lambda]; 0: each site alone."""

    def init_client(self, student: Payload) -> Payload:
        return dict(student)

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        supervised = supervised_loss(context.annotated)

        def near_global(model: Any, batch: Batch) -> dict[str, Tensor]:
            return supervised(model, batch) | {"pull": self.settings.pull / 2 * squared_distance(model, download)}

        params, result = context.fit(download, supervised)
        personal, own = context.fit(state, near_global)
        terms = result.terms | {f"personal_{name}": value for name, value in own.terms.items()}
        return LocalUpdate(personal, params, LocalResult(result.num_steps + own.num_steps, terms))

    def personal_model(self, state: Mapping[str, Any]) -> Payload:
        return dict(state)
