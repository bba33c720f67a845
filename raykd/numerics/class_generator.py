"""A generator of pooled features by class, and what is learnt from it: data-free distillation between classifiers of one layer
(FedGen, Zhu et al., ICML 2021, https://arxiv.org/abs/2105.10056).

Shapes: B draws, N noise dimensions, F feature channels, L classes with background, K sites, I J K voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELLS = 4
"""Edge of the constant map that stands for a pooled feature: its two middle cells see no border through a kernel of three."""


class ClassGenerator(nn.Module):
    """G(noise, class): a feature of the layer before the classifier.

    Args:
        num_classes: L.
        noise_dimensions: N.
        width: hidden units.
        num_features: F.
    """

    def __init__(self, num_classes: int, noise_dimensions: int, width: int, num_features: int):
        super().__init__()
        self.num_classes, self.noise_dimensions = num_classes, noise_dimensions
        self.layers = nn.Sequential(
            nn.Linear(noise_dimensions + num_classes, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, num_features)
        )

    def forward(self, noise_BN: Tensor, label_B: Tensor) -> Tensor:
        feature_BF: Tensor = self.layers(torch.cat([noise_BN, F.one_hot(label_B, self.num_classes).to(noise_BN)], dim=1))
        return feature_BF


def class_logits(head: nn.Module, feature_BF: Tensor) -> Tensor:
    """What an output block makes of a pooled feature (B, L): its logits in the middle of a constant map, so that a head may be a
    convolution of any kind.
    """
    logits = head(feature_BF[:, :, None, None, None].expand(-1, -1, CELLS, CELLS, CELLS))
    i, j, k = (slice(edge // 2 - 1, edge // 2 + 1) for edge in logits.shape[2:])
    middle_BL: Tensor = logits[:, :, i, j, k].mean(dim=(2, 3, 4))
    return middle_BL


def diversity_loss(noise_BN: Tensor, feature_BF: Tensor) -> Tensor:
    """exp(-mean over pairs of d(noise) d(feature)), with mean squared differences of noise and mean absolute ones of features:
    small where unlike noise gives unlike features.
    """
    noise_BB = (noise_BN[:, None] - noise_BN[None]).square().mean(dim=2)
    feature_BB = (feature_BF[:, None] - feature_BF[None]).abs().mean(dim=2)
    return torch.exp(-(noise_BB * feature_BB).mean())


def ensemble_loss(logits: Sequence[Tensor], label_B: Tensor, share_KL: Tensor) -> Tensor:
    """Mean over draws of the sum over sites of a_ky times the cross-entropy of the site's logits.

    Args:
        logits: (B, L) by site.
        label_B: y.
        share_KL: a, each class's share over sites, which sums to one where a site has the class.
    """
    losses_KB = torch.stack([F.cross_entropy(own_BL, label_B, reduction="none") for own_BL in logits])
    return (share_KL[:, label_B] * losses_KB).sum(dim=0).mean()


def class_shares(count_KL: Tensor) -> Tensor:
    """Of counts by site and class, every site's share of a class; zeros where no site has it."""
    return count_KL / count_KL.sum(dim=0, keepdim=True).clamp(min=1.0)


def latent_loss(logits_BLIJK: Tensor, label_BIJK: Tensor, target_LL: Tensor) -> Tensor:
    """Mean over the classes that are there of KL(q_y || p_y), with p_y the mean probabilities over the voxels of class y.

    Args:
        label_BIJK: classes; those of 255 are unknown and count nowhere.
        target_LL: q, by class y the probabilities that the head gives to its generated features.
    """
    probs_BLIJK, terms = torch.softmax(logits_BLIJK, dim=1), []
    for index, target_L in enumerate(target_LL):
        is_class = label_BIJK == index
        if bool(is_class.any()):
            mean_L = probs_BLIJK.movedim(1, -1)[is_class].mean(dim=0).clamp(min=1e-8)
            terms.append((target_L * (target_L.clamp(min=1e-8).log() - mean_L.log())).sum())
    return torch.stack(terms).mean() if terms else logits_BLIJK.sum() * 0.0
