"""Federated inter-client relation matching. Liu et al., MICCAI 2021. https://github.com/liuquande/FedIRM

Sites with labels tell which class they take which for, a matrix of classes by classes; sites with unlabelled cases learn to mistake
classes alike, and to agree with a moving average of their students. A voxel is here what an image is in the source. Its two
thresholds were made for five classes, and the one on the entropy holds for every voxel even there: here it is a share of the
largest entropy, and the one on the probability exceeds what a coin would give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from raykd.methods._base import LocalContext, LocalUpdate, ServerStart, Upload
from raykd.methods._semi_supervised import MeanTeacher, SemiSupervised, believed_note
from raykd.methods._unlabelled import supervised_term
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
from raykd.numerics.segmentation_losses import UNKNOWN
from raykd.numerics.sent_knowledge import comparable_labels
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
        num_unlabelled = self.settings.num_unlabelled if self.settings.consistency_weight and context.num_unlabelled else 0
        teacher = MeanTeacher(context, state, download, self.settings.ema_decay) if num_unlabelled else None
        unsupervised, believed = self._unsupervised(context, teacher, download)
        seen: list[tuple[Tensor, Tensor]] = []

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            n, logits_BLIJK = batch.num_labelled, model(batch.image_BCIJK)
            terms = supervised_term(logits_BLIJK, batch, context.annotated)
            if n:
                # A background in which other classes hide tells nothing of what the model takes background for.
                known = comparable_labels(batch.label_BIJK, None, batch.outlined(context.annotated))
                seen.append(class_sums(logits_BLIJK[:n].detach(), known, context.num_classes))
            if len(logits_BLIJK) > n:
                terms |= unsupervised(model, batch.image_BCIJK[n:], logits_BLIJK[n:])
            return terms

        follow = teacher.follow if teacher else None
        params, result = context.fit(download, loss, num_unlabelled=num_unlabelled, after_step=follow)
        kept = teacher.state() if teacher else state
        return LocalUpdate(kept, params | self._told(seen), result, believed_note(believed))

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        params = super().aggregate(server, uploads, round_index)
        told = [upload.payload[RELATIONS] for upload in uploads if RELATIONS in upload.payload]
        mean_LL = mean_relations([*told, torch.zeros_like(server[RELATIONS])])
        is_told_L1 = mean_LL.sum(dim=1, keepdim=True) > 0
        return params | {RELATIONS: torch.where(is_told_L1, mean_LL, server[RELATIONS])}

    def unlabelled_factor(self, round_index: int) -> float:
        has_joined = round_index >= self.settings.join_share * self.scenario.federation.rounds
        return super().unlabelled_factor(round_index) if has_joined else 0.0

    def _unsupervised(self, context: LocalContext, teacher: MeanTeacher | None, download: Payload) -> tuple[Any, list[float]]:
        """The loss of unlabelled patches, given their logits, and the shares of voxels that it believed, step by step."""
        settings, rng = self.settings, context.generator("passes")
        weight = settings.consistency_weight * sigmoid_ramp(context.round_index + 1, settings.ramp_share * context.num_rounds)
        largest = settings.max_entropy * math.log(context.num_classes)
        # A personal round brings no matrix; rows of zeros are matched with nothing.
        shared_LL = download.get(RELATIONS, torch.zeros((context.num_classes, context.num_classes)))
        believed: list[float] = []

        def loss(model: Any, image_BCIJK: Tensor, logits_BLIJK: Tensor) -> dict[str, Tensor]:
            assert teacher is not None
            of_teacher = mean_response(teacher.network, image_BCIJK, 1, settings.input_noise, rng)
            is_sure = entropy(mean_response(model, image_BCIJK, settings.num_passes, settings.input_noise, rng)) < largest
            pseudo = pseudo_labels(torch.softmax(logits_BLIJK, dim=1), settings.threshold).where(is_sure, UNKNOWN)
            believed.append(believed_share(pseudo))
            own_LL = relation_matrix(*class_sums(logits_BLIJK, pseudo, context.num_classes), settings.temperature)
            return {
                "consistency": weight * softmax_mse_loss(logits_BLIJK, of_teacher),
                "relation": weight * relation_loss(own_LL, shared_LL.to(own_LL)),
            }

        return loss, believed

    def _told(self, seen: Sequence[tuple[Tensor, Tensor]]) -> Payload:
        """The matrix of a site's labelled voxels."""
        if not seen:
            return {}
        sums_LL, count_L = (torch.stack(parts).sum(dim=0).cpu() for parts in zip(*seen, strict=True))
        return {RELATIONS: relation_matrix(sums_LL, count_L, self.settings.temperature)}
