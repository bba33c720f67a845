"""Federated prototype learning. Tan et al., AAAI 2022. https://arxiv.org/abs/2105.00243

A class's prototype is the mean feature of its cells over patches of the site's labelled cases, taken with the model that the update
ends with; the source collects it along its last epoch. The background of a site that outlines some classes only has none, for it
holds the others. A site predicts with its network's own head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from raykd.methods._base import LocalContext, LocalUpdate, MethodSettings, ServerStart, Upload, labelled_loss
from raykd.methods._layout import feature_channels, layout
from raykd.methods._own_students import OwnStudents
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload, select
from raykd.numerics.prototype_distance import prototype_distance_loss
from raykd.numerics.prototypes import class_means, class_sums
from raykd.numerics.sent_knowledge import comparable_labels
from raykd.scenario.fields import NonNegativeFloat, PositiveInt
from raykd.scenario.registry import METHODS

MEAN, COUNT = "prototypes/mean", "prototypes/count"


@METHODS.register("fedproto")
class FedProto(OwnStudents):
    """Sites share the mean feature of every class and nothing else; their students may differ but for that layer's channels."""

    noise = "upload"
    kinds = ("prototypes",)

    class Settings(MethodSettings):
        name: Literal["fedproto"]
        prototype_weight: NonNegativeFloat = 1.0
        """Of the squared difference of features from the received prototypes [lambda]; 0: each site alone."""
        layer: str = "decoder_1"
        """The named layer whose features are meant: `decoder_1` is the last before the head, as in the source."""
        weighting: Literal["clients", "cells"] = "clients"
        """A class's prototype is the plain mean over the clients that have one, as the source's code does, or by their cells."""
        num_patches: PositiveInt = 16
        """Labelled patches that a site's prototypes are taken from."""

    def problems(self) -> list[str]:
        found, layer, channels = super().problems(), self.settings.layer, {}
        for member in self.scenario.members():
            scenario = self.scenario.model_copy(update={"student": member.student})
            method = FedProto(self.settings, scenario)
            if layer not in (known := layout(method).layers):
                return [*found, f"layer: must be one of {', '.join(known)} in the network of {member.name}, got {layer!r}"]
            channels[member.name] = feature_channels(method, layer)
        if len(set(channels.values())) > 1:
            told = ", ".join(f"{name} {number}" for name, number in channels.items())
            found.append(f"method fedproto needs as many channels of {layer} at every site, got {told}; change widths or the layer")
        return found

    def init_server(self, start: ServerStart) -> Payload:
        return {}

    def broadcast(self, server: Payload) -> Payload:
        return dict(server)

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        weight, layer = self.settings.prototype_weight, self.settings.layer
        received = select(download, "prototypes")

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            logits_BLIJK, features = model.forward_with_features(batch.image_BCIJK, (layer,))
            terms = {"supervised": labelled_loss(logits_BLIJK, batch, context.annotated)}
            if received and weight:
                mean_CF, present_C = (value.to(batch.image_BCIJK.device) for value in (received[MEAN], received[COUNT] > 0))
                distance = prototype_distance_loss(features[layer], _known(context, batch), mean_CF, present_C)
                terms["prototype"] = weight * distance
            return terms

        params, result = context.fit(self.own_model(context, state), loss)
        has_news = result.num_steps > 0 and not context.is_personal
        return LocalUpdate(params, self._prototypes(context, params) if has_news else {}, result)

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        """A class that no client of the round holds keeps its prototype."""
        means = torch.stack([upload.payload[MEAN] for upload in uploads])
        counts = torch.stack([upload.payload[COUNT] for upload in uploads])
        shares_KC = counts if self.settings.weighting == "cells" else (counts > 0).to(counts.dtype)
        mean_CF = class_means(torch.einsum("kc,kcf->cf", shares_KC, means), shares_KC.sum(dim=0))
        count_C = counts.sum(dim=0)
        if server:
            is_new = count_C > 0
            mean_CF = torch.where(is_new[:, None], mean_CF, server[MEAN])
            count_C = torch.where(is_new, count_C, server[COUNT])
        return {MEAN: mean_CF, COUNT: count_C}

    def _prototypes(self, context: LocalContext, params: Payload) -> Payload:
        """Means and counts of the site's classes, on the CPU."""
        network, layer = context.network(params), self.settings.layer
        sums, counts = [], []
        for batch in context.patches(self.settings.num_patches, num_labelled=1, purpose="prototypes"):
            with torch.no_grad():
                _, features = network.forward_with_features(batch.image_BCIJK, (layer,))
            sums_CF, count_C = class_sums(features[layer], _known(context, batch), context.num_classes)
            sums.append(sums_CF.cpu())
            counts.append(count_C.cpu())
        count_C = torch.stack(counts).sum(dim=0)
        return {MEAN: class_means(torch.stack(sums).sum(dim=0), count_C), COUNT: count_C}


def _known(context: LocalContext, batch: Batch) -> Tensor:
    """The labels; the background of a patch in which some classes only were outlined is unknown."""
    return comparable_labels(batch.label_BIJK, None, batch.outlined(context.annotated))
