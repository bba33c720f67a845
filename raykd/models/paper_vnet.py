"""The V-Net of the reference method (He et al., ISBI 2023, https://arxiv.org/abs/2303.14357) as its code has it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from raykd.models.vnet import VNet
from raykd.scenario.registry import NETWORKS


@NETWORKS.register("paper_vnet")
class PaperVNet(VNet):
    """V-Net with a bias in every convolution, Kaiming's initial parameters and a narrow first level.

    The published one has `norm: batch`; its feature map is `bottleneck`, with 16 times `width` channels at 1/16 by default.
    """

    has_bias = True

    class Settings(VNet.Settings):
        name: Literal["paper_vnet"]  # type: ignore[assignment]
        width: Annotated[int, Field(ge=2, le=64, multiple_of=2)] = 4
        """Channels m of the first level; the deepest has 16 m [net_channel]."""

    def __init__(self, settings: Any, num_classes: int):
        super().__init__(settings, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight)
