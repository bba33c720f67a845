"""U-Net of MONAI (Kerfoot et al., STACOM 2018, https://doi.org/10.1007/978-3-030-12029-0_40) with GroupNorm and anisotropic
strides.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from monai.networks.nets import UNet as MonaiUNet
from pydantic import Field
from torch import Tensor, nn

from raykd.models._base import SegmentationNetwork
from raykd.scenario.fields import Strict
from raykd.scenario.registry import NETWORKS

Stride = tuple[Literal[1, 2], Literal[1, 2], Literal[1, 2]]


@NETWORKS.register("unet")
class UNet(SegmentationNetwork):
    """Encoder and decoder of one convolution a level, joined by skip connections.

    Layers: `encoder_0` ... `encoder_{n-1}` after each strided convolution, `bottleneck`, and `decoder_{n-1}` ... `decoder_1`
    after each transposed convolution. GroupNorm, because running statistics would travel and mix between sites.
    """

    class Settings(Strict):
        name: Literal["unet"]
        width: Annotated[int, Field(ge=4, le=128, multiple_of=4)] = 8
        """Channels of the first level; each level has twice as many as the one above."""
        strides: Annotated[tuple[Stride, ...], Field(min_length=1, max_length=6)] = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
        """Down-sampling along I, J, K from level to level; the default keeps thick slices at the first level."""
        dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
        """Share of activations dropped after each convolution; a teacher needs some for Monte-Carlo uncertainty."""
        num_residual_units: Annotated[int, Field(ge=0, le=4)] = 0
        """Residual units in place of each single convolution."""

    def __init__(self, settings: Any, num_classes: int):
        super().__init__(settings, num_classes)
        depth = len(settings.strides)
        # MONAI normalises its last residual unit too, whose channels are the classes.
        num_groups = math.gcd(4, num_classes) if settings.num_residual_units else 4
        self.network = MonaiUNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=num_classes,
            channels=tuple(settings.width * 2**level for level in range(depth + 1)),
            strides=settings.strides,
            num_res_units=settings.num_residual_units,
            norm=("group", {"num_groups": num_groups}),
            dropout=settings.dropout,
        )
        self._modules_by_layer: dict[str, nn.Module] = {}
        self.layers = {}
        stride = (1, 1, 1)
        block, level, decoders = self.network.model, 0, []
        while isinstance(block, nn.Sequential) and len(block) == 3:
            i, j, k = (a * b for a, b in zip(stride, settings.strides[level], strict=True))
            stride, above = (i, j, k), stride
            self._add(f"encoder_{level}", block[0], stride)
            decoders.append((f"decoder_{level}", block[2], above))
            block, level = block[1].submodule, level + 1
        self._add("bottleneck", block, stride)
        for name, module, at in reversed(decoders[1:]):
            self._add(name, module, at)

    def _add(self, name: str, module: nn.Module, stride: tuple[int, int, int]) -> None:
        # A plain dict, so that the parameters are not registered twice.
        self._modules_by_layer[name] = module
        self.layers[name] = stride

    def forward(self, image_BCIJK: Tensor) -> Tensor:
        logits: Tensor = self.network(image_BCIJK)
        return logits

    def forward_with_features(self, image_BCIJK: Tensor, layers: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        features: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            return lambda module, args, output: features.__setitem__(name, output)

        handles = [self._modules_by_layer[name].register_forward_hook(keep(name)) for name in layers]
        try:
            logits = self.network(image_BCIJK)
        finally:
            for handle in handles:
                handle.remove()
        return logits, features
