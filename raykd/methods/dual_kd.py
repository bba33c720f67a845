"""Federated few-shot learning with dual knowledge distillation. He et al., ISBI 2023. https://arxiv.org/abs/2303.14357

Every site learns from its few labels, from the teacher's response (soft labels) and from its features; the students are
averaged. The teacher is sent once and never comes back; `knowledge` sends kilobytes in its place. Symbols in brackets are the
paper's or its code's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from raykd.methods._base import LocalContext, LocalUpdate, Method, ServerStart, Upload, average, takes_older_updates
from raykd.methods._context import KnowledgeRequest
from raykd.methods._dual_kd_objective import adapters_of_hint, joined, loss_of
from raykd.methods._dual_kd_settings import DualKDSettings
from raykd.methods._knowledge import adapters_of, gather_features, gather_responses
from raykd.methods._layout import feature_channels
from raykd.numerics.dual_distillation import trust_in_teacher
from raykd.numerics.params import Payload, interpolate, rename, select, state_of
from raykd.scenario.registry import METHODS
from raykd.scenario.schema import Scenario


@METHODS.register("dual_kd")
class DualKD(Method):
    """Students learn from few labels and from a teacher's response and features, and are averaged."""

    noise = "sum"
    learns_without_labels = True
    needs_teacher = True

    Settings = DualKDSettings

    def __init__(self, settings: Any, scenario: Scenario):
        super().__init__(settings, scenario)
        self.needs_teacher, self.needs_proxy = settings.sends("model"), settings.sends("responses")
        self.serves = self.keeps_teacher = settings.sends("features") or settings.sends("responses")

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

    @property
    def handed_kinds(self) -> tuple[str, ...]:
        sends = self.settings.sends
        return super().handed_kinds + ("prototypes",) * sends("features") + ("logits",) * sends("responses")

    def init_server(self, start: ServerStart) -> Payload:
        return super().init_server(start) | (start.teacher if self.serves else {})

    def start_server(self, context: LocalContext, server: Payload) -> Payload:
        teacher, found = context.network(rename(server, "teacher", "params"), "teacher"), select(server, "params")
        if self.settings.sends("features"):
            found |= gather_features(context, teacher, self.settings.layers(), self.settings.knowledge_patches)
        if self.settings.sends("responses"):
            found |= gather_responses(context, teacher, self.settings.knowledge_patches, self.settings.kept())
        return found

    def hand_out(self, server: Payload) -> Payload:
        return select(server, "prototypes") | select(server, "logits")

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        teacher = self._teacher(context, select(state, "teacher") or context.teacher, download)
        trust = None
        if self.settings.get("trust"):
            known = self._known(context)
            scores = [context.support_scores(teacher, "teacher", known), context.support_scores(download, "student")]
            trust = trust_in_teacher(*scores, known=known)
        adapters, sent = None, self._sent(context, state)
        if self._is_taught(context):
            passes, noise = self.settings.num_passes, self.settings.input_noise
            context.learn_from(teacher, KnowledgeRequest(passes, noise, self.settings.taught_layers(), self._known(context)))
            adapters = adapters_of_hint(self.settings, context, download)
        loss, beside = loss_of(self.settings, context, self._known(context), trust, adapters, sent), joined(adapters, sent)
        params, result = context.fit(download, loss, num_unlabelled=self._num_unlabelled(context), beside=beside)
        notes = {} if trust is None else {"share_trust": sum(trust) / len(trust)}
        kept = {} if sent is None else state_of(sent, "control")
        return LocalUpdate(kept | ({} if teacher is context.teacher else teacher), params, result, notes)

    @takes_older_updates
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
        """Whether the site has a teacher, and holds a case that is distilled on."""
        num_cases = context.num_unlabelled + (0 if self.settings.labelled == "none" else context.num_labelled)
        is_learnt = self.settings.get("response") != "none" or bool(self.settings.taught_layers())
        return self.needs_teacher and num_cases > 0 and is_learnt

    def _num_unlabelled(self, context: LocalContext) -> int:
        """Of the site's own patches in a step: none where there is no teacher to say what they are, unless it holds no others."""
        is_idle = self.needs_proxy and not context.num_labelled
        return int(self.settings.num_unlabelled) if self.needs_teacher or is_idle else 0

    def _sent(self, context: LocalContext, state: Payload) -> nn.ModuleDict | None:
        """What leads from the student's channels to those of the statistics that were sent, where they were."""
        if not self.settings.sends("features"):
            return None
        return adapters_of(context, state, {layer: feature_channels(self, layer) for layer in self.settings.layers()})
