"""Heterogeneous federated learning by model distillation. Li and Wang, 2019. https://arxiv.org/abs/1910.03581

Every round the sites score public patches, and the server averages the scores; in the next round each site digests that consensus,
then revisits its own cases. In the source all begin with the labels of the public set; here it has none. The full scores of a
volume are more numbers than a network, so they travel at half precision and, averaged, on a coarser grid. A site that outlines some
classes only speaks of those, and one without labels listens. Where only some voxels are sent, the mean is over the sites that
spoke of a voxel, and those go back that most sites spoke of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from raykd.methods._base import LocalContext, LocalUpdate, Noise, ServerStart, Upload, supervised_loss
from raykd.methods._own_students import OwnStudents
from raykd.methods._thinning import ThinnedSettings, mean_by_class, mean_of_some, named, said_of_some
from raykd.numerics.feature_losses import match_grid
from raykd.numerics.local_sgd import Batch, LocalResult
from raykd.numerics.params import Payload, select
from raykd.numerics.thinned_labels import Kept, restored
from raykd.scenario.fields import NonNegativeInt, PositiveInt
from raykd.scenario.registry import METHODS
from raykd.scenario.schema import Scenario

ROUND = "control/round"
CONSENSUS, SAID = "consensus", "said"


@METHODS.register("fedmd")
class FedMD(OwnStudents):
    """Sites share what they say of public patches and nothing else; their students may be any networks."""

    noise: Noise = "upload"
    needs_proxy = True
    kinds = ("logits", "control")

    class Settings(ThinnedSettings):
        name: Literal["fedmd"]
        digest_epochs: NonNegativeInt = 1
        """How often a site goes through the patches of a consensus, `batch_size` at a time; 0: each site alone."""
        num_patches: PositiveInt = 8
        """Public patches of a round, new ones in each; the source takes 5,000 photographs [N_alignment]."""
        grid: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 2, 2)
        """Voxels along I, J, K whose scores are averaged into one that travels."""
        scores: Literal["logits", "probabilities"] = "logits"
        """What is averaged and digested: scores before the softmax, as in the source, or after it, where their scales differ."""

    def __init__(self, settings: Any, scenario: Scenario):
        super().__init__(settings, scenario)
        self.kept: Kept = settings.kept()
        self.is_thinned = self.kept.leaves_out or self.kept.num_classes is not None
        self.noise = "none" if self.is_thinned else "upload"

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
        """Class by class, and voxel by voxel, the plain mean over the sites that spoke of it."""
        said = [upload.payload for upload in uploads if upload.payload]
        if not said:
            return server
        size = self._grid()[-1], len(self.scenario.classes) + 1
        consensus = mean_of_some(said, *size, self._probs, self.kept) if self.is_thinned else mean_by_class(said)
        return consensus | {ROUND: torch.tensor(round_index)}

    def _digest(self, context: LocalContext, own: Payload, download: Payload) -> tuple[Payload, LocalResult]:
        """The site's model after it has learnt the consensus, by mean absolute difference."""
        if not (self.settings.digest_epochs and ROUND in download):
            return own, LocalResult(0, {})
        target_NLijk, is_said_NLijk = self._heard(select(download, "logits"), context.num_classes)
        image_NCIJK, _ = self._patches(context, int(download[ROUND]))

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            target_BLijk, is_said_BLijk = batch.features[CONSENSUS], batch.features[SAID]
            scores_BLijk = match_grid(self._scores(model, batch.image_BCIJK), target_BLijk.shape[2:])
            missed = (scores_BLijk - target_BLijk)[is_said_BLijk].abs()
            return {"digest": missed.mean() if len(missed) else missed.sum()}

        batches = list(self._batches(context, image_NCIJK, {CONSENSUS: target_NLijk, SAID: is_said_NLijk}))
        return context.fit(own, loss, num_steps=len(batches), batches=batches, purpose="digest")

    def _heard(self, said: Payload, num_classes: int) -> tuple[Tensor, Tensor]:
        """The scores of a consensus (N, L, i, j, k), and where there are any."""
        if self.is_thinned:
            scores_NLijk, is_said_NLijk = (part[..., : self._grid()[-1]] for part in restored(named(said), num_classes))
            return scores_NLijk, is_said_NLijk
        scores_Nijk = next(iter(said.values())).float()
        keys = [f"logits/{index}" for index in range(num_classes)]
        scores_NLijk = torch.stack([said.get(key, torch.zeros_like(scores_Nijk)).float() for key in keys], dim=1)
        is_said_L = torch.tensor([key in said for key in keys])
        return scores_NLijk, is_said_L[:, None, None, None].expand_as(scores_NLijk)

    def _batches(self, context: LocalContext, image_NCIJK: Tensor, maps: Mapping[str, Tensor]) -> Iterator[Batch]:
        """The patches of a consensus with its scores, in a new order every time through."""
        rng, size = context.generator("digest-order"), self.scenario.members()[context.client_id].training.batch_size
        nothing_BIJK = torch.zeros((0, *image_NCIJK.shape[2:]), dtype=torch.long)
        for _ in range(self.settings.digest_epochs):
            for chosen in torch.randperm(len(image_NCIJK), generator=rng).split(size):
                own = {name: value[chosen].to(image_NCIJK.device) for name, value in maps.items()}
                yield Batch(image_NCIJK[chosen], nothing_BIJK, 0, features=own)

    def _patches(self, context: LocalContext, round_index: int) -> tuple[Tensor, list[list[float]]]:
        """The public patches of a round, and the spacing of each on the grid that travels, in mm."""
        number = self.settings.num_patches
        drawn = context.proxy_patches(-(-number // 2), 2, round_index=round_index)
        image_NCIJK = torch.cat([batch.image_BCIJK for batch in drawn])[:number]
        steps = [edge / cells for edge, cells in zip(image_NCIJK.shape[2:], self._grid(), strict=True)]
        spacings = [mm_3 for batch in drawn if batch.spacing_mm_B3 is not None for mm_3 in batch.spacing_mm_B3.tolist()]
        return image_NCIJK, [[mm * step for mm, step in zip(mm_3, steps, strict=True)] for mm_3 in spacings[:number]]

    def _said(self, context: LocalContext, own: Payload) -> Payload:
        """By class that the site knows, its scores of the round's patches: (N, i, j, k); or those of some voxels."""
        network, (image_NCIJK, spacings) = context.network(own), self._patches(context, context.round_index)
        with torch.no_grad():
            scores = [match_grid(self._scores(network, image), self._grid()) for image in image_NCIJK.split(2)]
        scores_NLijk = torch.cat(scores).cpu()
        is_partial = context.annotated is not None and len(context.annotated) < context.num_classes - 1
        known = context.annotated if context.annotated is not None and is_partial else range(context.num_classes)
        if self.is_thinned:
            return said_of_some(scores_NLijk, self._probs(scores_NLijk), known, spacings, self.kept)
        return {f"logits/{index}": scores_NLijk[:, index].half() for index in known}

    def _grid(self) -> tuple[int, ...]:
        """Cells along i, j, k of what travels."""
        edges = zip(self.scenario.training.patch_shape, self.settings.grid, strict=True)
        return tuple(max(edge // step, 1) for edge, step in edges)

    def _scores(self, model: Any, image_BCIJK: Tensor) -> Tensor:
        logits_BLIJK: Tensor = model(image_BCIJK)
        return logits_BLIJK if self.settings.scores == "logits" else torch.softmax(logits_BLIJK, dim=1)

    def _probs(self, scores_NLijk: Tensor) -> Tensor:
        return torch.softmax(scores_NLijk, dim=1) if self.settings.scores == "logits" else scores_NLijk
