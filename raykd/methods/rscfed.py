"""Random sampling consensus for federated semi-supervised learning. Liang et al., CVPR 2022. https://github.com/xmed-lab/rscfed

The server averages random subsets of the clients that answered, in each of which who strays from the subset's mean counts less,
and then the subsets. Distances are relative to the length of the mean, so that their scale does not depend on the network, hence
other scales than the source's 1e4 and 100. Sites with labels learn from them, sites with unlabelled cases from a teacher that is
the moving mean of their student over all rounds; a site that has both does both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from raykd.methods._base import LocalContext, LocalUpdate, Upload
from raykd.methods._layout import parameter_keys
from raykd.methods._semi_supervised import MeanTeacher
from raykd.methods._unlabelled import supervised_term, views
from raykd.methods.fedavg import FedAvg
from raykd.models._base import SegmentationNetwork
from raykd.numerics.aggregation import aggregation_weights
from raykd.numerics.local_sgd import Batch, Loss
from raykd.numerics.params import Payload, select, weighted_mean
from raykd.numerics.response_losses import softmax_mse_loss
from raykd.numerics.rng import numpy_generator
from raykd.numerics.sub_consensus import consensus_weights, random_subsets, relative_distance
from raykd.scenario.fields import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Probability
from raykd.scenario.registry import METHODS


@METHODS.register("rscfed")
class RSCFed(FedAvg):
    """FedAvg of the consensus of random subsets of clients, with a mean teacher for unlabelled cases."""

    noise = "upload"
    learns_by_gradients_alone = False

    class Settings(FedAvg.Settings):
        name: Literal["rscfed"]  # type: ignore[assignment]
        num_subsets: PositiveInt = 3
        """Subsets drawn in a round [M]."""
        subset_size: PositiveInt | None = None
        """Clients of a subset; null: half of those that answered, rounded up, as the source's 5 of 10. With all of them all subsets
        are the same."""
        distance_scale: NonNegativeFloat = 100.0
        """How much a client counts less for its relative distance from the mean, over its cases, in a subset without labels [s]."""
        labelled_distance_scale: NonNegativeFloat = 1.0
        """The same in a subset that holds a client with labels. 0 for both: no reweighting."""
        labelled_factor: PositiveFloat = 1.0
        """By how much clients with labels count more; the source takes 6 to 200 for one labelled client of ten."""
        num_unlabelled: NonNegativeInt = 2
        """Unlabelled patches in every step; 0: labels only."""
        consistency_weight: NonNegativeFloat = 0.02
        """Of the squared distance from the mean teacher's probabilities [lambda_u]."""
        ema: Probability = 0.999
        """Share of the mean teacher that a step keeps, less in the first steps [alpha]."""

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        if not (context.num_unlabelled and self.settings.num_unlabelled):
            params, result = context.fit(download, self._loss(context, None))
            return LocalUpdate(state, params, result)
        teacher = MeanTeacher(context, state, download, self.settings.ema)
        loss, num_unlabelled = self._loss(context, teacher.network), self.settings.num_unlabelled
        params, result = context.fit(download, loss, num_unlabelled=num_unlabelled, after_step=teacher.follow)
        return LocalUpdate(teacher.state(), params, result)

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        size = self.settings.subset_size or (len(uploads) + 1) // 2
        rng = numpy_generator(self.scenario.seed, "rscfed-subsets", round_index)
        subsets = random_subsets(len(uploads), size, self.settings.num_subsets, rng)
        models = [self._consensus([uploads[index] for index in subset]) for subset in subsets]
        return weighted_mean(models, [1.0] * len(models))

    def _consensus(self, uploads: Sequence[Upload]) -> Payload:
        labelled, unlabelled = [u.num_labelled for u in uploads], [u.num_unlabelled for u in uploads]
        shares = aggregation_weights(self.settings.weighting, labelled, unlabelled)
        raised = [s * (self.settings.labelled_factor if n else 1.0) for s, n in zip(shares, labelled, strict=True)]
        shares = [share / sum(raised) for share in raised]
        models = [select(upload.payload, "params") for upload in uploads]
        mean, keys = weighted_mean(models, shares), parameter_keys(self)
        distances = [relative_distance(model, mean, keys) for model in models]
        scale = self.settings.labelled_distance_scale if any(labelled) else self.settings.distance_scale
        num_cases = [a + b for a, b in zip(labelled, unlabelled, strict=True)]
        return weighted_mean(models, consensus_weights(shares, distances, num_cases, scale))

    def _loss(self, context: LocalContext, teacher: SegmentationNetwork | None) -> Loss:
        rng = context.generator("rscfed-views")

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            if teacher is None:
                return supervised_term(model(batch.image_BCIJK), batch, context.annotated)
            seen, believed = views(batch, rng)
            logits = model(seen)
            with torch.no_grad():
                soft_label = torch.softmax(teacher(believed), dim=1)
            consistency = softmax_mse_loss(logits[batch.num_labelled :], soft_label)
            term = {"consistency": self.settings.consistency_weight * consistency}
            return supervised_term(logits, batch, context.annotated) | term

        return loss
