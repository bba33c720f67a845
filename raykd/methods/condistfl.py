"""Conditional distillation for partially annotated sites. Wang et al., DeCaF 2023. https://arxiv.org/abs/2308.04070

A site learns the classes that it outlines from its labels, with all others merged into the background, and the others from the
received model: their probabilities given that a voxel is of none of the outlined classes, wherever neither the label nor the
received model says that it is. Only labelled patches are used; a site that outlines every class is FedAvg's.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from raykd.methods._base import LocalContext, LocalUpdate, labelled_loss, supervised_loss
from raykd.methods.fedavg import FedAvg
from raykd.numerics.conditional_distillation import conditional_loss
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload
from raykd.numerics.segmentation_losses import alike
from raykd.scenario.fields import NonNegativeFloat, PositiveFloat
from raykd.scenario.registry import METHODS


@METHODS.register("condistfl")
class ConDistFL(FedAvg):
    """FedAvg whose clients keep what the received model knows of the classes that they do not outline."""

    class Settings(FedAvg.Settings):
        name: Literal["condistfl"]  # type: ignore[assignment]
        weight: tuple[NonNegativeFloat, NonNegativeFloat] = (0.01, 1.0)
        """Of the distillation in the first and in the last round, in equal steps between them; [0, 0]: FedAvg."""
        temperature: PositiveFloat = 0.5
        """That divides the logits of both models; below 1 it sharpens [tau]."""

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        supervised, annotated = supervised_loss(context.annotated), context.annotated
        first, last = self.settings.weight
        weight = first + (last - first) * context.round_index / max(context.num_rounds - 1, 1)
        if annotated is None or not weight:
            params, result = context.fit(download, supervised)
            return LocalUpdate(state, params, result)
        received = context.network(download)

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            logits = model(batch.image_BCIJK)
            with torch.no_grad():
                teacher = received(batch.image_BCIJK)
            condition = logits.sum() * 0.0
            for own, rows in alike(batch.outlined(annotated)):
                if own and len(own) < context.num_classes - 1:
                    parts = logits[rows], teacher[rows], batch.label_BIJK[rows]
                    condition = condition + len(rows) * conditional_loss(*parts, own, self.settings.temperature)
            conditional = weight * condition / max(batch.num_labelled, 1)
            return {"supervised": labelled_loss(logits, batch, annotated), "conditional": conditional}

        params, result = context.fit(download, loss)
        return LocalUpdate(state, params, result)
