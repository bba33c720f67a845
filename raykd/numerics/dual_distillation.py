"""The two distillation terms of a step, response and feature, on the part of a batch that a teacher has spoken about.

Shapes: B patches, L classes with background, F feature channels, I J K voxels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raykd.numerics import feature_losses, response_losses
from raykd.numerics.local_sgd import Batch

ResponseLoss = Callable[[Tensor, Tensor, Tensor | None, float], Tensor]
"""Of logits, soft labels, weights and temperature."""
FeatureLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of the student's map, the teacher's map and the soft labels."""

RESPONSE_LOSSES: dict[str, ResponseLoss] = {
    "softmax_mse": lambda logits, soft, weight, temperature: response_losses.softmax_mse_loss(logits, soft, weight),
    "kl": response_losses.kl_loss,
    "dice_kl": lambda logits, soft, weight, temperature: (
        0.5 * response_losses.kl_loss(logits, soft, weight, temperature)
        + 0.5 * response_losses.soft_dice_loss(logits, soft, weight)
    ),
}
FEATURE_LOSSES: dict[str, FeatureLoss] = {
    "channel_kl": lambda student, teacher, region: feature_losses.channel_kl_loss(student, teacher),
    "attention": lambda student, teacher, region: feature_losses.attention_loss(student, teacher),
    "pairwise": lambda student, teacher, region: feature_losses.pairwise_loss(student, teacher),
    "region_affinity": feature_losses.region_affinity_loss,
}


@dataclass(frozen=True)
class DualDistillation:
    """The weighted terms by name, `response` and `feature`, of the unlabelled patches of a batch.

    Attributes:
        response, feature: a key of the tables above, or "none".
        response_weight, feature_weight: factors of the two terms.
        temperature: of the responses that have one.
        max_entropy: voxels with a teacher's entropy under this, in nats, are learnt from; None: all.
        trust: in the teacher, for background and each class, between 0 and 1; None: 1 for all. A voxel's weight is the mean of
            trust under its soft label, and the whole response counts by the mean of that weight; the features by the mean trust.
    """

    response: str
    feature: str
    response_weight: float
    feature_weight: float
    temperature: float = 1.0
    max_entropy: float | None = None
    trust: tuple[float, ...] | None = None

    def __call__(self, logits_BLIJK: Tensor, features: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The terms, empty where the batch holds no unlabelled patch.

        Args:
            logits_BLIJK: of the whole batch.
            features: the student's maps by layer, of the whole batch.
            batch: with the teacher's soft labels, entropy and maps.
        """
        taught = slice(batch.num_labelled, None)
        if len(logits_BLIJK) == batch.num_labelled or batch.soft_label_BLIJK is None or batch.entropy_BIJK is None:
            return {}
        soft_BLIJK = batch.soft_label_BLIJK[taught]
        terms = {}
        if self.response != "none":
            weight_BIJK, share = self._weight(soft_BLIJK, batch.entropy_BIJK[taught])
            loss = RESPONSE_LOSSES[self.response](logits_BLIJK[taught], soft_BLIJK, weight_BIJK, self.temperature)
            terms["response"] = self.response_weight * share * loss
        if self.feature != "none":
            losses = [
                FEATURE_LOSSES[self.feature](feature[taught], batch.features[layer][taught], soft_BLIJK)
                for layer, feature in features.items()
            ]
            share = 1.0 if self.trust is None else sum(self.trust) / len(self.trust)
            terms["feature"] = self.feature_weight * share * sum(losses[1:], losses[0])
        return terms

    def _weight(self, soft_BLIJK: Tensor, entropy_BIJK: Tensor) -> tuple[Tensor | None, Tensor | float]:
        """The weight of every voxel, and the mean trust in those that are learnt from."""
        mask_BIJK = None if self.max_entropy is None else (entropy_BIJK < self.max_entropy).float()
        if self.trust is None:
            return mask_BIJK, 1.0
        trust_BIJK = torch.einsum("blijk,l->bijk", soft_BLIJK, soft_BLIJK.new_tensor(self.trust))
        if mask_BIJK is None:
            return trust_BIJK, trust_BIJK.mean()
        return mask_BIJK * trust_BIJK, (mask_BIJK * trust_BIJK).sum() / mask_BIJK.sum().clamp(min=1.0)


def trust_in_teacher(
    teacher: Sequence[tuple[float, int]],
    student: Sequence[tuple[float, int]],
    *,
    prior: float = 1.0,
    margin: float = 0.02,
    width: float = 0.1,
) -> tuple[float, ...]:
    """Trust for background, which has the mean of the others, and every class: clip((t - s + margin) / width, 0, 1).

    t and s are the DSCs of teacher and student on a site's few labels, shrunk to (sum + prior / 2) / (number + prior): distillation
    of a class lets go where the student has caught up, and where the teacher is wrong.

    Args:
        teacher, student: by class, the sum of DSCs over the labelled cases that hold it, and their number.
        prior: pseudo-count, > 0; without any label both are 1/2 and trust is margin / width.
        margin: lead that the teacher is granted.
        width: lead at which trust is full.
    """
    leads = [(t - s) / (number + prior) for (t, number), (s, _) in zip(teacher, student, strict=True)]
    trust = [min(max((lead + margin) / width, 0.0), 1.0) for lead in leads]
    return (sum(trust) / len(trust), *trust)
