"""What a network promises, and how one is built from its block of the scenario."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from raykd.numerics.rng import seeded_layers
from raykd.scenario.fields import Strict
from raykd.scenario.registry import NETWORKS


class SegmentationNetwork(nn.Module, ABC):
    """A network that gives logits and, by name, the feature maps on the way to them.

    Args:
        settings: the validated block of the scenario.
        num_classes: L, with background.

    Attributes:
        layers: strides (I, J, K) of every named feature map, from the input's side to the output's.
    """

    Settings: ClassVar[type[Strict]]
    layers: dict[str, tuple[int, int, int]]

    def __init__(self, settings: Any, num_classes: int):
        super().__init__()
        self.settings = settings
        self.num_classes = num_classes

    @abstractmethod
    def forward(self, image_BCIJK: Tensor) -> Tensor:
        """Logits (B, L, I, J, K) for a grid whose edges are multiples of `total_stride`."""

    @abstractmethod
    def forward_with_features(self, image_BCIJK: Tensor, layers: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits and the feature maps of the named layers."""

    @property
    def total_stride(self) -> tuple[int, int, int]:
        """The multiple that every edge of an input must be."""
        i, j, k = (max(stride[axis] for stride in self.layers.values()) for axis in range(3))
        return i, j, k


def build_network(settings: Any, num_classes: int, seed: int) -> SegmentationNetwork:
    """A network with initial parameters that depend on `seed` alone.

    Args:
        settings: a validated network block.
        num_classes: L, with background.
        seed: of the initial parameters.
    """
    with seeded_layers(torch.Generator().manual_seed(seed)):
        network: SegmentationNetwork = NETWORKS.get(settings.name)(settings, num_classes)
    return network


def set_dropout_only_training(network: nn.Module) -> None:
    """Evaluation mode for all but the dropout layers: Monte-Carlo dropout without touching any normalisation."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.train()
