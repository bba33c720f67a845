"""A shared representation and a head at every site. Collins et al., ICML 2021. https://arxiv.org/abs/2102.07078

A local update first fits the head, the network's output block, with the body as received, then the body with that head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from raykd.methods._base import LocalContext, LocalUpdate, supervised_loss
from raykd.methods._layout import layout
from raykd.methods.fedavg import FedAvg
from raykd.models._base import head_keys
from raykd.numerics.local_sgd import LocalResult
from raykd.numerics.params import Payload, select
from raykd.scenario.registry import METHODS


@METHODS.register("fedrep")
class FedRep(FedAvg):
    """FedAvg of the body; every site has a head of its own."""

    deployed = "personal"
    has_global_model = False

    class Settings(FedAvg.Settings):
        name: Literal["fedrep"]  # type: ignore[assignment]
        head_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8
        """Share of the local steps that fit the head; the source takes 4 epochs of 5. Each part gets a step at least."""

    def broadcast(self, server: Payload) -> Payload:
        return self._body(select(server, "params"))

    def global_model(self, server: Payload) -> Payload:
        return {}

    def init_client(self, student: Payload) -> Payload:
        return dict(student)

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        head, loss = head_keys(layout(self)), supervised_loss(context.annotated)
        num_head_steps = min(max(round(self.settings.head_share * context.num_steps), 1), max(context.num_steps - 1, 1))
        params, first = context.fit(
            state | download, loss, num_steps=num_head_steps, trains=lambda name: name in head, purpose="head-patches"
        )
        num_body_steps = max(context.num_steps - num_head_steps, 1)
        params, second = context.fit(params, loss, num_steps=num_body_steps, trains=lambda name: name not in head)
        terms = second.terms | {f"head_{name}": value for name, value in first.terms.items()}
        return LocalUpdate(params, self._body(params), LocalResult(first.num_steps + second.num_steps, terms))

    def uploaded_model(self, upload: Payload) -> Payload:
        return {}

    def personal_model(self, state: Mapping[str, Any]) -> Payload:
        return dict(state)

    def _body(self, params: Payload) -> Payload:
        head = {f"params/{key}" for key in head_keys(layout(self))}
        return {key: value for key, value in params.items() if key not in head}
