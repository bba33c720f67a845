"""Ensemble distillation for model fusion. Lin et al., NeurIPS 2020. https://arxiv.org/abs/2006.07242

The server averages the clients' models, then teaches the average what their ensemble says of public patches, at the scenario's
training settings. The source stops early by a labelled validation set and leaves out the worst models by it; here the number of
steps is given and all models are heard, each of the classes that its site outlines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from raykd.methods._base import LocalContext, Upload
from raykd.methods.fedavg import FedAvg
from raykd.models._base import SegmentationNetwork
from raykd.numerics.ensemble import ensemble_logits
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload, select
from raykd.numerics.response_losses import kl_loss
from raykd.scenario.fields import NonNegativeInt, PositiveFloat
from raykd.scenario.registry import METHODS

Known = Sequence[Sequence[int] | None]
"""By model, the foreground classes that it was taught; None: all."""


@METHODS.register("feddf")
class FedDF(FedAvg):
    """FedAvg whose average learns from the ensemble of the clients' models on the scenario's `proxy`. Traffic is that of FedAvg."""

    noise = "upload"
    serves = True
    needs_proxy = True

    class Settings(FedAvg.Settings):
        name: Literal["feddf"]  # type: ignore[assignment]
        num_server_steps: NonNegativeInt = 50
        """Of distillation in every round, each of `batch_size` public patches; 0: FedAvg. The source takes up to 10,000."""
        temperature: PositiveFloat = 1.0
        """[T]"""

    def update_server(self, context: LocalContext, server: Payload, uploads: Sequence[Upload]) -> Payload:
        num_steps, temperature = self.settings.num_server_steps, self.settings.temperature
        if not num_steps:
            return server
        models = [context.network(select(upload.payload, "params")) for upload in uploads]
        known = [self._known(upload.client_id) for upload in uploads]
        patches = context.proxy_patches(num_steps, self.scenario.training.batch_size)

        def loss(model: Any, batch: Batch) -> dict[str, Tensor]:
            assert batch.soft_label_BLIJK is not None
            return {"response": kl_loss(model(batch.image_BCIJK), batch.soft_label_BLIJK, temperature=temperature)}

        params, _ = context.fit(server, loss, num_steps=num_steps, batches=_taught(patches, models, known))
        return params

    def _known(self, client_id: int) -> tuple[int, ...] | None:
        classes = self.scenario.members()[client_id].group.labels.classes
        return None if classes is None else tuple(self.scenario.classes.index(name) + 1 for name in classes)


def _taught(patches: Iterable[Batch], models: Sequence[SegmentationNetwork], known: Known) -> Iterator[Batch]:
    """The patches with what the ensemble says of them, computed one step at a time."""
    for batch in patches:
        with torch.no_grad():
            logits_BLIJK = ensemble_logits([model(batch.image_BCIJK) for model in models], known)
        yield replace(batch, soft_label_BLIJK=torch.softmax(logits_BLIJK, dim=1))
