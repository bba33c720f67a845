"""What methods share that learn from labelled and unlabelled patches in one step."""

from __future__ import annotations

import torch
from torch import Tensor

from raykd.methods._base import labelled_loss
from raykd.numerics.local_sgd import Batch
from raykd.numerics.perturbation import strong, weak


def views(batch: Batch, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """What a student sees, the labelled patches as they are and a strong view of the others, and a weak view of the others."""
    labelled, others = batch.image_BCIJK[: batch.num_labelled], batch.image_BCIJK[batch.num_labelled :]
    return torch.cat([labelled, strong(others, rng)]), weak(others, rng)


def supervised_term(logits_BLIJK: Tensor, batch: Batch, annotated: tuple[int, ...] | None) -> dict[str, Tensor]:
    """Half cross-entropy, half Dice on the labelled patches; no term where there are none."""
    if not batch.num_labelled:
        return {}
    return {"supervised": labelled_loss(logits_BLIJK, batch, annotated)}
