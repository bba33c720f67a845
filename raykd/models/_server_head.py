"""The server's part of a network that is split at a feature map."""

from __future__ import annotations

from torch import nn


class ServerHead(nn.Sequential):
    """Blocks of convolution, GroupNorm and ReLU on a feature map, then logits on its grid.

    Args:
        num_features: channels of the map.
        num_classes: L, with background.
        width: channels of the blocks, a multiple of 4.
        depth: number of blocks.
    """

    def __init__(self, num_features: int, num_classes: int, width: int, depth: int):
        parts: list[nn.Module] = []
        for level in range(depth):
            parts += [nn.Conv3d(width if level else num_features, width, 3, padding=1), nn.GroupNorm(4, width), nn.ReLU()]
        super().__init__(*parts, nn.Conv3d(width, num_classes, 1))
