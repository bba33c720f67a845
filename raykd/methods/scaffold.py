"""Control variates against client drift. Karimireddy et al., ICML 2020. https://arxiv.org/abs/1910.06378

A client's gradient is corrected by c - c_k, the server's control variate less its own. The source's second option estimates
the client's next control variate as c_k - c + (w - y) / (tau eta); for plain SGD at a constant rate that is the mean of the
client's own gradients along its path, which is what is taken here, because it holds for Adam, momentum and schedules too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from raykd.methods._base import LocalContext, LocalUpdate, ServerStart, Upload, average, supervised_loss
from raykd.methods._layout import parameter_keys
from raykd.methods.fedavg import FedAvg
from raykd.numerics.params import Payload, select, weighted_mean
from raykd.scenario.fields import PositiveFloat
from raykd.scenario.registry import METHODS
from raykd.scenario.sites import num_training


@METHODS.register("scaffold")
class Scaffold(FedAvg):
    """FedAvg with corrected gradients; control variates travel with the parameters, so that traffic doubles."""

    kinds = ("params", "control")

    class Settings(FedAvg.Settings):
        name: Literal["scaffold"]  # type: ignore[assignment]
        server_learning_rate: PositiveFloat = 1.0
        """Of the server's step towards the average [eta_g]."""

    def init_server(self, start: ServerStart) -> Payload:
        server = super().init_server(start)
        return server | self._zeros(server)

    def init_client(self, student: Payload) -> Payload:
        return self._zeros(student)

    def broadcast(self, server: Payload) -> Payload:
        return dict(server)

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        shared = select(download, "control") or state  # a personal round brings no control variate: nothing is corrected
        total = {key: value.clone() for key, value in self._zeros(download).items()}

        def correct(model: nn.Module) -> None:
            for name, parameter in model.named_parameters():
                key = _key(f"params/{name}")
                if parameter.grad is not None:
                    total[key] += parameter.grad.cpu()
                    parameter.grad += (shared[key] - state[key]).to(parameter.device)

        params, result = context.fit(select(download, "params"), supervised_loss(context.annotated), before_step=correct)
        if not result.num_steps:
            return LocalUpdate(state, {}, result)
        own = {key: value / result.num_steps for key, value in total.items()}
        return LocalUpdate(own, params | {key: own[key] - state[key] for key in own}, result)

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        mean = average(uploads, self.settings.weighting)
        for key in parameter_keys(self):
            mean[key] = server[key] + self.settings.server_learning_rate * (mean[key] - server[key])
        change = weighted_mean((select(upload.payload, "control") for upload in uploads), [1.0] * len(uploads))
        share = len(uploads) / num_training(self.scenario.members())
        return mean | {key: value + share * change[key] for key, value in select(server, "control").items()}

    def _zeros(self, params: Payload) -> Payload:
        return {_key(key): params[key].new_zeros(params[key].shape) for key in parameter_keys(self)}


def _key(parameter: str) -> str:
    """Under which a parameter's control variate is filed."""
    return parameter.replace("params/", "control/", 1)
