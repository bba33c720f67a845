"""Private mentors and a shared mentee. Wu et al., Nature Communications 2022. https://doi.org/10.1038/s41467-022-29763-x

Every site trains a mentor, the repository's teacher network from random parameters, beside the student, which alone travels; each
learns from the labels and from what the other says, the less the worse both do. What travels of the student is its change, cut by
singular values. The server's own copy takes the same cut, so that all agree; when a site missed a round, all are sent the model
whole. The denominator that weighs the distillation has no gradient. The source also compares attention maps, which U-Nets lack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from raykd.methods._base import LocalContext, LocalUpdate, Upload, labelled_loss
from raykd.methods.fedavg import FedAvg
from raykd.models._base import build_network
from raykd.numerics.aggregation import aggregation_weights
from raykd.numerics.hint import hint_adapters, hint_loss
from raykd.numerics.local_sgd import Batch, LocalResult, Loss
from raykd.numerics.low_rank import pack, unpack
from raykd.numerics.params import Payload, load_state, rename, select, state_of, weighted_mean
from raykd.numerics.response_losses import kl_loss
from raykd.numerics.rng import generator, integer
from raykd.numerics.segmentation_losses import marginal_logits
from raykd.scenario.fields import NonNegativeFloat
from raykd.scenario.registry import METHODS
from raykd.scenario.sites import num_training

Energy = Annotated[float, Field(gt=0.0, le=1.0)]
SENT, RECEIVED, ADAPTERS = "control/sent", "control/received", "control/adapters"


@METHODS.register("fedkd")
class FedKD(FedAvg):
    """FedAvg of a student that a larger private network at every site teaches and is taught by; its updates travel cut."""

    codecs_may_write_params = False
    noise = "none"
    learns_by_gradients_alone = False

    class Settings(FedAvg.Settings):
        name: Literal["fedkd"]  # type: ignore[assignment]
        response_weight: NonNegativeFloat = 1.0
        """Of what each learns from the other's probabilities."""
        feature_weight: NonNegativeFloat = 1.0
        """Of the squared difference of the mentor's features from the student's, through a map that stays at the site [W_h]."""
        feature_layers: tuple[str, ...] = ("bottleneck",)
        """Named layers of both networks."""
        first_energy: Energy = 0.95
        """Share of its squared singular values that every update keeps at the start [E_0]; 1: the model travels whole."""
        last_energy: Energy = 0.98
        """And towards the end, linearly from one to the other [E_1]."""

    def problems(self) -> list[str]:
        scenario, found = self.scenario, super().problems()
        for whose, network in (("student", scenario.student.network), ("teacher", scenario.repository.teacher.network)):
            known = build_network(network, len(scenario.classes) + 1, 0).layers
            if unknown := set(self.settings.feature_layers) - known.keys():
                found.append(f"feature_layers: must be among {', '.join(known)} of the {whose}, got {', '.join(sorted(unknown))}")
        return found

    def init_client(self, student: Payload) -> Payload:
        """The mentor, the same one at every site."""
        scenario = self.scenario
        seed = integer(generator(scenario.seed, "mentor"), 2**31)
        return state_of(build_network(scenario.repository.teacher.network, len(scenario.classes) + 1, seed), "teacher")

    def broadcast(self, server: Payload) -> Payload:
        return rename(server, SENT, "params") or select(server, "params")

    def global_model(self, server: Payload) -> Payload:
        return select(server, "params")

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        received = unpack(download, rename(state, RECEIVED, "params"))
        if not context.num_labelled:
            return LocalUpdate(state, {}, LocalResult(0, {}))
        mentor = context.network(rename(state, "teacher", "params"), "teacher").train().requires_grad_(True)
        adapters = self._adapters(context, received, mentor)
        if rename(state, ADAPTERS, "params"):
            load_state(adapters, state, ADAPTERS)
        pair = nn.ModuleDict({"mentor": mentor, "adapters": adapters})
        own, result = context.fit(received, self._loss(context, mentor, adapters), beside=pair)
        kept = own | state_of(mentor, "teacher") | state_of(adapters, ADAPTERS) | rename(received, "params", RECEIVED)
        return LocalUpdate(kept, pack(own, received, self._energy(context.round_index)), result)

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        base = select(server, "params")
        models = (unpack(upload.payload, base) for upload in uploads)
        counts = [upload.num_labelled for upload in uploads], [upload.num_unlabelled for upload in uploads]
        mean = weighted_mean(models, aggregation_weights(self.settings.weighting, *counts))
        change = pack(mean, base, self._energy(round_index))
        all_hold_base = len(uploads) == num_training(self.scenario.members())
        return unpack(change, base) | (rename(change, "params", SENT) if all_hold_base else {})

    def uploaded_model(self, upload: Payload) -> Payload:
        return {}

    def personal_model(self, state: Mapping[str, Any]) -> Payload:
        return select(state, "params")

    def _energy(self, round_index: int) -> float:
        first, last = self.settings.first_energy, self.settings.last_energy
        return float(first + (last - first) * round_index / self.scenario.federation.rounds)

    def _adapters(self, context: LocalContext, student: Payload, mentor: Any) -> nn.ModuleDict:
        """From the student's channels to the mentor's, as many as a look at a patch shows."""
        layers = self.settings.feature_layers
        image_BCIJK = next(context.patches(1, num_labelled=1)).image_BCIJK
        with torch.no_grad():
            _, of_student = context.network(student).forward_with_features(image_BCIJK, layers)
            _, of_mentor = mentor.eval().forward_with_features(image_BCIJK, layers)
        mentor.train()
        student_channels, mentor_channels = ({layer: maps[layer].shape[1] for layer in layers} for maps in (of_student, of_mentor))
        return hint_adapters(student_channels, mentor_channels, context.generator("mentor-adapters"))

    def _loss(self, context: LocalContext, mentor: Any, adapters: nn.ModuleDict) -> Loss:
        layers, annotated = self.settings.feature_layers, context.annotated

        def learns(logits_BLIJK: Tensor, other_BLIJK: Tensor) -> Tensor:
            return self.settings.response_weight * kl_loss(logits_BLIJK, torch.softmax(other_BLIJK.detach(), dim=1))

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            z_s, f_s = model.forward_with_features(batch.image_BCIJK, layers)
            z_t, f_t = mentor.forward_with_features(batch.image_BCIJK, layers)
            hidden = {layer: adapters[layer](f_s[layer]) for layer in layers}
            supervised, mentor_supervised = (labelled_loss(z, batch, annotated) for z in (z_s, z_t))
            wrong = (supervised + mentor_supervised).detach().clamp(min=1e-6)
            if annotated is not None:
                z_s, z_t = marginal_logits(z_s, annotated), marginal_logits(z_t, annotated)
            nearer = sum(hint_loss(hidden[layer], f_t[layer].detach()) for layer in layers)
            mentor_nearer = sum(hint_loss(hidden[layer].detach(), f_t[layer]) for layer in layers)
            return {
                "supervised": supervised,
                "response": learns(z_s, z_t) / wrong,
                "feature": self.settings.feature_weight * nearer / wrong,
                "mentor_supervised": mentor_supervised,
                "mentor_response": learns(z_t, z_s) / wrong,
                "mentor_feature": self.settings.feature_weight * mentor_nearer / wrong,
            }

        return loss
