"""Heterogeneous federated learning by model distillation. Li and Wang, 2019. https://arxiv.org/abs/1910.03581

Every round the sites score public patches, and the server averages the scores; in the next round each site digests that consensus,
then revisits its own cases. In the source all begin with the labels of the public set; here it has none. The full scores of a
volume are more numbers than a network, so they travel at half precision and, averaged, on a coarser grid. A site that outlines some
classes only speaks of those, and one without labels listens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from raykd.methods._base import LocalContext, LocalUpdate, MethodSettings, ServerStart, Upload, supervised_loss
from raykd.methods._own_students import OwnStudents
from raykd.numerics.feature_losses import match_grid
from raykd.numerics.local_sgd import Batch, LocalResult
from raykd.numerics.params import Payload, select, weighted_mean
from raykd.scenario.fields import NonNegativeInt, PositiveInt
from raykd.scenario.registry import METHODS

ROUND = "control/round"
CONSENSUS = "consensus"


@METHODS.register("fedmd")
class FedMD(OwnStudents):
    """Sites share what they say of public patches and nothing else; their students may be any networks."""

    noise = "upload"
    needs_proxy = True
    kinds = ("logits", "control")

    class Settings(MethodSettings):
        name: Literal["fedmd"]
        digest_epochs: NonNegativeInt = 1
        """How often a site goes through the patches of a consensus, `batch_size` at a time; 0: each site alone."""
        num_patches: PositiveInt = 8
        """Public patches of a round, new ones in each; the source takes 5,000 photographs [N_alignment]."""
        grid: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 2, 2)
        """Voxels along I, J, K whose scores are averaged into one that travels."""
        scores: Literal["logits", "probabilities"] = "logits"
        """What is averaged and digested: scores before the softmax, as in the source, or after it, where their scales differ."""

    def init_server(self, start: ServerStart) -> Payload:
        return {}

    def broadcast(self, server: Payload) -> Payload:
        return dict(server)

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        digested, first = self._digest(context, self.own_model(context, state), download)
        own, second = context.fit(digested, supervised_loss(context.annotated))
        result = LocalResult(first.num_steps + second.num_steps, first.terms | second.terms)
        speaks = context.num_labelled > 0 and not context.is_personal
        return LocalUpdate(own, self._said(context, own) if speaks else {}, result)

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        """Class by class the plain mean over the sites that spoke of it."""
        said = [upload.payload for upload in uploads]
        consensus: Payload = {}
        for key in sorted({key for payload in said for key in payload}):
            heard = [{key: payload[key]} for payload in said if key in payload]
            consensus |= weighted_mean(heard, [1.0] * len(heard))
        return consensus | {ROUND: torch.tensor(round_index)} if consensus else server

    def _digest(self, context: LocalContext, own: Payload, download: Payload) -> tuple[Payload, LocalResult]:
        """The site's model after it has learnt the consensus, by mean absolute difference."""
        if not (self.settings.digest_epochs and ROUND in download):
            return own, LocalResult(0, {})
        said = select(download, "logits")
        classes = sorted(int(key.removeprefix("logits/")) for key in said)
        target_NLijk = torch.stack([said[f"logits/{index}"] for index in classes], dim=1).float()
        image_NCIJK = self._patches(context, int(download[ROUND]))

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            target_BLijk = batch.features[CONSENSUS]
            scores_BLijk = match_grid(self._scores(model, batch.image_BCIJK), target_BLijk.shape[2:])[:, classes]
            return {"digest": (scores_BLijk - target_BLijk).abs().mean()}

        batches = list(self._batches(context, image_NCIJK, target_NLijk))
        return context.fit(own, loss, num_steps=len(batches), batches=batches, purpose="digest")

    def _batches(self, context: LocalContext, image_NCIJK: Tensor, target_NLijk: Tensor) -> Iterator[Batch]:
        """The patches of a consensus with its scores, in a new order every time through."""
        rng, size = context.generator("digest-order"), self.scenario.members()[context.client_id].training.batch_size
        nothing_BIJK = torch.zeros((0, *image_NCIJK.shape[2:]), dtype=torch.long)
        for _ in range(self.settings.digest_epochs):
            for chosen in torch.randperm(len(image_NCIJK), generator=rng).split(size):
                yield Batch(image_NCIJK[chosen], nothing_BIJK, 0, features={CONSENSUS: target_NLijk[chosen]})

    def _patches(self, context: LocalContext, round_index: int) -> Tensor:
        """The public patches of a round."""
        number = self.settings.num_patches
        drawn = context.proxy_patches(-(-number // 2), 2, round_index=round_index)
        return torch.cat([batch.image_BCIJK for batch in drawn])[:number]

    def _said(self, context: LocalContext, own: Payload) -> Payload:
        """By class that the site knows, its scores of the round's patches: (N, i, j, k)."""
        network, image_NCIJK = context.network(own), self._patches(context, context.round_index)
        shape = [max(edge // step, 1) for edge, step in zip(image_NCIJK.shape[2:], self.settings.grid, strict=True)]
        with torch.no_grad():
            scores_NLijk = torch.cat([match_grid(self._scores(network, image), shape) for image in image_NCIJK.split(2)])
        is_partial = context.annotated is not None and len(context.annotated) < context.num_classes - 1
        known = context.annotated if context.annotated is not None and is_partial else range(context.num_classes)
        return {f"logits/{index}": scores_NLijk[:, index].half().cpu() for index in known}

    def _scores(self, model: Any, image_BCIJK: Tensor) -> Tensor:
        logits_BLIJK: Tensor = model(image_BCIJK)
        return logits_BLIJK if self.settings.scores == "logits" else torch.softmax(logits_BLIJK, dim=1)
