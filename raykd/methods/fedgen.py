"""Data-free distillation through a generator of features by class. Zhu et al., ICML 2021. https://arxiv.org/abs/2105.10056

In a volume a class has features at every voxel; the generator gives pooled ones of what enters the output block. Sites tell the
server how many voxels of every class they trained on. The generator's optimiser begins anew in every round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from raykd.methods._base import LocalContext, LocalUpdate, Upload, average, labelled_loss
from raykd.methods._layout import layout
from raykd.methods.fedavg import FedAvg
from raykd.models._base import head_channels
from raykd.numerics.class_generator import (
    ClassGenerator,
    class_logits,
    class_shares,
    diversity_loss,
    ensemble_loss,
    latent_loss,
)
from raykd.numerics.local_sgd import Batch, Schedule, build_optimiser, local_sgd
from raykd.numerics.params import Payload, load_state, select, state_of
from raykd.numerics.rng import generator, seeded_layers
from raykd.numerics.sent_knowledge import comparable_labels
from raykd.scenario.fields import NonNegativeFloat, PositiveFloat, PositiveInt
from raykd.scenario.registry import METHODS

COUNTS = "control/label_counts"


@METHODS.register("fedgen")
class FedGen(FedAvg):
    """FedAvg whose clients also classify what a generator makes of all sites' classifiers; it begins in the second round."""

    noise = "none"
    learns_by_gradients_alone = False
    kinds = ("params", "control")

    class Settings(FedAvg.Settings):
        name: Literal["fedgen"]  # type: ignore[assignment]
        alpha: NonNegativeFloat = 10.0
        """Weight at the sites of the cross-entropy of generated features [alpha]."""
        beta: NonNegativeFloat = 10.0
        """Weight at the sites of the divergence of a class's mean probabilities from the generated ones [beta]."""
        decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.98
        """Of both weights from round to round."""
        eta: NonNegativeFloat = 1.0
        """Weight of the generator's diversity [eta]."""
        noise_dimensions: PositiveInt = 32
        width: PositiveInt = 128
        """Hidden units of the generator."""
        num_generated: PositiveInt = 64
        """Generated features in a step; the source takes 128."""
        num_server_steps: PositiveInt = 100
        """Steps of the generator in a round."""
        server_learning_rate: PositiveFloat = 3.0e-3
        """Of the generator; the source takes 3e-4 for many more steps."""

    def broadcast(self, server: Payload) -> Payload:
        return dict(server)

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        made = self._generator(select(download, "control")).requires_grad_(False) if select(download, "control") else None
        counts, rng = torch.zeros(context.num_classes), context.generator("generated-features")
        decayed = self.settings.decay**context.round_index

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            logits_BLIJK = model(batch.image_BCIJK)
            known = comparable_labels(batch.label_BIJK, None, batch.outlined(context.annotated))
            counts.add_(torch.bincount(known.flatten().cpu(), minlength=256)[: context.num_classes])
            terms = {"supervised": labelled_loss(logits_BLIJK, batch, context.annotated)}
            if made is not None:
                noise_BN, label_B = (x.to(logits_BLIJK.device) for x in self._draw(range(context.num_classes), rng))
                generated_BL = class_logits(model.head, made.to(noise_BN.device)(noise_BN, label_B))
                target_LL = torch.softmax(generated_BL.detach(), dim=1)
                target_LL = torch.stack([target_LL[label_B == c].mean(dim=0) for c in range(context.num_classes)])
                terms["generated"] = self.settings.alpha * decayed * F.cross_entropy(generated_BL, label_B)
                terms["latent"] = self.settings.beta * decayed * latent_loss(logits_BLIJK, known, target_LL)
            return terms

        params, result = context.fit(select(download, "params"), loss)
        return LocalUpdate({}, params | {COUNTS: counts}, result)

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        mean, count_KL = average(uploads, self.settings.weighting), torch.stack([upload.payload[COUNTS] for upload in uploads])
        there = [index for index, total in enumerate(count_KL.sum(dim=0).tolist()) if total > 0]
        made, share_KL = self._generator(select(server, "control")), class_shares(count_KL)
        if not there:
            return mean | select(server, "control")
        heads = [self._head(upload.payload) for upload in uploads]

        def loss(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
            feature_BF = model(batch.image_BCIJK, batch.label_BIJK)
            logits = [class_logits(head, feature_BF) for head in heads]
            diversity = self.settings.eta * diversity_loss(batch.image_BCIJK, feature_BF)
            return {"ensemble": ensemble_loss(logits, batch.label_BIJK, share_KL), "diversity": diversity}

        rate = self.settings.server_learning_rate
        optimiser = build_optimiser(made.parameters(), "adam", rate, weight_decay=0.01)
        local_sgd(made, self._draws(there, round_index), loss, optimiser, Schedule(rate))
        return mean | state_of(made, "control")

    def _generator(self, control: Payload) -> ClassGenerator:
        """The generator as it was, or a new one."""
        settings, num_classes = self.settings, len(self.scenario.classes) + 1
        with seeded_layers(generator(self.scenario.seed, "fedgen")):
            made = ClassGenerator(num_classes, settings.noise_dimensions, settings.width, head_channels(layout(self)))
        if control:
            load_state(made, control, "control")
        return made

    def _head(self, params: Mapping[str, Tensor]) -> nn.Module:
        network = deepcopy(layout(self))
        load_state(network, params)
        return network.eval().requires_grad_(False).head

    def _draw(self, classes: Sequence[int], rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise, and classes in turn: each as often as the others."""
        label_B = torch.tensor(classes).repeat(-(-self.settings.num_generated // len(classes)))
        return torch.randn(len(label_B), self.settings.noise_dimensions, generator=rng), label_B

    def _draws(self, classes: Sequence[int], round_index: int) -> Iterator[Batch]:
        rng = generator(self.scenario.seed, "fedgen-server", round_index)
        for _ in range(self.settings.num_server_steps):
            noise_BN, label_B = self._draw(classes, rng)
            yield Batch(noise_BN, label_B, len(label_B))
