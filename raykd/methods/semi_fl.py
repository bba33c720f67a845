"""Semi-supervised federated learning by alternate training. Diao et al., NeurIPS 2022. https://arxiv.org/abs/2106.01432

In turn, the server trains the average on its labels, and the sites train on what the model that they received says of their
patches; that model does not move during a round, so that its answers are those of the round's start. An image is mixed with another
of the same step; a voxel counts where its own answer is believed. In place of the source's static batch normalisation stands
GroupNorm, which every network here has unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from raykd.methods._base import LocalContext, LocalUpdate, Upload
from raykd.methods._semi_supervised import LabelsAtServer, believed_note
from raykd.methods._unlabelled import supervised_term, views
from raykd.methods.fedavgm import FedAvgM
from raykd.numerics.consistency import believed_share, mix_share, mixed_label_loss, pseudo_label_loss, pseudo_labels
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload, select
from raykd.numerics.perturbation import weak
from raykd.scenario.fields import NonNegativeFloat, PositiveFloat
from raykd.scenario.registry import METHODS


@METHODS.register("semi_fl")
class SemiFL(LabelsAtServer, FedAvgM):
    """The server trains on the repository's labels, then sites on pseudo-labels of the model that it sent them, and so on."""

    noise = "upload"
    learns_by_gradients_alone = False

    class Settings(LabelsAtServer.Settings):
        name: Literal["semi_fl"]  # type: ignore[assignment]
        mix_weight: NonNegativeFloat = 1.0
        """Weight of the cross-entropy of mixed images with both their pseudo-labels."""
        mix_alpha: PositiveFloat = 0.75
        """Of the Beta distribution from which the share of the first image is drawn [a]."""
        server_learning_rate: PositiveFloat = 1.0
        """Of the server's step towards the average."""
        momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
        """That the server keeps of its last steps [beta_g]."""

    def start_server(self, context: LocalContext, server: Payload) -> Payload:
        return server | self.taught(context, select(server, "params"))

    def update_server(self, context: LocalContext, server: Payload, uploads: Sequence[Upload]) -> Payload:
        return server | self.taught(context, select(server, "params"))

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        settings, received = self.settings, context.network(download)
        rng, mixing = context.generator("views"), context.generator("mix")
        believed: list[float] = []

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            batch = self.seen(batch)
            others = batch.image_BCIJK[batch.num_labelled :]
            logits_BLIJK = model(views(batch, rng)[0])
            terms = supervised_term(logits_BLIJK, batch, context.annotated)
            if len(others):
                with torch.no_grad():
                    probs = torch.softmax(received(others), dim=1)
                pseudo = pseudo_labels(probs, settings.threshold)
                believed.append(believed_share(pseudo))
                terms["consistency"] = pseudo_label_loss(logits_BLIJK[batch.num_labelled :], pseudo)
                if settings.mix_weight:
                    share = mix_share(settings.mix_alpha, mixing)
                    mixed = weak(share * others + (1.0 - share) * others.roll(1, dims=0), rng)
                    partner = pseudo_labels(probs, 0.0).roll(1, dims=0)
                    terms["mix"] = settings.mix_weight * mixed_label_loss(model(mixed), pseudo, partner, share)
            return terms

        params, result = context.fit(download, loss, num_unlabelled=settings.num_unlabelled)
        return LocalUpdate(state, params, result, believed_note(believed))
