"""Federated inter-client relation matching. Liu et al., MICCAI 2021. https://github.com/liuquande/FedIRM

Sites with labels tell which class they take which for, a matrix of classes by classes; sites with unlabelled cases learn to mistake
classes alike, and to agree with a moving average of their students. A voxel is here what an image is in the source. Its two
thresholds were made for five classes, and the one on the entropy holds for every voxel even there: here it is a share of the
largest entropy, and the one on the probability exceeds what a coin would give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from raykd.methods._base import LocalContext, LocalUpdate, ServerStart, Upload
from raykd.methods._semi_supervised import MeanTeacher, SemiSupervised, split
from raykd.numerics.consistency import (
    believed_share,
    mean_relations,
    mean_response,
    pseudo_labels,
    relation_loss,
    relation_matrix,
)
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload
from raykd.numerics.prototypes import class_sums
from raykd.numerics.response_losses import entropy, sigmoid_ramp, softmax_mse_loss
from raykd.numerics.segmentation_losses import UNKNOWN, dice_ce_loss
from raykd.scenario.fields import NonNegativeFloat, PositiveFloat, PositiveInt, Probability
from raykd.scenario.registry import METHODS

RELATIONS = "prototypes/relations"


@METHODS.register("fed_irm")
class FedIRM(SemiSupervised):
    """FedAvg whose sites learn from their unlabelled cases to relate classes as the sites with labels do."""

    kinds = ("params", "prototypes")

    class Settings(SemiSupervised.Settings):
        name: Literal["fed_irm"]  # type: ignore[assignment]
        consistency_weight: NonNegativeFloat = 15.0
        """Weight of both unsupervised terms, reached by a sigmoid ramp [15 rho]; 0: FedAvg."""
        ramp_share: PositiveFloat = 0.15
        """Share of the rounds over which that weight rises; the source's 30 of 200."""
        join_share: Probability = 0.1
        """Share of the rounds before sites without labels count in the average; the source's 20 of 200. They train from the start,
        so that their moving average is ready."""
        temperature: PositiveFloat = 2.0
        """Of the relation matrix [T]."""
        ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
        """Share of itself that the moving average keeps in a step [alpha]."""
        num_passes: PositiveInt = 11
        """Noisy passes of the student, with its dropout if it has any, that tell how sure it is."""
        input_noise: NonNegativeFloat = 0.1
        """Standard deviation of the noise on z-scored intensities, of these passes and of the moving average's view."""
        max_entropy: Probability = 0.75
        """Entropy up to which a pseudo-label counts in the relation matrix, as a share of its maximum ln C [h]."""
        threshold: NonNegativeFloat = 0.5
        """Probability from which on it does; above 1: none does."""

    def init_server(self, start: ServerStart) -> Payload:
        num_classes = len(self.scenario.classes) + 1
        return super().init_server(start) | {RELATIONS: torch.zeros((num_classes, num_classes))}

    def broadcast(self, server: Payload) -> Payload:
        return dict(server)

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        settings, ramp = self.settings, self.settings.ramp_share * context.num_rounds
        weight = settings.consistency_weight * sigmoid_ramp(context.round_index + 1, ramp)
        num_unlabelled = settings.num_unlabelled if weight and context.num_unlabelled else 0
        teacher = MeanTeacher(context, state, download, settings.ema_decay) if num_unlabelled else None
        num_classes, rng = context.num_classes, context.generator("passes")
        sums, believed = [torch.zeros((num_classes, num_classes + 1))], [0.0]

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            of_labelled, of_unlabelled = split(model(batch.image_BCIJK), batch.num_labelled)
            terms = {}
            if batch.num_labelled:
                terms["supervised"] = dice_ce_loss(of_labelled, batch.label_BIJK, context.annotated)
                total_LL, count_L = class_sums(of_labelled.detach(), batch.label_BIJK, num_classes)
                sums.append(torch.cat([total_LL, count_L[:, None]], dim=1).cpu())
            return terms
        raise NotImplementedError
