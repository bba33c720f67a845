"""What the semi-supervised methods share: how sites without labels weigh, and a server that holds the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Literal

import torch
from torch import nn

from raykd.methods._base import LocalContext, Upload, supervised_loss
from raykd.methods.fedavg import FedAvg
from raykd.models._base import set_dropout_only_training
from raykd.numerics.aggregation import aggregation_weights
from raykd.numerics.local_sgd import Batch
from raykd.numerics.mean_teacher import follow, warm_keep
from raykd.numerics.params import Payload, rename, select, state_of, weighted_mean
from raykd.scenario.fields import NonNegativeFloat, PositiveInt


class SemiSupervised(FedAvg):
    """FedAvg of sites that learn from labelled and unlabelled cases, whichever they have."""

    noise = "upload"
    learns_by_gradients_alone = False

    class Settings(FedAvg.Settings):
        name: Literal["semi_supervised"]  # type: ignore[assignment]
        num_unlabelled: PositiveInt = 2
        """Unlabelled patches beside the labelled ones in every step, at a site that has unlabelled cases."""
        unlabelled_site_weight: NonNegativeFloat = 1.0
        """Factor on the aggregation weight of a site without a labelled case; 0: such sites learn for themselves alone."""
        is_warm: bool = False
        """Whether the federation starts from a student trained on the repository, as a fair comparison with a distillation method
        asks for."""

    @property
    def is_warm(self) -> bool:
        return bool(self.settings.is_warm)

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        """The weighted mean; the server's own parameters where no upload counts."""
        counts = [upload.num_labelled for upload in uploads], [upload.num_unlabelled for upload in uploads]
        shares = aggregation_weights(self.settings.weighting, *counts)
        factor = self.unlabelled_factor(round_index)
        weights = [share * (1.0 if upload.num_labelled else factor) for share, upload in zip(shares, uploads, strict=True)]
        if sum(weights) <= 0:
            return select(server, "params")
        return weighted_mean((select(upload.payload, "params") for upload in uploads), weights)

    def unlabelled_factor(self, round_index: int) -> float:
        """The factor on the weight of sites without labels in a round."""
        return float(self.settings.unlabelled_site_weight)


class LabelsAtServer(FedAvg):
    """FedAvg of sites that need no label, with a server that trains on the repository's."""

    noise = "upload"
    learns_by_gradients_alone = False
    serves = True
    learns_without_labels = True
    learns_from_repository = True

    class Settings(FedAvg.Settings):
        name: Literal["labels_at_server"]  # type: ignore[assignment]
        threshold: NonNegativeFloat = 0.95
        """Probability from which on a pseudo-label is believed [tau]; above 1: nothing is learnt from it."""
        num_unlabelled: PositiveInt = 2
        """Patches of unlabelled cases beside those of cases that have a label, in every step of a site that has such cases."""
        site_labels: bool = False
        """Whether sites learn from their own labels too. The source has none at sites: their outlined cases then count as images
        alone."""
        server_steps: PositiveInt | None = None
        """Optimiser steps of the server on the repository in a round; absent: as many as a site's."""
        is_warm: bool = False
        """Whether the federation starts from a student trained on the repository."""

    @property
    def is_warm(self) -> bool:
        return bool(self.settings.is_warm)

    def problems(self) -> list[str]:
        outlined = self.scenario.repository.classes or self.scenario.classes
        missing = sorted(set(self.scenario.classes) - set(outlined))
        if not missing or self.settings.site_labels:
            return super().problems()
        name = self.settings.name
        return [
            *super().problems(),
            f"method {name} learns labels from the repository alone, which does not outline {', '.join(missing)}; "
            "set method.site_labels: true, or have repository.classes name all classes",
        ]

    def seen(self, batch: Batch) -> Batch:
        """The batch as a site learns from it: with labels, or with images alone."""
        return batch if self.settings.site_labels else replace(batch, label_BIJK=batch.label_BIJK[:0], num_labelled=0)

    def taught(self, context: LocalContext, params: Payload) -> Payload:
        """The model after the server's steps on the repository's labelled cases."""
        loss = supervised_loss(context.annotated)
        return context.fit(params, loss, num_steps=self.settings.server_steps, purpose="server-patches")[0]


class MeanTeacher:
    """A site's moving average of its own students. Its steps are counted over all rounds: with a counter that started anew with
    every round, the first step of each would throw the average away.

    Args:
        context: of the local update.
        state: the site's, with the average under `teacher/`; empty before its first update.
        start: the student's parameters, from which a new average starts.
        decay: largest share of itself that the average keeps in a step [alpha].
    """

    def __init__(self, context: LocalContext, state: Payload, start: Payload, decay: float):
        self.network = context.network(rename(state, "teacher", "params") or start)
        self._num_steps = state.get("control/num_steps", torch.tensor(0)).clone()
        self._decay = decay
        set_dropout_only_training(self.network)

    def follow(self, student: nn.Module) -> None:
        """One step towards the student."""
        follow(self.network, student, warm_keep(int(self._num_steps), self._decay))
        self._num_steps += 1

    def state(self) -> Payload:
        """What the site keeps of it."""
        return state_of(self.network, "teacher") | {"control/num_steps": self._num_steps}


def believed_note(shares: Sequence[float]) -> dict[str, float]:
    """What the `training` table tells of the share of unlabelled voxels that were believed, step by step."""
    return {"share_believed": fmean(shares)} if shares else {}
