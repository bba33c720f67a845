"""What a model learns from patches that nobody outlined: its own or a teacher's answers, where they can be believed.

Shapes: B patches, L classes with background, C channels, I J K voxels. Pseudo-labels are label maps as any other: classes, or 255
where nothing is believed. Targets carry no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd.numerics.perturbation import additive_noise
from raykd.numerics.prototypes import class_means
from raykd.numerics.segmentation_losses import UNKNOWN


def pseudo_labels(probs_BLIJK: Tensor, threshold: float) -> Tensor:
    """The most probable class where its probability is at least `threshold`, 255 elsewhere: (B, I, J, K), int64 (FixMatch, Sohn et
    al., NeurIPS 2020, https://arxiv.org/abs/2001.07685).

    Args:
        threshold: tau; 0 believes every voxel, above 1 none.
    """
    highest_BIJK, class_BIJK = probs_BLIJK.detach().max(dim=1)
    return torch.where(highest_BIJK >= threshold, class_BIJK, UNKNOWN)


def pseudo_label_loss(logits_BLIJK: Tensor, pseudo_BIJK: Tensor) -> Tensor:
    """Cross-entropy with pseudo-labels, summed over the voxels that are believed and divided by the number of all voxels, as
    FixMatch has it: the less is believed, the less it weighs.
    """
    return F.cross_entropy(logits_BLIJK, pseudo_BIJK, ignore_index=UNKNOWN, reduction="none").sum() / pseudo_BIJK.numel()


def believed_share(pseudo_BIJK: Tensor) -> float:
    """Share of the voxels that have a pseudo-label."""
    return float((pseudo_BIJK != UNKNOWN).double().mean())


def mix_share(alpha: float, rng: torch.Generator) -> float:
    """One draw from Beta(alpha, alpha), the share of the first of two mixed images (mixup, Zhang et al., ICLR 2018,
    https://arxiv.org/abs/1710.09412).

    Args:
        alpha: > 0; the smaller, the nearer to 0 or 1.
        rng: advances by one draw.
    """
    seed = int(torch.randint(2**62, (), generator=rng))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def mixed_label_loss(logits_BLIJK: Tensor, first_BIJK: Tensor, second_BIJK: Tensor, share: float) -> Tensor:
    """share * CE(first) + (1 - share) * CE(second) of the logits of share * first + (1 - share) * second image, over all voxels.

    Args:
        first_BIJK: pseudo-labels; a voxel that is not believed here counts in neither term, so that nothing is learnt from a
            patch that says nothing.
        second_BIJK: those of the images mixed in.
        share: lambda, in [0, 1].
    """
    second_BIJK = torch.where(first_BIJK == UNKNOWN, UNKNOWN, second_BIJK)
    return share * pseudo_label_loss(logits_BLIJK, first_BIJK) + (1.0 - share) * pseudo_label_loss(logits_BLIJK, second_BIJK)


def mean_response(model: nn.Module, image_BCIJK: Tensor, num_passes: int, noise: float, rng: torch.Generator) -> Tensor:
    """The mean over passes of a model's probabilities, each pass with fresh input noise and with whatever dropout is switched on:
    (B, L, I, J, K), without gradient (UA-MT, Yu et al., MICCAI 2019, https://arxiv.org/abs/1907.07034).

    Args:
        num_passes: T, >= 1.
        noise: standard deviation of the noise on the z-scored image, clipped at +- itself.
    """
    with torch.no_grad():
        passes = (torch.softmax(model(additive_noise(image_BCIJK, noise, rng)), dim=1) for _ in range(num_passes))
        total = sum(passes, start=torch.zeros((), device=image_BCIJK.device))
        return total / num_passes


def relation_matrix(sums_LL: Tensor, count_L: Tensor, temperature: float) -> Tensor:
    """By class, the softmax of its mean logits / temperature: (L, L), which class a model takes it for. A class without a voxel has
    a row of zeros (FedIRM, Liu et al., MICCAI 2021, https://github.com/liuquande/FedIRM).

    Args:
        sums_LL: logits summed over the voxels of each class, and
        count_L: the number of these voxels, both as `prototypes.class_sums` of the logits gives them.
        temperature: > 0.
    """
    rows_LL = torch.softmax(class_means(sums_LL, count_L) / temperature, dim=1)
    return rows_LL * (count_L > 0)[:, None]


def mean_relations(matrices: Sequence[Tensor]) -> Tensor:
    """The mean of relation matrices, row by row over those that have the row; zeros where none has it."""
    stacked_NLL = torch.stack(list(matrices)).double()
    count_L1 = (stacked_NLL.sum(dim=2) > 0).sum(dim=0)[:, None]
    return (stacked_NLL.sum(dim=0) / count_L1.clamp(min=1)).to(matrices[0].dtype)


def relation_loss(own_LL: Tensor, shared_LL: Tensor) -> Tensor:
    """The mean over classes that both matrices have of (KL(own || shared) + KL(shared || own)) / 2; zero where they share none."""
    both_L = (own_LL.detach().sum(dim=1) > 0) & (shared_LL.sum(dim=1) > 0)
    own, shared = (matrix[both_L].clamp(min=1e-8) for matrix in (own_LL, shared_LL))
    divergence = ((own - shared) * (own.log() - shared.log())).sum()  # both directions add up to this
    return 0.5 * divergence / both_L.sum().clamp(min=1)
