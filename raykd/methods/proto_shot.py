"""Few-shot segmentation by prototypes, without training. PANet, Wang et al., ICCV 2019. https://arxiv.org/abs/1908.06391

The repository's teacher is sent once and never changes. Each site looks at labelled patches and keeps the mean feature of every
class, or several windows' means as SSL-ALPNet does (Ouyang et al., ECCV 2020, https://arxiv.org/abs/2007.09886), with windows in
mm, because slices are thick. Every round looks at further patches. Classes that the teacher was never taught have prototypes too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from raykd.methods._base import LocalContext, LocalUpdate, Method, MethodSettings, Upload
from raykd.methods._site_prototypes import added, bank_of, by_class, sums_of, thinned
from raykd.models._base import SegmentationNetwork
from raykd.models._prototype_head import PrototypeClassifier
from raykd.numerics.local_sgd import Batch, LocalResult
from raykd.numerics.params import Payload, rename, select
from raykd.scenario.fields import PositiveFloat, PositiveInt, Probability
from raykd.scenario.registry import METHODS


@METHODS.register("proto_shot")
class ProtoShot(Method):
    """The teacher's features, and prototypes of the site's few labels in the place of its head."""

    noise = "upload"
    deployed = "personal"
    averages = False
    kinds = ("prototypes",)
    needs_teacher = True

    class Settings(MethodSettings):
        name: Literal["proto_shot"]
        layer: str = "decoder_1"
        """Named layer of the teacher, which gives the features; the bottleneck is too coarse to place anything."""
        prototypes: Literal["mean", "local"] = "mean"
        """One a class, or the mean of every window that the class covers nearly whole."""
        window_mm: PositiveFloat = 12.0
        """Edge of those windows."""
        max_local: PositiveInt = 64
        """Largest number of local prototypes a class; more are thinned out at random."""
        head_share: Probability = 0.0
        """Weight of the teacher's own head beside the prototypes [g]; 0: prototypes alone."""
        shared: bool = False
        """Whether sites send sums of features and counts by class, so that all use the prototypes of all. Where a site outlines
        some classes only, the others are part of its background."""

        def layers(self) -> tuple[str, ...]:
            """The named layers that are needed."""
            return (self.layer,)

    @property
    def is_warm(self) -> bool:
        return True

    def student_network(self) -> Any:
        return self.scenario.repository.teacher.network

    def problems(self) -> list[str]:
        found = super().problems()
        if self.settings.shared and self.settings.prototypes == "local":
            found.append("shared: true adds up sums of features, which local prototypes are not; choose prototypes: mean")
        if others := [member.name for member in self.scenario.members() if member.group.student is not None]:
            found.append(f"method proto_shot uses the teacher's network at every site; drop the student of {', '.join(others)}")
        return found

    def broadcast(self, server: Payload) -> Payload:
        return select(server, "prototypes")

    def init_client(self, student: Payload) -> Payload:
        return dict(student)

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        params, batches = rename(context.teacher, "teacher", "params"), list(context.patches(context.num_steps))
        before = select(download, "prototypes") or select(state, "prototypes")
        found = self._look(context, context.network(params), batches) if batches else {}
        if self.settings.prototypes == "mean":
            after = added([before, found])
        else:
            after = thinned([before, found], self.settings.max_local, context.generator("local-prototypes"))
        num_seen = sum(len(prototype_PF) > 0 for prototype_PF in by_class(after, context.num_classes)[1:])
        # To take over what others found is work, too: a site that reports no step is left out of its round.
        result = LocalResult(len(batches) or int(bool(before)), {})
        sent = found if self.settings.shared else {}
        return LocalUpdate(params | after, sent, result, {"share_classes": num_seen / (context.num_classes - 1)})

    def _look(self, context: LocalContext, network: SegmentationNetwork, batches: Sequence[Batch]) -> Payload:
        """The prototypes of labelled patches."""
        layer = self.settings.layer
        with torch.no_grad():
            maps = [network.forward_with_features(batch.image_BCIJK, (layer,))[1][layer] for batch in batches]
        if self.settings.prototypes == "mean":
            return sums_of(maps, batches, context.num_classes)
        window_mm, stride = self.settings.window_mm, network.layers[layer]
        return bank_of(maps, batches, context.num_classes, window_mm=window_mm, stride=stride)

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        return server | added([select(server, "prototypes"), *(select(upload.payload, "prototypes") for upload in uploads)])

    def global_model(self, server: Payload) -> Payload:
        return dict(server) if self.settings.shared else {}

    def personal_model(self, state: Mapping[str, Any]) -> Payload:
        return dict(state)

    def module(self, network: SegmentationNetwork, model: Payload) -> SegmentationNetwork:
        """Without a prototype the teacher's own head predicts."""
        names, known = self.scenario.repository.classes, None
        if names is not None:
            known = sorted(self.scenario.classes.index(name) + 1 for name in names)
        prototypes = by_class(model, network.num_classes)
        share = self.settings.head_share if any(len(prototype_PF) for prototype_PF in prototypes) else 1.0
        return PrototypeClassifier(network, self.settings.layer, prototypes, head_share=share, known=known)
