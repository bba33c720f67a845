"""Federated averaging with not-true distillation. Lee et al., NeurIPS 2022. https://arxiv.org/abs/2106.03097

A client's few labels make it forget what the received model knew of the other classes. Here that is kept voxel by voxel. Where the
true class is unknown, be it a voxel that nobody outlined or the background of a site that outlines some classes only, the class
that the received model thinks most probable stands for it.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from raykd.methods._base import LocalContext, LocalUpdate, labelled_loss
from raykd.methods.fedavg import FedAvg
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload
from raykd.numerics.response_losses import decoupled_loss
from raykd.numerics.sent_knowledge import comparable_labels
from raykd.scenario.fields import NonNegativeFloat, PositiveFloat
from raykd.scenario.registry import METHODS


@METHODS.register("fedntd")
class FedNTD(FedAvg):
    """FedAvg whose clients keep what the received model says of all classes but the true one. Traffic is that of FedAvg."""

    class Settings(FedAvg.Settings):
        name: Literal["fedntd"]  # type: ignore[assignment]
        not_true_weight: NonNegativeFloat = 1.0
        """Of the distillation [beta]; 0: FedAvg."""
        temperature: PositiveFloat = 1.0
        """[tau]; the source's experiments take 1, its loss 3 unless told."""

    def problems(self) -> list[str]:
        lonely = "method fedntd compares the classes that are not true, of which a single class beside the background leaves one, "
        return super().problems() + (
            [lonely + "so that nothing is distilled; choose fedavg"] if len(self.scenario.classes) < 2 else []
        )

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        received, annotated = context.network(download), context.annotated

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            logits_BLIJK = model(batch.image_BCIJK)
            with torch.no_grad():
                known_BLIJK = torch.softmax(received(batch.image_BCIJK), dim=1)
            true_BIJK = comparable_labels(batch.label_BIJK, None, batch.outlined(annotated))
            # Among the classes that are not true, decoupled distillation is not-true distillation.
            not_true = decoupled_loss(
                logits_BLIJK,
                known_BLIJK,
                temperature=self.settings.temperature,
                label_BIJK=true_BIJK,
                target_weight=0.0,
                non_target_weight=1.0,
            )
            return {
                "supervised": labelled_loss(logits_BLIJK, batch, annotated),
                "not_true": self.settings.not_true_weight * not_true,
            }

        params, result = context.fit(download, loss)
        return LocalUpdate(state, params, result)
