"""Model-contrastive federated learning. Li et al., CVPR 2021. https://arxiv.org/abs/2103.16257

The representation is the bottleneck's mean over the patch, through a projection of two layers that travels with the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd.methods._base import LocalContext, LocalUpdate, ServerStart, Upload, average, labelled_loss
from raykd.methods._layout import feature_channels
from raykd.methods.fedavg import FedAvg
from raykd.models._base import SegmentationNetwork
from raykd.numerics.aggregation import aggregation_weights
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload, load_state, select, state_of, weighted_mean
from raykd.numerics.rng import generator, seeded_layers
from raykd.scenario.fields import NonNegativeFloat, PositiveFloat, PositiveInt
from raykd.scenario.registry import METHODS

LAYER = "bottleneck"


@METHODS.register("moon")
class Moon(FedAvg):
    """FedAvg whose clients' features are drawn to the received model's and away from their own last one's."""

    kinds = ("params", "control")

    class Settings(FedAvg.Settings):
        name: Literal["moon"]  # type: ignore[assignment]
        mu: NonNegativeFloat = 1.0
        """Weight of the contrastive term [mu]; 0: FedAvg."""
        temperature: PositiveFloat = 0.5
        """[tau]"""
        dimensions: PositiveInt = 64
        """Of the projected representation; the source takes 256 for networks with more channels."""

    def init_server(self, start: ServerStart) -> Payload:
        with seeded_layers(generator(self.scenario.seed, "moon-projection")):
            return super().init_server(start) | state_of(self._projection(), "control")

    def broadcast(self, server: Payload) -> Payload:
        return dict(server)

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        received = download | ({} if select(download, "control") else select(state, "control"))
        own, anchor, last = self._projection(), self._frozen(context, received), self._frozen(context, state or received)
        load_state(own, received, "control")

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            logits_BLIJK, features = model.forward_with_features(batch.image_BCIJK, (LAYER,))
            mine, near, far = own(features[LAYER]), anchor(batch.image_BCIJK), last(batch.image_BCIJK)
            return {
                "supervised": labelled_loss(logits_BLIJK, batch, context.annotated),
                "contrast": self.settings.mu * contrast(mine, near, far, self.settings.temperature),
            }

        params, result = context.fit(select(received, "params"), loss, beside=own)
        model = params | state_of(own, "control")
        return LocalUpdate(model, model, result)

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        counts = [upload.num_labelled for upload in uploads], [upload.num_unlabelled for upload in uploads]
        shares = aggregation_weights(self.settings.weighting, *counts)
        heads = (select(upload.payload, "control") for upload in uploads)
        return average(uploads, self.settings.weighting) | weighted_mean(heads, shares)

    def _projection(self) -> nn.Module:
        channels = feature_channels(self, LAYER)
        pool = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten())
        return nn.Sequential(pool, nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, self.settings.dimensions))

    def _frozen(self, context: LocalContext, model: Payload) -> Any:
        """The projected representation by a model that does not move."""
        network, head = context.network(select(model, "params")), self._projection().requires_grad_(False)
        load_state(head, model, "control")
        return lambda image_BCIJK: _projected(network, head, image_BCIJK)


def _projected(network: SegmentationNetwork, head: nn.Module, image_BCIJK: Tensor) -> Tensor:
    with torch.no_grad():
        _, features = network.forward_with_features(image_BCIJK, (LAYER,))
        projected: Tensor = head.to(image_BCIJK.device)(features[LAYER])
    return projected


def contrast(mine_BD: Tensor, near_BD: Tensor, far_BD: Tensor, temperature: float) -> Tensor:
    """-log(e^(s(z, z_near) / tau) / (e^(s(z, z_near) / tau) + e^(s(z, z_far) / tau))), s the cosine, mean over patches."""
    logits = torch.stack([F.cosine_similarity(mine_BD, near_BD), F.cosine_similarity(mine_BD, far_BD)], dim=1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))
