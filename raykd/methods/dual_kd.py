"""Federated few-shot learning with dual knowledge distillation. He et al., ISBI 2023. https://arxiv.org/abs/2303.14357

Every site learns from its few labels, from the teacher's response (soft labels) and from the teacher's features; the students are averaged.
The teacher is sent once and never comes back. Symbols in brackets are the paper's or its code's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from raykd.methods._base import KnowledgeRequest, LocalContext, LocalUpdate, Method, MethodSettings, Upload, Voice, average
from raykd.methods.fedavg import same_network_problems
from raykd.numerics import feature_losses, response_losses
from raykd.numerics.aggregation import Weighting
from raykd.numerics.local_sgd import Batch, Loss
from raykd.numerics.params import Payload, interpolate, rename, select
from raykd.numerics.segmentation_losses import dice_ce_loss
from raykd.scenario.registry import METHODS
from raykd.scenario.schema import NonNegativeFloat, NonNegativeInt, PositiveFloat

PRESETS: dict[str, dict[str, Any]] = {
    "paper-intent": {
        "start": "cold",
        "response": "softmax_mse",
        "response_weight": 0.1,
        "response_ramp": True,
        "mask": "classes",
        "feature": "channel_kl",
        "feature_weight": 1.0,
        "feature_layers": ("bottleneck",),
        "teacher_schedule": "ema",
        "trust": False,
    },
    "raykd": {
        "start": "warm",
        "response": "kl",
        "response_weight": 1.0,
        "response_ramp": False,
        "mask": "classes",
        "feature": "region_affinity",
        "feature_weight": 0.1,
        "feature_layers": ("decoder_1",),
        "teacher_schedule": "frozen",
        "trust": True,
    },
}


@METHODS.register("dual_kd")
class DualKD(Method):
    """The reference method; a setting that is not given takes its preset's value."""

    needs_teacher = True

    class Settings(MethodSettings):
        name: Literal["dual_kd"]
        preset: Literal["paper-intent", "raykd"] = "raykd"
        """`paper-intent`: the published method as its text means it, with the code's slips mended. `raykd`: what this toolkit advises."""
        weighting: Weighting = "uniform"
        """p_k of the average of the students."""
        start: Literal["cold", "warm"] | None = None
        """Students begin at random, or from a model of their own size trained on the repository."""
        num_unlabelled: NonNegativeInt = 2
        """Unlabelled patches beside the labelled ones in every step [B_u]."""
        response: Literal["softmax_mse", "kl", "none"] | None = None
        response_weight: NonNegativeFloat | None = None
        """[alpha]"""
        response_ramp: bool | None = None
        """Whether that weight rises as exp(-5 (1 - r/R)^2) over the federation [lambda]."""
        temperature: PositiveFloat = 1.0
        """Of the KL response."""
        num_passes: NonNegativeInt = 8
        """Stochastic teacher passes behind a soft label and its entropy [T]; 0: one clean pass."""
        input_noise: NonNegativeFloat = 0.1
        """Of the noise on their inputs."""
        mask: Literal["classes", "two", "none"] | None = None
        """Voxels are learnt from where the entropy is under (0.75 + 0.25 r) ln(base): base the number of classes, or 2 as in the code [H]."""
        feature: Literal["channel_kl", "attention", "pairwise", "region_affinity", "none"] | None = None
        feature_weight: NonNegativeFloat | None = None
        feature_layers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
        """Named layers of both networks."""
        teacher_schedule: Literal["frozen", "ema"] | None = None
        """`ema`: from `ema_start_round` on, each site moves its teacher by a = min(r/R, 0.99) towards the received student."""
        ema_start_round: NonNegativeInt = 7
        trust: bool | None = None
        """Whether each class of the soft label is weighed between teacher and received student by their DSC on the site's labelled cases."""
        trust_prior: tuple[PositiveFloat, PositiveFloat] = (1.0, 0.5)
        """Pseudo-count n0 and score d0 towards which those DSCs are shrunk: (sum + n0 d0) / (n + n0)."""
        trust_power: PositiveFloat = 4.0
        """How sharply trust follows score: the weights are scores to this power."""

        def get(self, name: str) -> Any:
            """A setting as given, else as its preset has it."""
            value = getattr(self, name)
            return PRESETS[self.preset].get(name) if value is None else value

        def layers(self) -> tuple[str, ...]:
            """The named layers that features are learnt from."""
            return () if self.get("feature") == "none" else tuple(self.get("feature_layers"))

    @property
    def is_warm(self) -> bool:
        return bool(self.settings.get("start") == "warm")

    def problems(self) -> list[str]:
        teacher, student = self.scenario.repository.teacher.network, self.scenario.student.network
        found = same_network_problems(self)
        if self.settings.get("teacher_schedule") == "ema" and teacher != student:
            found.append(
                "method.teacher_schedule ema needs a teacher and a student of the same network; choose frozen, or equal networks"
            )
        if self.settings.get("feature") == "channel_kl" and teacher != student:
            found.append(
                "method.feature channel_kl needs as many channels in student and teacher; choose attention, pairwise or region_affinity, "
                "or equal networks"
            )
        return found

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        teacher = self._teacher(context, select(state, "teacher") or context.teacher, download)
        request = KnowledgeRequest(self.settings.num_passes, self.settings.input_noise, self.settings.layers())
        voices = [Voice(teacher, "teacher")]
        notes: dict[str, float] = {}
        if self.settings.get("trust"):
            voices, notes = self._trusted(context, teacher, download)
        if self.settings.get("response") != "none" or self.settings.layers():
            context.learn_from(voices, request)
        params, result = context.fit(download, self._loss(context), num_unlabelled=self.settings.num_unlabelled)
        kept = {} if teacher is context.teacher else teacher
        return LocalUpdate(kept, params, result, notes)

    def aggregate(self, server: Payload, uploads: Sequence[Upload]) -> Payload:
        return average(uploads, self.settings.weighting)

    def _teacher(self, context: LocalContext, teacher: Payload, student: Payload) -> Payload:
        """The site's teacher in this round: the reference counts rounds here, where its code counts local epochs."""
        if self.settings.get("teacher_schedule") == "frozen" or context.round_index < self.settings.ema_start_round:
            return teacher
        share = min(context.round_index / context.num_rounds, 0.99)
        return interpolate(teacher, rename(student, "params", "teacher"), share)

    def _trusted(self, context: LocalContext, teacher: Payload, student: Payload) -> tuple[list[Voice], dict[str, float]]:
        """Teacher and received student, each weighed class by class by its shrunken DSC on the site's few labels."""
        count, score = self.settings.trust_prior
        voices, shares = [], []
        for voice in (Voice(teacher, "teacher"), Voice(student, "student")):
            scores = context.support_scores(voice)
            trust = [((total + count * score) / (num + count)) ** self.settings.trust_power for total, num in scores]
            voices.append(replace(voice, weights=(sum(trust) / len(trust), *trust)))
            shares.append(sum(trust))
        return voices, {"share_teacher": shares[0] / sum(shares)}

    def _loss(self, context: LocalContext) -> Loss:
        progress = response_losses.sigmoid_ramp(context.round_index + 1, context.num_rounds)
        weight = self.settings.get("response_weight") * (progress if self.settings.get("response_ramp") else 1.0)
        layers = self.settings.layers()

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            logits_BLIJK, features = model.forward_with_features(batch.image_BCIJK, layers)
            taught = slice(batch.num_labelled, None)
            terms = {}
            if batch.num_labelled:
                terms["supervised"] = dice_ce_loss(logits_BLIJK[: batch.num_labelled], batch.label_BIJK, context.annotated)
            if len(batch.image_BCIJK) == batch.num_labelled:
                return terms
            if self.settings.get("response") != "none":
                terms["response"] = weight * self._response(logits_BLIJK[taught], batch, taught, progress)
            if layers:
                terms["feature"] = self.settings.get("feature_weight") * self._feature(features, batch, taught)
            return terms

        return loss

    def _response(self, logits_BLIJK: Tensor, batch: Batch, taught: slice, progress: float) -> Tensor:
        assert batch.soft_label_BLIJK is not None and batch.entropy_BIJK is not None
        mask = None
        if self.settings.get("mask") != "none":
            base = 2 if self.settings.get("mask") == "two" else logits_BLIJK.shape[1]
            mask = (batch.entropy_BIJK[taught] < response_losses.entropy_threshold(progress, base)).float()
        target = batch.soft_label_BLIJK[taught]
        if self.settings.get("response") == "kl":
            return response_losses.kl_loss(logits_BLIJK, target, mask, self.settings.temperature)
        return response_losses.softmax_mse_loss(logits_BLIJK, target, mask, 2.0 if self.settings.get("mask") == "two" else None)

    def _feature(self, features: dict[str, Tensor], batch: Batch, taught: slice) -> Tensor:
        assert batch.soft_label_BLIJK is not None
        total = batch.image_BCIJK.new_zeros(())
        for layer, feature in features.items():
            student, teacher = feature[taught], batch.features[layer][taught]
            match self.settings.get("feature"):
                case "channel_kl":
                    total = total + feature_losses.channel_kl_loss(student, teacher)
                case "attention":
                    total = total + feature_losses.attention_loss(student, teacher)
                case "pairwise":
                    total = total + feature_losses.pairwise_loss(student, teacher)
                case _:
                    total = total + feature_losses.region_affinity_loss(student, teacher, batch.soft_label_BLIJK[taught])
        return total
