"""V-Net (Milletari, Navab and Ahmadi, 3DV 2016, https://arxiv.org/abs/1606.04797) from the transitions of MONAI's."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from monai.networks.nets.vnet import DownTransition, InputTransition, LUConv, OutputTransition, UpTransition
from pydantic import Field
from torch import Tensor, nn

from raykd.models._base import Dropout, Stride, TappedNetwork, level_strides
from raykd.models._normalisation import Normalisation, normalise_by
from raykd.scenario.fields import Strict
from raykd.scenario.registry import NETWORKS

ELU = ("elu", {"inplace": True})
CONVOLUTIONS_DOWN, CONVOLUTIONS_UP = (1, 2, 3, 2), (1, 1, 2, 2)
"""Of each stage, the finest first."""


@NETWORKS.register("vnet")
class VNet(TappedNetwork):
    """Residual stages of 5 x 5 x 5 convolutions at five levels, with dropout on every skip connection.

    `bottleneck` is the deepest stage down after its last ELU: 16 times `width` channels on the coarsest grid.
    With `width: 16`, `norm: batch` and the default strides and dropout it is MONAI's VNet.
    """

    has_bias: ClassVar[bool] = False
    """Whether convolutions before a normalisation have a bias."""

    class Settings(Strict):
        name: Literal["vnet"]
        width: Annotated[int, Field(ge=2, le=64, multiple_of=2)] = 16
        """Channels m of the first level; the deepest has 16 m."""
        strides: tuple[Stride, Stride, Stride, Stride] = ((2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
        """Down-sampling along I, J, K from level to level; 1 along the axis of thick slices keeps them."""
        norm: Normalisation = "group"
        """Of every convolution but the last; `batch` as published."""
        dropout: Dropout = 0.5
        """Share of channels dropped on every skip connection, in the two deepest stages down and before the two deepest up."""

    def __init__(self, settings: Any, num_classes: int):
        super().__init__(settings, num_classes)
        network = Transitions(settings, num_classes, self.has_bias)
        normalise_by(network, settings.norm)
        encoders, strides = [network.stem, *network.down], level_strides(settings.strides)
        decoders = list(network.up)
        self.attach(network, network.head, encoders=encoders[:-1], bottleneck=encoders[-1], decoders=decoders, strides=strides)


class Transitions(nn.Module):
    """MONAI's VNet at any width and strides.

    Args:
        settings: of the network.
        num_classes: L, with background.
        has_bias: as above.
    """

    def __init__(self, settings: VNet.Settings, num_classes: int, has_bias: bool):
        super().__init__()
        self.stem = InputTransition(3, 1, settings.width, ELU, bias=has_bias)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, stride in enumerate(settings.strides):
            self.down.append(_down(settings, level, stride, has_bias))
            self.up.append(_up(settings, level, stride, has_bias))
        self.head = OutputTransition(3, 2 * settings.width, num_classes, ELU, bias=has_bias)

    def forward(self, image_BCIJK: Tensor) -> Tensor:
        maps = [self.stem(image_BCIJK)]
        for down in self.down:
            maps.append(down(maps[-1]))
        x = maps.pop()
        for up in reversed(self.up):
            x = up(x, maps.pop())
        logits: Tensor = self.head(x)
        return logits


def _down(settings: VNet.Settings, level: int, stride: Stride, has_bias: bool) -> DownTransition:
    above = settings.width * 2**level
    dropout = settings.dropout if level >= 2 else None
    stage = DownTransition(3, above, CONVOLUTIONS_DOWN[level], ELU, dropout_prob=dropout, bias=has_bias)
    if stride != (2, 2, 2):
        stage.down_conv = nn.Conv3d(above, 2 * above, kernel_size=stride, stride=stride, bias=has_bias)
    return stage


def _up(settings: VNet.Settings, level: int, stride: Stride, has_bias: bool) -> UpTransition:
    below = settings.width * 2 ** min(level + 2, 4)
    channels, count = settings.width * 2 ** (level + 1), CONVOLUTIONS_UP[level]
    dropout = (settings.dropout if level >= 2 else None, settings.dropout)
    stage = UpTransition(3, below, channels, count, ELU, dropout_prob=dropout)
    if stride != (2, 2, 2):
        stage.up_conv = nn.ConvTranspose3d(below, channels // 2, kernel_size=stride, stride=stride)
    if has_bias:  # which MONAI has no switch for on the way up
        stage.ops = nn.Sequential(*(LUConv(3, channels, ELU, bias=True) for _ in range(count)))
    return stage
