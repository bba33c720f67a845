"""What models say of a few voxels only: which are chosen, how they are written in a length that is known beforehand, and what
the receiver knows of each voxel afterwards.

Shapes: N patches, L classes with background, K classes kept of a voxel, V voxels sent at most, I J K voxels of a patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from raykd.numerics.compression.bits import pack_bits, unpack_bits
from raykd.numerics.compression.sparsity import num_kept
from raykd.numerics.params import Payload


@dataclass(frozen=True)
class Kept:
    """What is sent of soft labels.

    Attributes:
        share: of all voxels of a message, so many at most, in (0, 1].
        min_confidence: probability of a voxel's most probable class at least.
        within_mm: of the nearest voxel whose most probable class is not the background, at most; None: anywhere.
        num_classes: of a voxel that is sent, the most probable ones [K]; None: all.
    """

    share: float = 1.0
    min_confidence: float = 0.0
    within_mm: float | None = None
    num_classes: int | None = None

    @property
    def leaves_out(self) -> bool:
        """Whether any voxel may be left out."""
        return self.share < 1.0 or self.min_confidence > 0.0 or self.within_mm is not None


def foreground_distance_mm(probs_NLIJK: Tensor, spacing_mm_N3: Sequence[Sequence[float]]) -> Tensor:
    """From every voxel to the nearest of its patch whose most probable class is not the background, between centres: (N, I, J, K),
    0 in the foreground, infinite in patches that have none.

    Args:
        spacing_mm_N3: voxel edges of every patch along I, J, K.
    """
    distances = []
    for is_background_IJK, spacing_mm in zip((probs_NLIJK.argmax(dim=1) == 0).cpu().numpy(), spacing_mm_N3, strict=True):
        has_none = is_background_IJK.all()
        away = np.inf if has_none else distance_transform_edt(is_background_IJK, sampling=tuple(spacing_mm))
        distances.append(torch.from_numpy(np.broadcast_to(away, is_background_IJK.shape).astype(np.float32)))
    return torch.stack(distances)


def chosen(probs_NLIJK: Tensor, rank_NIJK: Tensor, kept: Kept) -> Tensor:
    """The voxels that are sent, a mask (N, I, J, K): those that qualify, of lowest rank first; of equal rank the surest first.

    Args:
        rank_NIJK: such as the distance from the foreground, in mm.
    """
    confidence = probs_NLIJK.amax(dim=1).float().flatten().cpu().numpy()
    rank = rank_NIJK.flatten().cpu().numpy()
    qualifies = confidence >= kept.min_confidence
    if kept.within_mm is not None:
        qualifies &= rank <= kept.within_mm
    (places,) = np.nonzero(qualifies)
    order = np.lexsort((-confidence[places], rank[places]))  # stable: of equals those that come first
    mask = np.zeros(len(rank), dtype=bool)
    mask[places[order[: num_kept(kept.share, len(rank))]]] = True
    return torch.from_numpy(mask.reshape(tuple(rank_NIJK.shape)))


def thinned(values_NLIJK: Tensor, is_chosen_NIJK: Tensor, kept: Kept) -> Payload:
    """The largest values of every voxel that is chosen, in half precision, filled up to the share of all voxels.

    Args:
        values_NLIJK: probabilities or scores; minus infinity: of this class nothing is said.
        is_chosen_NIJK: by `chosen`; they are written in the order of their places.

    Returns:
        `values` (K, V); `classes`, in as few bits as they need, L where nothing is said; `sent`, a bit a voxel, (N, I, J, K / 8).
    """
    num_all, num_voxels = values_NLIJK.shape[1], num_kept(kept.share, is_chosen_NIJK.numel())
    rows_ML = values_NLIJK.movedim(1, -1)[is_chosen_NIJK].float()
    largest_ML, class_ML = rows_ML.sort(dim=1, descending=True, stable=True)
    class_ML = class_ML.masked_fill(largest_ML.isneginf(), num_all)
    num_classes = min(kept.num_classes or num_all, num_all)
    values_KV = torch.zeros(num_classes, num_voxels, dtype=torch.float16)
    classes_KV = torch.full((num_classes, num_voxels), num_all)
    values_KV[:, : len(rows_ML)] = largest_ML.masked_fill(largest_ML.isneginf(), 0.0)[:, :num_classes].T.half()
    classes_KV[:, : len(rows_ML)] = class_ML[:, :num_classes].T
    packed = torch.from_numpy(pack_bits(classes_KV.flatten().numpy(), num_all.bit_length()))
    sent = torch.from_numpy(np.packbits(is_chosen_NIJK.numpy(), axis=-1))
    return {"values": values_KV, "classes": packed, "sent": sent}


def restored(sent: Mapping[str, Tensor], num_all: int) -> tuple[Tensor, Tensor]:
    """What `thinned` wrote: values (N, L, I, J, K) in float32, 0 where nothing was said, and of which something was said, a mask.
    The last axis is filled up to a multiple of 8 with voxels of which nothing was said.

    Args:
        num_all: classes [L].
    """
    mask_NIJK = torch.from_numpy(np.unpackbits(sent["sent"].numpy(), axis=-1)).bool()
    values_KV, num_sent = sent["values"].float(), int(mask_NIJK.sum())
    codes = torch.from_numpy(unpack_bits(sent["classes"].numpy(), num_all.bit_length(), values_KV.numel()))
    class_KM = codes.reshape(values_KV.shape)[:, :num_sent]
    rows_ML = torch.zeros(num_sent, num_all + 1).scatter_(1, class_KM.T, values_KV[:, :num_sent].T)
    said_ML = torch.zeros(num_sent, num_all + 1, dtype=torch.bool).scatter_(1, class_KM.T, True)
    values, is_said = torch.zeros(*mask_NIJK.shape, num_all), torch.zeros(*mask_NIJK.shape, num_all, dtype=torch.bool)
    values[mask_NIJK], is_said[mask_NIJK] = rows_ML[:, :num_all], said_ML[:, :num_all]
    return values.movedim(-1, 1), is_said.movedim(-1, 1)


def completed(probs_NLIJK: Tensor, is_said_NLIJK: Tensor) -> Tensor:
    """Probabilities with what is left of one shared equally by the classes of which nothing was said; all alike in voxels that were
    not sent.
    """
    kept, num_left = probs_NLIJK * is_said_NLIJK, (~is_said_NLIJK).sum(dim=1, keepdim=True)
    left = (1.0 - kept.sum(dim=1, keepdim=True)).clamp(min=0.0) / num_left.clamp(min=1)
    probs = torch.where(is_said_NLIJK, kept, left.expand_as(kept))
    return probs / probs.sum(dim=1, keepdim=True)
