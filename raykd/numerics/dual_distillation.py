"""The two distillation terms of a step, response and feature, on the part of a batch that a teacher has spoken about.

Shapes: B patches, L classes with background, F feature channels, I J K voxels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
    """

    response: str
    feature: str
    response_weight: float
    feature_weight: float
    temperature: float = 1.0
    max_entropy: float | None = None

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
            weight_BIJK = None if self.max_entropy is None else (batch.entropy_BIJK[taught] < self.max_entropy).float()
            loss = RESPONSE_LOSSES[self.response](logits_BLIJK[taught], soft_BLIJK, weight_BIJK, self.temperature)
            terms["response"] = self.response_weight * loss
        if self.feature != "none":
            losses = [
                FEATURE_LOSSES[self.feature](feature[taught], batch.features[layer][taught], soft_BLIJK)
                for layer, feature in features.items()
            ]
            terms["feature"] = self.feature_weight * sum(losses[1:], losses[0])
        return terms
