"""Federated generalisation-aware semi-supervised learning (FGASL). Deng et al., Medical Image Analysis, 2025. https://arxiv.org/abs/2501.07378

The server gives more weight to clients whose data pulled their models further from the received one. A site learns from its
unlabelled cases what the received model and the moving mean of its own say together, where they are certain: as certain as the
model is on a share of the site's labelled voxels. A site without labels takes that share of its unlabelled voxels. Features before
the head must not change when channels of the encoder drop out; here what deeper levels see drops out with them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.methods._base import LocalContext, LocalUpdate, Method, MethodSettings, ServerStart, Upload
from raykd.methods._layout import layout
from raykd.methods._unlabelled import supervised_term, views
from raykd.models._base import TappedNetwork
from raykd.numerics.adaptive_weights import refined_weights
from raykd.numerics.channel_dropout import dropping_channels
from raykd.numerics.local_sgd import Batch, Loss
from raykd.numerics.mean_teacher import follow
from raykd.numerics.params import Payload, select, weighted_mean
from raykd.numerics.pseudo_labels import certain_labels, entropy_limit
from raykd.numerics.response_losses import entropy, kl_loss
from raykd.numerics.segmentation_losses import dice_ce_loss
from raykd.scenario.fields import NonNegativeFloat, NonNegativeInt, PositiveInt, Probability
from raykd.scenario.registry import METHODS

WEIGHTS, DIVERGENCE, THRESHOLD = "control/weights", "control/divergence", "control/threshold"
LAYER = "decoder_1"


@METHODS.register("fed_semi_dg")
class FedSemiDG(Method):
    """Adaptive weights at the server; at the sites two teachers and features that bear perturbation."""

    kinds = ("params", "control")

    class Settings(MethodSettings):
        name: Literal["fed_semi_dg"]
        weight_step: NonNegativeFloat = 0.05 / 3
        """Of the clients' weights in a round, falling linearly to zero over the federation [d]; 0: equal weights throughout."""
        num_measured: PositiveInt = 4
        """Batches of patches on which a site measures how far its model went from the received one."""
        num_unlabelled: NonNegativeInt = 2
        """Unlabelled patches in every step; 0: labels only."""
        pseudo_weight: NonNegativeFloat = 1.0
        """Of the loss on pseudo-labelled voxels."""
        ema: Probability = 0.99
        """Share of the moving teacher that a step keeps; it starts anew from the received model in every round."""
        quantile: tuple[Probability, Probability] = (0.15, 0.3)
        """Share of labelled voxels whose entropy passes for certain, in the first and in the last step [q]."""
        threshold_ema: Probability = 0.9
        """Share of the entropy's threshold that a step keeps; it starts at 0 and goes on over rounds."""
        feature_weight: NonNegativeFloat = 0.3
        """Of the mean squared difference that channel dropout makes to the features before the head; 0: none."""
        feature_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
        """Probability that a channel of the encoder drops out."""

    def problems(self) -> list[str]:
        found = super().problems()
        if self.settings.feature_weight and not isinstance(network := layout(self), TappedNetwork):
            name = network.settings.name
            found.append(f"feature_weight needs a network whose encoder is known, which {name} is not; set method.feature_weight=0")
        return found

    def init_server(self, start: ServerStart) -> Payload:
        num_clients = len(self.scenario.members())
        return super().init_server(start) | {WEIGHTS: torch.full((num_clients,), 1.0 / num_clients, dtype=torch.float64)}

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        threshold = state.get(THRESHOLD, torch.zeros(1)).clone()
        num_unlabelled = self.settings.num_unlabelled if context.num_unlabelled else 0
        moving = context.network(download)
        params, result = context.fit(
            download,
            self._loss(context, download, moving, threshold),
            num_unlabelled=num_unlabelled,
            after_step=lambda model: follow(moving, model, self.settings.ema),
        )
        if context.is_personal:
            return LocalUpdate({THRESHOLD: threshold}, params, result)
        divergence = self._divergence(context, params, download)
        return LocalUpdate({THRESHOLD: threshold}, params | {DIVERGENCE: torch.tensor([divergence])}, result)

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        """The source's first round still averages with equal weights, while it already refines them."""
        clients = [upload.client_id for upload in uploads]
        step = self.settings.weight_step * (1.0 - round_index / self.scenario.federation.rounds)
        weights, divergence = server[WEIGHTS].clone(), torch.cat([upload.payload[DIVERGENCE] for upload in uploads]).double()
        used = weights[clients]
        weights[clients] = refined_weights(used, divergence, step)
        used = weights[clients] if round_index else used
        shares = used.tolist() if float(used.sum()) > 0 else [1.0] * len(uploads)
        return weighted_mean((select(upload.payload, "params") for upload in uploads), shares) | {WEIGHTS: weights}

    def _loss(self, context: LocalContext, download: Payload, moving: nn.Module, threshold: Tensor) -> Loss:
        """Moves `threshold` in place in every step."""
        settings, fixed = self.settings, context.network(download)
        rng, dropout = context.generator("fed-semi-dg-views"), context.generator("fed-semi-dg-dropout")
        steps = itertools.count(context.round_index * context.num_steps)

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            progress = min(next(steps) / max(context.num_rounds * context.num_steps - 1, 1), 1.0)
            seen, believed = views(batch, rng)
            logits, features = model.forward_with_features(seen, (LAYER,))
            terms = supervised_term(logits, batch, context.annotated)
            if len(believed):
                with torch.no_grad():
                    one, other = (torch.softmax(network(believed), dim=1) for network in (fixed, moving))
                    judged = torch.softmax(logits[: batch.num_labelled], dim=1) if batch.num_labelled else (one + other) / 2
                    low, high = settings.quantile
                    limit = entropy_limit(entropy(judged), low + (high - low) * progress)
                    threshold.mul_(settings.threshold_ema).add_(limit, alpha=1.0 - settings.threshold_ema)
                    label = certain_labels(one, other, float(threshold))
                terms["pseudo"] = settings.pseudo_weight * dice_ce_loss(logits[batch.num_labelled :], label)
            if settings.feature_weight:
                with dropping_channels(_encoder(model), settings.feature_dropout, dropout):
                    _, perturbed = model.forward_with_features(seen, (LAYER,))
                terms["feature"] = settings.feature_weight * F.mse_loss(features[LAYER], perturbed[LAYER])
            return terms

        return loss

    def _divergence(self, context: LocalContext, params: Payload, download: Payload) -> float:
        """Mean over patches of the site's cases of KL(received || own) of both models' probabilities [g_k]."""
        own, received, found = context.network(params), context.network(download), []
        with torch.no_grad():
            for batch in context.patches(self.settings.num_measured, num_labelled=1, num_unlabelled=1):
                said = torch.softmax(received(batch.image_BCIJK), dim=1)
                found.append(float(kl_loss(own(batch.image_BCIJK), said)))
        return sum(found) / max(len(found), 1)


def _encoder(network: TappedNetwork) -> list[nn.Module]:
    return [part for name, part in network.parts.items() if not name.startswith("decoder")]
