"""The two distillation terms of a step, response and feature, on the part of a batch that is to be learnt from a teacher.

Shapes: B patches, L classes with background, F feature channels, I J K voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from raykd.numerics import feature_losses, hint, relation_losses, response_losses
from raykd.numerics.boundary import Emphasis
from raykd.numerics.known_classes import merge_probs
from raykd.numerics.local_sgd import Batch
from raykd.numerics.segmentation_losses import marginal_logits

ResponseLoss = Callable[..., Tensor]
"""Of logits, soft labels, weights and temperature, and by name what only this loss has."""
FeatureLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of the student's map, the teacher's map and the soft labels."""

RESPONSE_LOSSES: dict[str, ResponseLoss] = {
    "softmax_mse": lambda logits, soft, weight, temperature, normaliser=None: response_losses.softmax_mse_loss(
        logits, soft, weight, normaliser
    ),
    "kl": response_losses.kl_loss,
    "dice_kl": lambda logits, soft, weight, temperature: (
        0.5 * response_losses.kl_loss(logits, soft, weight, temperature)
        + 0.5 * response_losses.soft_dice_loss(logits, soft, weight)
    ),
    "dkd": response_losses.decoupled_loss,
    "channel_wise": response_losses.channel_wise_loss,
}
FEATURE_LOSSES: dict[str, FeatureLoss] = {
    "channel_kl": lambda student, teacher, region: feature_losses.channel_kl_loss(student, teacher),
    "attention": lambda student, teacher, region: feature_losses.attention_loss(student, teacher),
    "pairwise": lambda student, teacher, region: feature_losses.pairwise_loss(student, teacher),
    "region_affinity": feature_losses.region_affinity_loss,
    "intra_class": relation_losses.intra_class_loss,
    "cka": lambda student, teacher, region: relation_losses.cka_loss(student, teacher),
    "cka_debiased": lambda student, teacher, region: relation_losses.cka_loss(student, teacher, debiased=True),
    "hint": lambda student, teacher, region: hint.hint_loss(student, teacher),
}
PUBLISHED_TEMPERATURES = {"dkd": 4.0, "channel_wise": 4.0}
"""Of the responses that their papers do not take at 1."""


