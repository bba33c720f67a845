"""A network whose voxels are classified by their nearest prototypes instead of, or beside, its own head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raykd.models._base import SegmentationNetwork
from raykd.numerics.feature_losses import match_grid
from raykd.numerics.known_classes import merge_probs
from raykd.numerics.local_prototypes import local_cosine_logits

NEVER = -1.0e4
"""Stands for minus infinity, which interpolation and the blending of windows would turn into no number."""


class PrototypeClassifier(SegmentationNetwork):
    """Scores every voxel by 20 cos(feature, prototype) as PANet does (Wang et al., ICCV 2019, https://arxiv.org/abs/1908.06391).

    Args:
        network: gives the features; it is not copied.
        layer: whose.
        prototypes: (P, F) by class from the background on; a class with none is never chosen.
        head_share: g in g p_head + (1 - g) p_prototypes, between 0 and 1.
        known: foreground classes that the head was taught; None: all. Others are part of its background.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        layer: str,
        prototypes: Sequence[Tensor],
        *,
        head_share: float = 0.0,
        known: Sequence[int] | None = None,
    ):
        super().__init__(network.settings, network.num_classes)
        self.network, self.layers = network, network.layers
        self._layer, self._head_share, self._known = layer, head_share, known
        self._prototypes = list(prototypes)

    @property
    def head(self) -> nn.Module:
        return self.network.head

    def forward(self, image_BCIJK: Tensor) -> Tensor:
        return self.forward_with_features(image_BCIJK, ())[0]

    def forward_with_features(self, image_BCIJK: Tensor, layers: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        logits_BLIJK, features = self.network.forward_with_features(image_BCIJK, tuple({*layers, self._layer}))
        feature = features[self._layer]
        scores = local_cosine_logits(feature, [prototype_PF.to(feature.device) for prototype_PF in self._prototypes])
        scores_BLIJK = match_grid(scores.clamp(min=NEVER), image_BCIJK.shape[2:])
        kept = {name: features[name] for name in layers}
        if self._head_share == 0.0:
            return scores_BLIJK, kept
        head = merge_probs(torch.softmax(logits_BLIJK, dim=1), self._known)
        probs = self._head_share * head + (1.0 - self._head_share) * torch.softmax(scores_BLIJK, dim=1)
        return probs.clamp(min=1e-12).log(), kept
