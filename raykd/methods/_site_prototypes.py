"""Prototypes as payloads: sums of features and counts by class, which add up over patches, rounds and sites, or a bank of local
prototypes a class, which does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from raykd.numerics.local_prototypes import local_prototypes
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload
from raykd.numerics.prototypes import class_means, class_sums
from raykd.numerics.sent_knowledge import comparable_labels

SUMS, COUNTS = "prototypes/sums", "prototypes/counts"


def sums_of(maps: Sequence[Tensor], batches: Sequence[Batch], num_classes: int) -> Payload:
    """Sums of features (C, F) and counts of cells (C,) over all labelled patches.

    Args:
        maps: features (B, F, i, j, k) of every batch.
        batches: labelled.
        num_classes: C, with the background.
    """
    pairs = [class_sums(feature, label, num_classes) for feature, label in zip(maps, _labels(batches), strict=True)]
    return added([{SUMS: sums_CF.cpu(), COUNTS: count_C.cpu()} for sums_CF, count_C in pairs])


def bank_of(
    maps: Sequence[Tensor], batches: Sequence[Batch], num_classes: int, *, window_mm: float, stride: Sequence[int]
) -> Payload:
    """Local prototypes by class; foreground classes have their mean in every batch besides, as in SSL-ALPNet.

    Args:
        maps, batches, num_classes: as for `sums_of`.
        window_mm: edge of the windows.
        stride: voxels of a patch in a cell of its map, along I, J, K.
    """

    def of(feature: Tensor, label_BIJK: Tensor, batch: Batch, class_index: int) -> Tensor:
        spacing_mm = [1.0] * 3 if batch.spacing_mm_B3 is None else batch.spacing_mm_B3[0].tolist()
        cell_mm = [mm * step for mm, step in zip(spacing_mm, stride, strict=True)]
        window = {"window_mm": window_mm, "cell_mm": cell_mm, "with_mean": class_index > 0}
        return local_prototypes(feature, label_BIJK, class_index, num_classes, **window).cpu()  # type: ignore[arg-type]

    looks = list(zip(maps, _labels(batches), batches, strict=True))
    return {_bank(c): torch.cat([of(*look, c) for look in looks]) for c in range(num_classes)}


def _labels(batches: Sequence[Batch]) -> list[Tensor]:
    """The labels of every batch. Where some patches are outlined for all classes, the background of the others is unknown; where
    none is, a site has no better background than one in which other classes hide."""
    if not any(own is None for batch in batches for own in batch.outlined()):
        return [batch.label_BIJK for batch in batches]
    return [comparable_labels(batch.label_BIJK, None, batch.outlined()) for batch in batches]


def added(parts: Sequence[Mapping[str, Tensor]]) -> Payload:
    """The sum of payloads key by key, in their order; a payload without a key counts as zero there."""
    total: Payload = {}
    for part in parts:
        total |= {key: total[key] + value if key in total else value for key, value in part.items()}
    return total


def thinned(parts: Sequence[Mapping[str, Tensor]], limit: int, rng: torch.Generator) -> Payload:
    """The banks of all parts together, at most `limit` prototypes a class drawn at random, in their order."""
    joined = {key: torch.cat([part[key] for part in parts if key in part]) for key in sorted({k for part in parts for k in part})}
    return {key: bank[torch.randperm(len(bank), generator=rng)[:limit].sort().values] for key, bank in joined.items()}


def by_class(payload: Mapping[str, Tensor], num_classes: int) -> list[Tensor]:
    """The prototypes (P, F) of every class, none (P = 0) of a class that was not seen."""
    if COUNTS in payload:
        means_CF, count_C = class_means(payload[SUMS], payload[COUNTS]), payload[COUNTS]
        return [means_CF[c : c + 1] if count_C[c] > 0 else means_CF[:0] for c in range(num_classes)]
    return [payload.get(_bank(c), torch.zeros(0, 1)) for c in range(num_classes)]


def _bank(class_index: int) -> str:
    return f"prototypes/class_{class_index}"
