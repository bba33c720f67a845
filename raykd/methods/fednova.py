"""Normalised averaging for unequal amounts of local work. Wang et al., NeurIPS 2020. https://arxiv.org/abs/2007.07481"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from raykd.methods._base import LocalContext, LocalUpdate, Upload, supervised_loss
from raykd.methods._layout import parameter_keys
from raykd.methods.fedavg import FedAvg
from raykd.numerics.aggregation import aggregation_weights, local_progress, normalised_average
from raykd.numerics.params import Payload, select
from raykd.scenario.registry import METHODS

WORK = "control/work"


@METHODS.register("fednova")
class FedNova(FedAvg):
    """FedAvg of updates a step, so that a site that takes more steps does not pull the average its way. SGD only."""

    noise = "none"
    optimisers = ("sgd",)
    kinds = ("params", "control")

    class Settings(FedAvg.Settings):
        name: Literal["fednova"]  # type: ignore[assignment]

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        params, result = context.fit(download, supervised_loss(context.annotated))
        member = self.scenario.members()[context.client_id]
        work = local_progress(result.num_steps, member.training.momentum)
        return LocalUpdate(state, params | {WORK: torch.tensor([work], dtype=torch.float64)}, result)

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        shares = aggregation_weights(
            self.settings.weighting, [upload.num_labelled for upload in uploads], [upload.num_unlabelled for upload in uploads]
        )
        work = [float(upload.payload[WORK]) for upload in uploads]
        models = (select(upload.payload, "params") for upload in uploads)
        return normalised_average(select(server, "params"), models, shares, work, parameter_keys(self))
