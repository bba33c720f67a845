"""Federated few-shot learning with dual knowledge distillation. He et al., ISBI 2023. https://arxiv.org/abs/2303.14357

Every site learns from its few labels, from the teacher's response (soft labels) and from its features; the students are
averaged. The teacher is sent once and never comes back. Symbols in brackets are the paper's or its code's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from raykd.methods._base import LocalContext, LocalUpdate, Method, Upload, average
from raykd.methods._context import KnowledgeRequest
from raykd.methods._dual_kd_settings import DualKDSettings
from raykd.numerics.dual_distillation import DualDistillation, trust_in_teacher
from raykd.numerics.hint import hint_adapters
from raykd.numerics.local_sgd import Batch, Loss
from raykd.numerics.params import Payload, interpolate, rename, select
from raykd.numerics.response_losses import entropy_threshold, sigmoid_ramp
from raykd.numerics.segmentation_losses import dice_ce_loss
from raykd.scenario.registry import METHODS


@METHODS.register("dual_kd")
class DualKD(Method):
    """Students learn from few labels and from a teacher's response and features, and are averaged."""

    needs_teacher = True

    Settings = DualKDSettings

    @property
    def is_warm(self) -> bool:
        return bool(self.settings.get("start") == "warm")

    def problems(self) -> list[str]:
        found = super().problems()
        if self.scenario.repository.teacher.network != self.scenario.student.network:
            if self.settings.get("teacher") == "ema":
                found.append("teacher: ema moves the teacher towards the student, so both must be one network; choose adapted")
            if self.settings.get("feature") == "channel_kl":
                found.append("feature: channel_kl needs one network on both sides; choose hint, attention or region_affinity")
        return found

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        teacher = self._teacher(context, select(state, "teacher") or context.teacher, download)
        trust = None
        if self.settings.get("trust"):
            scores = [context.support_scores(teacher, "teacher"), context.support_scores(download, "student")]
            trust = trust_in_teacher(*scores, known=self._known(context))
        adapters = None
        if self._is_taught(context):
            passes, noise = self.settings.num_passes, self.settings.input_noise
            context.learn_from(teacher, KnowledgeRequest(passes, noise, self.settings.layers(), self._known(context)))
            adapters = self._adapters(context, download)
        loss = self._loss(context, trust, adapters)
        params, result = context.fit(download, loss, num_unlabelled=self.settings.num_unlabelled, beside=adapters)
        notes = {} if trust is None else {"share_trust": sum(trust) / len(trust)}
        return LocalUpdate({} if teacher is context.teacher else teacher, params, result, notes)

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        return average(uploads, self.settings.weighting)

    def _teacher(self, context: LocalContext, teacher: Payload, student: Payload) -> Payload:
        """The site's teacher in this round. The reference counts local epochs where its text counts rounds; rounds are meant."""
        schedule = self.settings.get("teacher")
        if schedule == "adapted" and teacher is context.teacher and context.num_labelled:
            return context.adapt(teacher, self.settings.adapt_steps)
        if schedule == "ema" and context.round_index >= self.settings.ema_start_round:
            return interpolate(teacher, rename(student, "params", "teacher"), min(context.round_index / context.num_rounds, 0.99))
        return teacher

    def _known(self, context: LocalContext) -> tuple[int, ...] | None:
        """The classes that the site's teacher was taught: the repository's, and the site's own where it was adapted to them."""
        known = context.teacher_classes
        if known is None or self.settings.get("teacher") != "adapted" or not context.num_labelled:
            return known
        return None if context.annotated is None else tuple(sorted({*known, *context.annotated}))

    def _is_taught(self, context: LocalContext) -> bool:
        """Whether the site holds a case that is distilled on."""
        num_cases = context.num_unlabelled + (0 if self.settings.labelled == "none" else context.num_labelled)
        return num_cases > 0 and (self.settings.get("response") != "none" or bool(self.settings.layers()))

    def _adapters(self, context: LocalContext, student: Payload) -> nn.ModuleDict | None:
        """For a hint, what leads from the student's channels to the teacher's, as many as a first look at a patch shows."""
        if self.settings.get("feature") != "hint":
            return None
        batch = next(context.patches(1, num_labelled=1, num_unlabelled=1))
        _, features = context.network(student).forward_with_features(batch.image_BCIJK, self.settings.layers())
        of_student, of_teacher = ({layer: maps[layer].shape[1] for layer in features} for maps in (features, batch.features))
        return hint_adapters(of_student, of_teacher, context.generator("hint-adapters"))

    def _loss(self, context: LocalContext, trust: tuple[float, ...] | None, adapters: nn.ModuleDict | None) -> Loss:
        get, layers = self.settings.get, self.settings.layers()
        progress = sigmoid_ramp(context.round_index + 1, context.num_rounds)
        known = self._known(context)
        base = {"two": 2, "classes": context.num_classes if known is None else len(known) + 1}.get(get("mask"))
        is_partly_annotated = context.annotated is not None and len(context.annotated) < context.num_classes - 1
        distillation = DualDistillation(
            response=get("response"),
            feature=get("feature"),
            response_weight=get("response_weight") * (progress if get("response_ramp") else 1.0),
            feature_weight=get("feature_weight"),
            temperature=self.settings.temperature_of_response(),
            max_entropy=None if base is None else entropy_threshold(progress, base),
            trust=trust,
            response_options=self.settings.response_options(),
            certain_share=self.settings.certain_share if get("mask") == "quantile" else None,
            emphasis=self.settings.weighs(),
            correct=self.settings.corrects(context.round_index / max(context.num_rounds - 1, 1), is_partly_annotated),
            adapters=adapters,
            known=known,
        )

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            logits_BLIJK, features = model.forward_with_features(batch.image_BCIJK, layers)
            terms = distillation(logits_BLIJK, features, batch)
            if batch.num_labelled:
                terms["supervised"] = dice_ce_loss(logits_BLIJK[: batch.num_labelled], batch.label_BIJK, context.annotated)
            return terms

        return loss
