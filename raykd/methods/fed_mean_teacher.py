"""Federated uncertainty-aware mean teacher. Yu et al., MICCAI 2019, at every site. https://arxiv.org/abs/1907.07034

The source has one site. Here each keeps a moving average of its own students over all rounds, learns from it on unlabelled patches
where it is sure, and sends the student alone. The target is the mean of the noisy passes that tell how sure the teacher is, where
the source takes one more pass for it; the largest entropy is that of the true number of classes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from raykd.methods._base import LocalContext, LocalUpdate
from raykd.methods._semi_supervised import MeanTeacher, SemiSupervised, believed_note
from raykd.methods._unlabelled import supervised_term
from raykd.numerics.consistency import mean_response
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload
from raykd.numerics.response_losses import entropy, entropy_threshold, sigmoid_ramp, softmax_mse_loss
from raykd.scenario.fields import NonNegativeFloat, PositiveInt
from raykd.scenario.registry import METHODS


@METHODS.register("fed_mean_teacher")
class FedMeanTeacher(SemiSupervised):
    """FedAvg whose sites learn from their unlabelled cases what a moving average of their students is sure of."""

    class Settings(SemiSupervised.Settings):
        name: Literal["fed_mean_teacher"]  # type: ignore[assignment]
        consistency_weight: NonNegativeFloat = 0.1
        """Weight of the squared distance from the teacher's probabilities, reached by a sigmoid ramp over the rounds [lambda]; 0:
        FedAvg."""
        ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
        """Share of itself that the teacher keeps in a step, once it has taken enough of them [alpha]."""
        num_passes: PositiveInt = 8
        """Noisy passes of the teacher, with its dropout if it has any [T]."""
        input_noise: NonNegativeFloat = 0.1
        """Standard deviation of the noise on z-scored intensities [xi]."""

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        if not (self.settings.consistency_weight and context.num_unlabelled):
            return super().local_update(context, state, download)
        progress = sigmoid_ramp(context.round_index + 1, context.num_rounds)
        largest = entropy_threshold(progress, context.num_classes)
        teacher, rng = MeanTeacher(context, state, download, self.settings.ema_decay), context.generator("teacher-noise")
        sure: list[float] = []

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            logits_BLIJK, others = model(batch.image_BCIJK), batch.image_BCIJK[batch.num_labelled :]
            target = mean_response(teacher.network, others, self.settings.num_passes, self.settings.input_noise, rng)
            is_sure_BIJK = (entropy(target) < largest).to(target.dtype)
            sure.append(float(is_sure_BIJK.mean()))
            distance = softmax_mse_loss(logits_BLIJK[batch.num_labelled :], target, is_sure_BIJK)
            terms = supervised_term(logits_BLIJK, batch, context.annotated)
            return terms | {"consistency": self.settings.consistency_weight * progress * distance}

        params, result = context.fit(download, loss, num_unlabelled=self.settings.num_unlabelled, after_step=teacher.follow)
        return LocalUpdate(teacher.state(), params, result, believed_note(sure))
