"""Federated averaging of all but the normalisation layers. Li et al., ICLR 2021. https://arxiv.org/abs/2102.07623

The layers are found by their type, not by their name. In a network with GroupNorm or InstanceNorm what stays at a site is their
scale and shift alone: there are no running statistics to keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from raykd.methods._base import LocalContext, LocalUpdate, supervised_loss
from raykd.methods._layout import layout
from raykd.methods.fedavg import FedAvg
from raykd.models._base import norm_keys
from raykd.numerics.params import Payload, select
from raykd.scenario.registry import METHODS


@METHODS.register("fedbn")
class FedBN(FedAvg):
    """FedAvg in which every site keeps its own normalisation layers."""

    deployed = "personal"
    has_global_model = False

    class Settings(FedAvg.Settings):
        name: Literal["fedbn"]  # type: ignore[assignment]

    def problems(self) -> list[str]:
        bare = (
            [] if norm_keys(layout(self)) else ["method fedbn keeps normalisation layers, and the student has none; choose fedavg"]
        )
        return super().problems() + bare

    def broadcast(self, server: Payload) -> Payload:
        return self._shared(select(server, "params"))

    def global_model(self, server: Payload) -> Payload:
        return {}

    def init_client(self, student: Payload) -> Payload:
        return dict(student)

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        params, result = context.fit(state | download, supervised_loss(context.annotated))
        return LocalUpdate(params, self._shared(params), result)

    def uploaded_model(self, upload: Payload) -> Payload:
        return {}

    def personal_model(self, state: Mapping[str, Any]) -> Payload:
        return dict(state)

    def _shared(self, params: Payload) -> Payload:
        own = {f"params/{key}" for key in norm_keys(layout(self))}
        return {key: value for key, value in params.items() if key not in own}
