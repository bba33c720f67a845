"""Soft labels of which only some voxels travel: the words, which are settings of every method that sends any, and what sites
say and agree on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from raykd.methods._base import MethodSettings
from raykd.numerics.params import Payload, weighted_mean
from raykd.numerics.thinned_labels import Kept, chosen, foreground_distance_mm, restored, thinned
from raykd.scenario.fields import NonNegativeFloat, PositiveInt


class ThinnedSettings(MethodSettings):
    """What of a soft label is sent. Of other voxels the receiver takes nothing: no loss counts them."""

    kept_classes: PositiveInt | None = None
    """Of a voxel that is sent, so many of the most probable classes; None: all."""
    kept_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Of all voxels of a message, so many at most: those nearest to what the sender takes for foreground first, in mm, and of
    equally near ones the surest. A message is as long whatever it says, so that this share alone makes it shorter."""
    kept_confidence: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Voxels whose most probable class has less are left out."""
    kept_within_mm: NonNegativeFloat | None = None
    """Voxels that are farther from what the sender takes for foreground are left out; None: none for that."""

    def kept(self) -> Kept:
        """The same in numbers."""
        return Kept(self.kept_share, self.kept_confidence, self.kept_within_mm, self.kept_classes)


def named(said: Mapping[str, Tensor]) -> Payload:
    """Entries under `logits/` by the names that `thinned` gave them."""
    return {key.removeprefix("logits/"): value for key, value in said.items() if key.startswith("logits/")}


def said_of_some(
    values_NLIJK: Tensor, probs_NLIJK: Tensor, known: Sequence[int], spacing_mm_N3: Sequence[Sequence[float]], kept: Kept
) -> Payload:
    """What is sent of scores or probabilities: of the voxels nearest to the foreground, under `logits/`.

    Args:
        probs_NLIJK: by which voxels are chosen.
        known: classes of which anything is said.
        spacing_mm_N3: of every patch.
    """
    values = torch.full_like(values_NLIJK, -torch.inf)
    values[:, list(known)] = values_NLIJK[:, list(known)]
    is_chosen_NIJK = chosen(probs_NLIJK, foreground_distance_mm(probs_NLIJK, spacing_mm_N3), kept)
    return {f"logits/{name}": value for name, value in thinned(values, is_chosen_NIJK, kept).items()}


def mean_by_class(said: Sequence[Mapping[str, Tensor]]) -> Payload:
    """Entry by entry the mean over the sites that sent it."""
    consensus: Payload = {}
    for key in sorted({key for payload in said for key in payload}):
        heard = [{key: payload[key]} for payload in said if key in payload]
        consensus |= weighted_mean(heard, [1.0] * len(heard))
    return consensus


def mean_of_some(
    said: Sequence[Mapping[str, Tensor]], edge: int, num_classes: int, probs_of: Callable[[Tensor], Tensor], kept: Kept
) -> Payload:
    """By voxel and class the mean over the sites that spoke of it; the voxels go first that most sites spoke of, then the surest.

    Args:
        said: by site, as `said_of_some` gave it.
        edge: voxels along the last axis [K].
        num_classes: L.
        probs_of: makes probabilities of mean scores.
        kept: whose share and classes hold.
    """
    heard = [restored(named(payload), num_classes) for payload in said]
    sums_NLIJK, counts_NLIJK = (torch.stack(parts).sum(dim=0)[..., :edge] for parts in zip(*heard, strict=True))
    mean_NLIJK = torch.where(counts_NLIJK > 0, sums_NLIJK / counts_NLIJK, -torch.inf)
    num_sites_NIJK = counts_NLIJK.amax(dim=1)
    probs_NLIJK = torch.where(num_sites_NIJK[:, None] > 0, probs_of(mean_NLIJK), -1.0)
    is_chosen_NIJK = chosen(probs_NLIJK, -num_sites_NIJK, Kept(kept.share))
    return {f"logits/{name}": value for name, value in thinned(mean_NLIJK, is_chosen_NIJK, kept).items()}
