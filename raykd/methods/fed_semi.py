"""Federated semi-supervised learning. Yang et al., Medical Image Analysis 70, 2021. https://arxiv.org/abs/2011.11750

Sites with labels learn from them; from unlabelled patches every site learns that a strongly perturbed view be what a weakly
perturbed one is taken for. Perturbations and threshold are those with which He et al. (ISBI 2023) compared. No view moves a voxel,
so that volumes need no resampling.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from raykd.methods._base import LocalContext, LocalUpdate
from raykd.methods._semi_supervised import SemiSupervised, believed_note
from raykd.methods._unlabelled import supervised_term, views
from raykd.numerics.consistency import believed_share, pseudo_label_loss, pseudo_labels
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload
from raykd.scenario.fields import NonNegativeFloat
from raykd.scenario.registry import METHODS


@METHODS.register("fed_semi")
class FedSemi(SemiSupervised):
    """FedAvg whose sites learn from their unlabelled cases by pseudo-labels of a weak view for a strong one."""

    class Settings(SemiSupervised.Settings):
        name: Literal["fed_semi"]  # type: ignore[assignment]
        consistency_weight: NonNegativeFloat = 1.0
        """Weight of the cross-entropy with pseudo-labels [lambda]; 0: FedAvg, and sites without labels have nothing to learn."""
        threshold: NonNegativeFloat = 0.5
        """Probability from which on a pseudo-label is believed [tau]; above 1: none is."""

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        weight, rng = self.settings.consistency_weight, context.generator("views")
        believed: list[float] = []

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            seen, others = views(batch, rng)
            logits_BLIJK = model(seen)
            terms = supervised_term(logits_BLIJK, batch, context.annotated)
            if len(others):
                with torch.no_grad():
                    pseudo = pseudo_labels(torch.softmax(model(others), dim=1), self.settings.threshold)
                believed.append(believed_share(pseudo))
                terms["consistency"] = weight * pseudo_label_loss(logits_BLIJK[batch.num_labelled :], pseudo)
            return terms

        params, result = context.fit(download, loss, num_unlabelled=self.settings.num_unlabelled if weight else 0)
        return LocalUpdate(state, params, result, believed_note(believed))
