"""Group knowledge transfer by uploaded features. He et al., NeurIPS 2020. https://arxiv.org/abs/2007.14513

LABELS LEAVE THE SITE: every round a site uploads features, logits and labels of a fixed set of its labelled patches, which no
hospital should agree to. It shows what uploading features costs. All three are sent on the grid of the feature map, features and
logits in half precision; each site keeps its own student, and no weights travel.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from raykd.methods._base import LocalContext, LocalUpdate, Method, MethodSettings, ServerStart, Upload, labelled_loss
from raykd.methods._layout import feature_channels
from raykd.models._base import SegmentationNetwork
from raykd.models._server_head import ServerHead
from raykd.numerics.feature_losses import match_grid
from raykd.numerics.local_sgd import Batch, Schedule, build_optimiser, local_sgd
from raykd.numerics.params import Payload, load_state, select, state_of
from raykd.numerics.prototypes import cell_label
from raykd.numerics.response_losses import kl_loss
from raykd.numerics.rng import generator, seeded_layers
from raykd.numerics.segmentation_losses import dice_ce_loss
from raykd.numerics.sent_knowledge import comparable_labels
from raykd.scenario.fields import NonNegativeFloat, PositiveFloat, PositiveInt
from raykd.scenario.registry import METHODS

IMAGE, LABEL = "features/image", "control/label"


@METHODS.register("fedgkt")
class FedGKT(Method):
    """Sites upload features, logits and LABELS of patches; a network at the server learns from them and returns its logits."""

    deployed, averages, has_global_model = "personal", False, False
    kinds = ("features", "logits", "control")

    class Settings(MethodSettings):
        name: Literal["fedgkt"]
        layer: str = "decoder_1"
        """Named layer whose features are uploaded."""
        num_patches: PositiveInt = 4
        """Patches of a site's fixed set, drawn in pairs in its first round."""
        alpha: NonNegativeFloat = 1.0
        """Weight of the distillation on both sides [alpha]; 0: each site alone."""
        temperature: PositiveFloat = 3.0
        """[T]"""
        server_distils: bool = True
        """Whether the server learns from the sites' logits beside the labels, as in the text; off in the published code."""
        server_width: Annotated[int, Field(ge=4, multiple_of=4)] = 32
        """Channels of the server's network, which has three blocks."""
        server_epochs: PositiveInt = 3
        """Passes over all uploads in a round."""
        server_learning_rate: PositiveFloat = 2.0e-3

        def layers(self) -> tuple[str, ...]:
            """The named layers that are needed."""
            return (self.layer,)

    def problems(self) -> list[str]:
        others = [m.name for m in self.scenario.members() if m.student.network != self.scenario.student.network]
        rule = "method fedgkt has one network at the server for the features of all sites, so all must train one student"
        return super().problems() + ([f"{rule}; drop that of {', '.join(others)}"] if others else [])

    def init_server(self, start: ServerStart) -> Payload:
        return state_of(self._server_head({}), "control")

    def broadcast(self, server: Payload) -> Payload:
        return {}

    def download(self, server: Payload, client_id: int) -> Payload:
        return {"logits/server": server[f"logits/{client_id}"]} if f"logits/{client_id}" in server else {}

    def init_client(self, student: Payload) -> Payload:
        return dict(student)

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        own, answer = self._own_patches(context, state), download.get("logits/server")
        turns = itertools.cycle(range(0, len(own.get(LABEL, ())), 2))

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            terms = {"supervised": labelled_loss(model(batch.image_BCIJK), batch, context.annotated)}
            if answer is not None and own:
                at = slice(first := next(turns), first + 2)
                said = answer[at].to(batch.image_BCIJK.device).float()
                logits = match_grid(model(own[IMAGE][at].to(said.device)), said.shape[2:])
                terms["server"] = self.settings.alpha * kl_loss(logits, said.softmax(dim=1), None, self.settings.temperature)
            return terms

        params, result = context.fit(select(state, "params"), loss)
        sent = self._features(context, context.network(params), own) if own else {}
        return LocalUpdate(params | own, sent, result)

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        head, rate = self._server_head(server), self.settings.server_learning_rate
        sent = {upload.client_id: dict(upload.payload) for upload in uploads if LABEL in upload.payload}
        optimiser = build_optimiser(head.parameters(), "adam", rate)
        local_sgd(head, self._batches(list(sent.values()), round_index), self._server_loss, optimiser, Schedule(rate))
        with torch.no_grad():
            answers = {f"logits/{client_id}": head(p["features/map"].float()).half() for client_id, p in sent.items()}
        return server | state_of(head, "control") | answers

    def personal_model(self, state: Mapping[str, Any]) -> Payload:
        return select(state, "params")

    def _own_patches(self, context: LocalContext, state: Payload) -> Payload:
        """The site's fixed set, which stays there: images, and labels whose background is unknown where classes are left out."""
        if LABEL in state:
            return {key: state[key] for key in (IMAGE, LABEL)}
        drawn = list(context.patches(-(-self.settings.num_patches // 2), purpose="fixed-patches"))
        if not drawn:
            return {}
        labels = [comparable_labels(batch.label_BIJK, None, batch.outlined(context.annotated)) for batch in drawn]
        return {IMAGE: torch.cat([batch.image_BCIJK for batch in drawn]).cpu(), LABEL: torch.cat(labels).to(torch.uint8).cpu()}

    def _features(self, context: LocalContext, network: SegmentationNetwork, own: Payload) -> Payload:
        device, layer = next(network.parameters()).device, self.settings.layer
        with torch.no_grad():
            logits, features = network.forward_with_features(own[IMAGE].to(device), (layer,))
        grid = features[layer].shape[2:]
        label = cell_label(own[LABEL].long(), context.num_classes, grid)
        maps = {"features/map": features[layer], "logits/client": match_grid(logits, grid)}
        return {key: value.half().cpu() for key, value in maps.items()} | {LABEL: label.to(torch.uint8)}

    def _server_head(self, server: Payload) -> nn.Module:
        settings, num_classes = self.settings, len(self.scenario.classes) + 1
        with seeded_layers(generator(self.scenario.seed, "fedgkt")):
            head = ServerHead(feature_channels(self, settings.layer), num_classes, settings.server_width, depth=3)
        if server:
            load_state(head, server, "control")
        return head

    def _batches(self, sent: Sequence[Payload], round_index: int) -> Iterator[Batch]:
        rng = generator(self.scenario.seed, "fedgkt-server", round_index)
        for _ in range(self.settings.server_epochs):
            for payload in (sent[index] for index in torch.randperm(len(sent), generator=rng).tolist()):
                label_BIJK, said = payload[LABEL].long(), payload["logits/client"].float().softmax(dim=1)
                yield Batch(payload["features/map"].float(), label_BIJK, len(label_BIJK), soft_label_BLIJK=said)

    def _server_loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.image_BCIJK)
        terms = {"supervised": dice_ce_loss(logits, batch.label_BIJK)}
        if self.settings.server_distils and batch.soft_label_BLIJK is not None:
            terms["client"] = self.settings.alpha * kl_loss(logits, batch.soft_label_BLIJK, None, self.settings.temperature)
        return terms
