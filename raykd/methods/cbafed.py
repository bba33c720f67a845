"""Class-balanced adaptive pseudo-labels. Li et al., CVPR 2023. https://github.com/minglllli/CBAFed

The received model gives pseudo-labels, which stay the same for the whole round; the surer it must be, the more frequent the class
is among all sites' labels and pseudo-labels. Frequencies are of foreground voxels, because the background's would leave all other
classes nothing. Labelled and pseudo-labelled patches are those that a site trains on, so the frequencies are of these, too. Until
the first frequencies are known nothing is pseudo-labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from raykd.methods._base import LocalContext, LocalUpdate, ServerStart, Upload, average
from raykd.methods._unlabelled import supervised_term
from raykd.methods.fedavg import FedAvg
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload, interpolate, rename, select
from raykd.numerics.pseudo_labels import class_balanced_labels, class_thresholds, rare_classes
from raykd.numerics.segmentation_losses import UNKNOWN, dice_ce_loss
from raykd.numerics.sent_knowledge import comparable_labels
from raykd.scenario.fields import NonNegativeFloat, NonNegativeInt, Probability
from raykd.scenario.registry import METHODS

COUNTS, ANCHOR = "control/counts", "control/anchor"


@METHODS.register("cbafed")
class CBAFed(FedAvg):
    """FedAvg whose clients also learn from pseudo-labels that pass thresholds of their classes."""

    noise = "none"
    learns_by_gradients_alone = False
    kinds = ("params", "control")

    class Settings(FedAvg.Settings):
        name: Literal["cbafed"]  # type: ignore[assignment]
        num_unlabelled: NonNegativeInt = 2
        """Unlabelled patches in every step; 0: labels only."""
        pseudo_weight: NonNegativeFloat = 1.0
        """Of the loss on pseudo-labelled voxels."""
        base: Probability = 0.84
        """Of the thresholds: pi_c + base - std(pi), pi the classes' frequencies [T_base]."""
        cap: Probability = 0.95
        """Largest threshold, and that of the background [T_upper]."""
        rare: NonNegativeFloat = 0.03
        """Frequency below which a class is also accepted as the second most probable [T_lower]; 0: never. Frequencies are brought
        to the source's ten classes: times the number of foreground classes, over ten."""
        residual_every: NonNegativeInt = 5
        """Rounds from one mean of the model with that of the last time to the next; 0: never."""

    def init_server(self, start: ServerStart) -> Payload:
        counts = torch.zeros(len(self.scenario.classes) + 1, dtype=torch.float64)
        return super().init_server(start) | rename(start.student, "params", ANCHOR) | {COUNTS: counts}

    def broadcast(self, server: Payload) -> Payload:
        return select(server, "params") | {COUNTS: server[COUNTS]}

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        received = download.get(COUNTS, state.get(COUNTS))  # a personal round brings none: the last ones hold
        is_known = received is not None and float(received[1:].sum()) > 0
        num_unlabelled = self.settings.num_unlabelled if is_known and context.num_unlabelled else 0
        counts = torch.zeros(context.num_classes, dtype=torch.float64)
        params = select(download, "params")
        network = context.network(params)

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            logits, terms = model(batch.image_BCIJK), {}
            labelled, others = logits[: batch.num_labelled], logits[batch.num_labelled :]
            if batch.num_labelled:
                known = comparable_labels(batch.label_BIJK, None, batch.outlined(context.annotated))
                counts.add_(_count(known, context.num_classes))
            if len(others):
                label = self._pseudo_labels(network, batch.image_BCIJK[batch.num_labelled :], received)
                counts.add_(_count(label, context.num_classes))
                terms = {"pseudo": self.settings.pseudo_weight * dice_ce_loss(others, label)}
            return supervised_term(labelled, batch, context.annotated) | terms

        params, result = context.fit(params, loss, num_unlabelled=num_unlabelled)
        kept = {} if received is None else {COUNTS: received}
        return LocalUpdate(kept, params | {COUNTS: counts}, result)

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        model, anchor = average(uploads, self.settings.weighting), rename(server, ANCHOR, "params")
        every = self.settings.residual_every
        if every and round_index and round_index % every == 0:
            model = anchor = interpolate(anchor, model, 0.5)
        counts = torch.stack([upload.payload[COUNTS] for upload in uploads]).sum(dim=0)
        counts = counts if float(counts[1:].sum()) > 0 else server[COUNTS]
        return model | rename(anchor, "params", ANCHOR) | {COUNTS: counts}

    def _pseudo_labels(self, network: Any, image_BCIJK: Tensor, count_L: Tensor | None) -> Tensor:
        assert count_L is not None  # nothing unlabelled is drawn otherwise
        threshold_L = class_thresholds(count_L, self.settings.base, self.settings.cap).to(image_BCIJK.device)
        rare_L = rare_classes(count_L, self.settings.rare).to(image_BCIJK.device)
        with torch.no_grad():
            return class_balanced_labels(torch.softmax(network(image_BCIJK), dim=1), threshold_L, rare_L)


def _count(label_BIJK: Tensor, num_classes: int) -> Tensor:
    known = label_BIJK[label_BIJK != UNKNOWN]
    return torch.bincount(known, minlength=num_classes).to("cpu", torch.float64)