@dataclass(frozen=True)
class DualDistillation:
    """The weighted terms by name, `response` and `feature`, of the unlabelled patches of a batch, and of the labelled on request.

    Attributes:
        response, feature: a key of the tables above, or "none".
        response_weight, feature_weight: factors of the two terms.
        temperature: of the responses that have one.
        max_entropy: voxels with a teacher's entropy under this, in nats, are learnt from; None: all.
        trust: in the teacher, for background and each class, between 0 and 1; None: 1 for all. A voxel's weight is the mean of
            trust under its soft label, and the whole response counts by the mean of that weight; the features by the mean trust.
        response_options: further arguments of the response by name.
        certain_share: share of the voxels, those of lowest entropy, that is learnt from; None: all.
        emphasis: weight of voxels by place and class.
        correct: makes the target of a labelled patch from the teacher's soft label and the label; None: labelled patches are not
            distilled on.
        adapters: by layer, what the student's map goes through first.
        known: the foreground classes that the teacher was taught; None: all. To such a teacher background means "none of these", so
            the student is compared on the probability that it gives to that, to background and all other classes.
    """

    response: str
    feature: str
    response_weight: float
    feature_weight: float
    temperature: float = 1.0
    max_entropy: float | None = None
    trust: tuple[float, ...] | None = None
    response_options: Mapping[str, float] = field(default_factory=dict)
    certain_share: float | None = None
    emphasis: Emphasis | None = None
    correct: Callable[[Tensor, Tensor], Tensor] | None = None
    adapters: nn.ModuleDict | None = None
    known: tuple[int, ...] | None = None

    def __call__(self, logits_BLIJK: Tensor, features: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The terms, empty where the batch holds no patch to distil on.

        Args:
            logits_BLIJK: of the whole batch.
            features: the student's maps by layer, of the whole batch.
            batch: with the teacher's soft labels, entropy and maps; nothing is learnt of a voxel whose entropy is infinite.
        """
        taught = slice(batch.num_labelled if self.correct is None else 0, None)
        if batch.soft_label_BLIJK is None or batch.entropy_BIJK is None or not len(logits_BLIJK[taught]):
            return {}
        soft_BLIJK = batch.soft_label_BLIJK[taught]
        if self.correct is not None and batch.num_labelled:
            soft_BLIJK = torch.cat(
                [self.correct(soft_BLIJK[: batch.num_labelled], batch.label_BIJK), soft_BLIJK[batch.num_labelled :]]
            )
        soft_BLIJK = merge_probs(soft_BLIJK, self.known)
        terms = {}
        if self.response != "none":
            spacing_mm_B3 = None if batch.spacing_mm_B3 is None else batch.spacing_mm_B3[taught]
            terms["response"] = self._response(logits_BLIJK[taught], soft_BLIJK, batch.entropy_BIJK[taught], spacing_mm_B3)
        if self.feature != "none":
            maps = [(layer, feature[taught], batch.features[layer][taught]) for layer, feature in features.items()]
            terms["feature"] = self._feature(maps, soft_BLIJK)
        return terms

    def _response(self, logits_BLIJK: Tensor, soft_BLIJK: Tensor, entropy_BIJK: Tensor, spacing_mm_B3: Tensor | None) -> Tensor:
        weight_BIJK, share = self._weight(soft_BLIJK, entropy_BIJK)
        if self.emphasis is not None:
            emphasis_BIJK = self.emphasis(soft_BLIJK, spacing_mm_B3)
            weight_BIJK = emphasis_BIJK if weight_BIJK is None else weight_BIJK * emphasis_BIJK
        if self.known is not None:
            logits_BLIJK, soft_BLIJK = marginal_logits(logits_BLIJK, self.known), soft_BLIJK[:, [0, *self.known]]
        loss = RESPONSE_LOSSES[self.response]
        return self.response_weight * share * loss(logits_BLIJK, soft_BLIJK, weight_BIJK, self.temperature, **self.response_options)

    def _feature(self, maps: Sequence[tuple[str, Tensor, Tensor]], soft_BLIJK: Tensor) -> Tensor:
        """Of layers, the student's maps and the teacher's."""
        losses = []
        for layer, student, teacher in maps:
            adapted = student if self.adapters is None else self.adapters[layer](student)
            losses.append(FEATURE_LOSSES[self.feature](adapted, teacher, soft_BLIJK))
        share = 1.0 if self.trust is None else sum(self.trust) / len(self.trust)
        return self.feature_weight * share * sum(losses[1:], losses[0])

    def _weight(self, soft_BLIJK: Tensor, entropy_BIJK: Tensor) -> tuple[Tensor | None, Tensor | float]:
        """The weight of every voxel, and the mean trust in those that are learnt from."""
        limit = math.inf if self.max_entropy is None else self.max_entropy
        is_sure_BIJK = entropy_BIJK < limit
        mask_BIJK = None if self.max_entropy is None and bool(is_sure_BIJK.all()) else is_sure_BIJK.float()
        if self.certain_share is not None:
            certain_BIJK = response_losses.most_certain(entropy_BIJK, self.certain_share)
            mask_BIJK = certain_BIJK if mask_BIJK is None else mask_BIJK * certain_BIJK
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
    known: Collection[int] | None = None,
) -> tuple[float, ...]:
    """Trust for background, which has the mean of the others, and every class: clip((t - s + margin) / width, 0, 1).

    t and s are the DSCs of teacher and student on a site's few labels, shrunk to (sum + prior / 2) / (number + prior): distillation
    of a class lets go where the student has caught up, and where the teacher is wrong.

    Args:
        teacher, student: by class, the sum of DSCs over the labelled cases that hold it, and their number.
        prior: pseudo-count, > 0; without any label both are 1/2 and trust is margin / width.
        margin: lead that the teacher is granted.
        width: lead at which trust is full.
        known: the foreground classes that the teacher was taught; None: all. The others have the mean of these, as the background,
            which they are to the teacher.
    """
    leads = [(t - s) / (number + prior) for (t, number), (s, _) in zip(teacher, student, strict=True)]
    trust = [min(max((lead + margin) / width, 0.0), 1.0) for lead in leads]
    taught = [value for index, value in enumerate(trust, start=1) if known is None or index in known]
    background = sum(taught) / max(len(taught), 1)
    return (background, *(value if known is None or index in known else background for index, value in enumerate(trust, start=1)))
