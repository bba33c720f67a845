"""Federated few-shot learning with dual knowledge distillation. He et al., ISBI 2023. https://arxiv.org/abs/2303.14357

Every site learns from its few labels, from the teacher's response (soft labels) and from its features; the students are
averaged. The teacher is sent once and never comes back. Symbols in brackets are the paper's or its code's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from raykd.methods._base import KnowledgeRequest, LocalContext, LocalUpdate, Method, MethodSettings, Upload, average
from raykd.methods.fedavg import same_network_problems
from raykd.numerics.aggregation import Weighting
from raykd.numerics.dual_distillation import DualDistillation, trust_in_teacher
from raykd.numerics.local_sgd import Batch, Loss
from raykd.numerics.params import Payload, interpolate, rename, select
from raykd.numerics.response_losses import entropy_threshold, sigmoid_ramp
from raykd.numerics.segmentation_losses import dice_ce_loss
from raykd.scenario.fields import NonNegativeFloat, NonNegativeInt, PositiveFloat
from raykd.scenario.registry import METHODS

NAMES = "start response response_weight response_ramp mask feature feature_weight feature_layers teacher trust".split()  # noqa: SIM905
PAPER = ("cold", "softmax_mse", 0.1, True, "classes", "channel_kl", 1.0, ("bottleneck",), "ema", False)
ADVISED = ("warm", "kl", 1.0, False, "classes", "region_affinity", 0.1, ("decoder_1",), "adapted", True)
PRESETS: dict[str, dict[str, Any]] = {
    "paper-intent": dict(zip(NAMES, PAPER, strict=True)),
    "raykd": dict(zip(NAMES, ADVISED, strict=True)),
}


@METHODS.register("dual_kd")
class DualKD(Method):
    """Students learn from few labels and from a teacher's response and features, and are averaged."""

    needs_teacher = True

    class Settings(MethodSettings):
        name: Literal["dual_kd"]
        preset: Literal["paper-intent", "raykd"] = "raykd"
        """Gives every setting that is not given: the published method as its text means it, or what this toolkit advises."""
        weighting: Weighting = "uniform"
        """p_k of the average of the students."""
        start: Literal["cold", "warm"] | None = None
        """Students begin at random, or from a model of their own size trained on the repository."""
        num_unlabelled: NonNegativeInt = 2
        """Unlabelled patches beside the labelled ones in every step [B_u]."""
        response: Literal["softmax_mse", "kl", "dice_kl", "none"] | None = None
        response_weight: NonNegativeFloat | None = None
        """[alpha]"""
        response_ramp: bool | None = None
        """Whether that weight rises as exp(-5 (1 - r/R)^2) over the federation [lambda]."""
        temperature: PositiveFloat = 1.0
        """Of the KL response."""
        num_passes: NonNegativeInt = 8
        """Stochastic teacher passes behind a soft label and its entropy [T]; 0: one clean pass."""
        input_noise: NonNegativeFloat = 0.1
        """Of the noise on their z-scored inputs."""
        mask: Literal["classes", "two", "none"] | None = None
        """Voxels are learnt from where the entropy is under (0.75 + 0.25 r) ln(base); the base is the number of classes, or 2 as
        in the reference code [H]."""
        feature: Literal["channel_kl", "attention", "pairwise", "region_affinity", "none"] | None = None
        feature_weight: NonNegativeFloat | None = None
        feature_layers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
        """Named layers of both networks."""
        teacher: Literal["frozen", "ema", "adapted"] | None = None
        """`frozen` as it was sent; `ema`: from `ema_start_round` on, each site moves its teacher by a = min(r/R, 0.99) towards the
        received student; `adapted`: each site first trains its teacher on its own labels for `adapt_steps`."""
        ema_start_round: NonNegativeInt = 7
        adapt_steps: NonNegativeInt = 200
        trust: bool | None = None
        """Whether distillation of a class fades out where the received student is as good as the teacher on the site's labels."""

        def get(self, name: str) -> Any:
            """A setting as given, else as its preset has it."""
            value = getattr(self, name)
            return PRESETS[self.preset][name] if value is None else value

        def layers(self) -> tuple[str, ...]:
            """The named layers that features are learnt from."""
            return () if self.get("feature") == "none" else tuple(self.get("feature_layers"))

    @property
    def is_warm(self) -> bool:
        return bool(self.settings.get("start") == "warm")

    def problems(self) -> list[str]:
        found = same_network_problems(self)
        if self.scenario.repository.teacher.network != self.scenario.student.network:
            if self.settings.get("teacher") == "ema":
                found.append("teacher: ema moves the teacher towards the student, so both must be one network; choose adapted")
            if self.settings.get("feature") == "channel_kl":
                found.append("feature: channel_kl needs one network on both sides; choose attention, pairwise or region_affinity")
        return found

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        teacher = self._teacher(context, select(state, "teacher") or context.teacher, download)
        trust = None
        if self.settings.get("trust"):
            trust = trust_in_teacher(context.support_scores(teacher, "teacher"), context.support_scores(download, "student"))
        if context.num_unlabelled and (self.settings.get("response") != "none" or self.settings.layers()):
            passes, noise = self.settings.num_passes, self.settings.input_noise
            context.learn_from(teacher, KnowledgeRequest(passes, noise, self.settings.layers()))
        params, result = context.fit(download, self._loss(context, trust), num_unlabelled=self.settings.num_unlabelled)
        notes = {} if trust is None else {"share_trust": sum(trust) / len(trust)}
        return LocalUpdate({} if teacher is context.teacher else teacher, params, result, notes)

    def aggregate(self, server: Payload, uploads: Sequence[Upload]) -> Payload:
        return average(uploads, self.settings.weighting)

    def _teacher(self, context: LocalContext, teacher: Payload, student: Payload) -> Payload:
        """The site's teacher in this round. The reference counts local epochs where its text counts rounds; rounds are meant."""
        schedule = self.settings.get("teacher")
        if schedule == "adapted" and teacher is context.teacher and context.num_labelled:
            return context.adapt(teacher, self.settings.adapt_steps)
        if schedule == "ema" and context.round_index >= self.settings.ema_start_round:
            return interpolate(teacher, rename(student, "params", "teacher"), min(context.round_index / context.num_rounds, 0.99))
        return teacher

    def _loss(self, context: LocalContext, trust: tuple[float, ...] | None) -> Loss:
        get, layers = self.settings.get, self.settings.layers()
        progress = sigmoid_ramp(context.round_index + 1, context.num_rounds)
        base = {"none": None, "two": 2, "classes": context.num_classes}[get("mask")]
        distillation = DualDistillation(
            response=get("response"),
            feature=get("feature"),
            response_weight=get("response_weight") * (progress if get("response_ramp") else 1.0),
            feature_weight=get("feature_weight"),
            temperature=self.settings.temperature,
            max_entropy=None if base is None else entropy_threshold(progress, base),
            trust=trust,
        )

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            logits_BLIJK, features = model.forward_with_features(batch.image_BCIJK, layers)
            terms = distillation(logits_BLIJK, features, batch)
            if batch.num_labelled:
                terms["supervised"] = dice_ce_loss(logits_BLIJK[: batch.num_labelled], batch.label_BIJK, context.annotated)
            return terms

        return loss
