"""Semi-supervised federated learning with grouped averages. Zhang et al., 2021. https://arxiv.org/abs/2008.11364

The server has the labels; a site learns that a strongly perturbed view be what a weakly perturbed one is taken for. Sites form
groups: each averages its own sites' models and the server's, and the server goes on from the mean of the groups. The source keeps
one copy of the server's model a group, which differ by their batches alone; here one is trained and shared. Its GroupNorm is what
every network here has unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from raykd.methods._base import LocalContext, LocalUpdate, ServerStart, Upload, average
from raykd.methods._semi_supervised import LabelsAtServer, believed_note
from raykd.methods._unlabelled import supervised_term, views
from raykd.numerics.consistency import believed_share, pseudo_label_loss, pseudo_labels
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload, interpolate, select, weighted_mean
from raykd.scenario.fields import PositiveInt
from raykd.scenario.registry import METHODS
from raykd.scenario.sites import num_training


@METHODS.register("ssfl")
class SSFL(LabelsAtServer):
    """Sites learn by pseudo-labels, the server from the repository's labels; each group of sites has an average of its own."""

    class Settings(LabelsAtServer.Settings):
        name: Literal["ssfl"]  # type: ignore[assignment]
        num_groups: PositiveInt = 2
        """Groups that sites are dealt to in turn [S]; 1: one average of all sites and the server."""

    def problems(self) -> list[str]:
        num_sites, num_groups = num_training(self.scenario.members()), self.settings.num_groups
        too_many = [f"method ssfl needs a site in every group; method.num_groups must be at most {num_sites}, got {num_groups}"]
        return super().problems() + (too_many if num_groups > num_sites else [])

    def init_server(self, start: ServerStart) -> Payload:
        server = super().init_server(start)
        return server | {key: value for g in range(self.settings.num_groups) for key, value in _filed(server, g).items()}

    def init_client(self, student: Payload) -> Payload:
        return dict(student)

    def broadcast(self, server: Payload) -> Payload:
        return {}

    def download(self, server: Payload, client_id: int) -> Payload:
        return _of_group(server, self._group(client_id))

    def global_model(self, server: Payload) -> Payload:
        return select(server, "params")

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        settings, rng = self.settings, context.generator("views")
        believed: list[float] = []

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            batch = self.seen(batch)
            images, others = views(batch, rng)
            logits_BLIJK = model(images)
            terms = supervised_term(logits_BLIJK, batch, context.annotated)
            if len(others):
                with torch.no_grad():
                    pseudo = pseudo_labels(torch.softmax(model(others), dim=1), settings.threshold)
                believed.append(believed_share(pseudo))
                terms["consistency"] = pseudo_label_loss(logits_BLIJK[batch.num_labelled :], pseudo)
            return terms

        # A site that had no part before a personal round is sent nothing: it goes on from the first model.
        params, result = context.fit(download or state, loss, num_unlabelled=settings.num_unlabelled)
        return LocalUpdate({}, params, result, believed_note(believed))

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        """The mean of each group's sites; `update_server` mixes the server's model in."""
        means = {g: average(own, self.settings.weighting) for g, own in self._by_group(uploads).items() if own}
        return server | {key: value for g, mean in means.items() for key, value in _filed(mean, g).items()}

    def update_server(self, context: LocalContext, server: Payload, uploads: Sequence[Upload]) -> Payload:
        own = self.taught(context, select(server, "params"))
        groups = {
            g: interpolate(_of_group(server, g), own, 1.0 / (len(members) + 1)) for g, members in self._by_group(uploads).items()
        }
        mean = weighted_mean(list(groups.values()), [1.0] * len(groups))
        return mean | {key: value for g, model in groups.items() for key, value in _filed(model, g).items()}

    def _group(self, client_id: int) -> int:
        return client_id % self.settings.num_groups

    def _by_group(self, uploads: Sequence[Upload]) -> dict[int, list[Upload]]:
        return {g: [u for u in uploads if self._group(u.client_id) == g] for g in range(self.settings.num_groups)}


def _filed(model: Payload, group: int) -> Payload:
    """A model as the server files it for a group; a copy, because tensors that are saved together share no memory."""
    return {f"control/{group}/{key}": value.clone() for key, value in model.items()}


def _of_group(server: Payload, group: int) -> Payload:
    """The model that the server has filed for a group."""
    prefix = f"control/{group}/"
    return {key.removeprefix(prefix): value for key, value in server.items() if key.startswith(prefix)}
