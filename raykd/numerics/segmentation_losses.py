"""Supervised losses. Shapes: B patches, L classes with background, I J K voxels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss, MaskedDiceLoss
from torch import Tensor

UNKNOWN = 255


def marginal_logits(logits_BLIJK: Tensor, annotated: Sequence[int]) -> Tensor:
    """Logits over background and the annotated classes, the others merged into background by log-sum-exp.

    Where a site outlines some classes only, its background means "none of these": the probability of that is the sum over
    background and the classes that it does not outline (marginal loss, Shi et al., Medical Image Analysis 70, 2021, https://arxiv.org/abs/2007.03868).

    Args:
        logits_BLIJK: over background and all classes.
        annotated: the foreground classes that the site outlines, ascending.
    """
    others = [c for c in range(logits_BLIJK.shape[1]) if c not in annotated]
    background = torch.logsumexp(logits_BLIJK[:, others], dim=1, keepdim=True)
    return torch.cat([background, logits_BLIJK[:, list(annotated)]], dim=1)


def alike(annotated: Sequence[tuple[int, ...] | None]) -> Iterator[tuple[tuple[int, ...] | None, list[int]]]:
    """The patches for which the same classes were outlined: these classes (None: all), and the patches' places."""
    for kind in sorted(set(annotated), key=str):
        yield kind, [place for place, own in enumerate(annotated) if own == kind]


def over_patches(
    loss: Callable[[Tensor, Tensor, tuple[int, ...] | None], Tensor],
    logits_BLIJK: Tensor,
    label_BIJK: Tensor,
    annotated: Sequence[tuple[int, ...] | None],
) -> Tensor:
    """A loss that is a mean over patches, where each has outlines of its own classes.

    Args:
        loss: of logits, labels and the classes outlined in all of these patches.
        logits_BLIJK, label_BIJK: of the labelled patches.
        annotated: by patch the foreground classes outlined in it; None: all.
    """
    groups = list(alike(annotated))
    if len(groups) < 2:
        return loss(logits_BLIJK, label_BIJK, groups[0][0] if groups else None)
    parts = [len(rows) * loss(logits_BLIJK[rows], label_BIJK[rows], kind) for kind, rows in groups]
    return torch.stack(parts).sum() / len(annotated)


def dice_ce_loss(logits_BLIJK: Tensor, label_BIJK: Tensor, annotated: Sequence[int] | None = None) -> Tensor:
    """Half cross-entropy, half soft Dice over all classes and the background, with 1 added above and below, as He et al. (ISBI
    2023, https://arxiv.org/abs/2303.14357) train: mean over patches and classes of 1 - (2 sum(p y) + 1) / (sum p + sum y + 1).

    Args:
        logits_BLIJK: the model's output.
        label_BIJK: classes 0 ... L-1, or 255 where nobody knows; such voxels count in neither term.
        annotated: the foreground classes outlined here; None: all; none: nothing is learnt from these patches.
    """
    if annotated is not None and not annotated:
        return logits_BLIJK.sum() * 0.0
    if annotated is not None and len(annotated) < logits_BLIJK.shape[1] - 1:
        logits_BLIJK = marginal_logits(logits_BLIJK, annotated)
        position = torch.zeros(256, dtype=torch.long, device=label_BIJK.device)
        position[list(annotated)] = torch.arange(1, len(annotated) + 1, device=label_BIJK.device)
        position[UNKNOWN] = UNKNOWN
        label_BIJK = position[label_BIJK]
    cross_entropy = F.cross_entropy(logits_BLIJK, label_BIJK, ignore_index=UNKNOWN, reduction="none")
    known_BIJK = label_BIJK != UNKNOWN
    if bool(known_BIJK.all()):
        dice = DiceLoss(softmax=True, to_onehot_y=True, smooth_nr=1.0, smooth_dr=1.0)(logits_BLIJK, label_BIJK[:, None])
    else:
        # One-hot before masking: MONAI would mask first and read the masked voxels as background.
        one_hot_BLIJK = F.one_hot(label_BIJK * known_BIJK, logits_BLIJK.shape[1]).movedim(-1, 1)
        masked = MaskedDiceLoss(softmax=True, smooth_nr=1.0, smooth_dr=1.0)
        dice = masked(logits_BLIJK, one_hot_BLIJK, known_BIJK[:, None].to(logits_BLIJK.dtype))
    return 0.5 * (cross_entropy.sum() / known_BIJK.sum().clamp(min=1)) + 0.5 * dice
