"""U-Net of MONAI (Kerfoot et al., STACOM 2018, https://doi.org/10.1007/978-3-030-12029-0_40) with GroupNorm and anisotropic
strides.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from monai.networks.nets import UNet as MonaiUNet
from pydantic import Field
from torch import nn

from raykd.models._base import Dropout, Stride, TappedNetwork, level_strides
from raykd.models._normalisation import Normalisation, monai_norm
from raykd.scenario.fields import Strict
from raykd.scenario.registry import NETWORKS


@NETWORKS.register("unet")
class UNet(TappedNetwork):
    """Encoder and decoder of one convolution a level, joined by skip connections.

    Its first convolution is strided and its last one gives the logits, so that level 1 is already coarser than the image: the
    cheapest network, and the cheapest feature maps, of all. `encoder_l` is the output of the l-th strided convolution,
    `decoder_l` that of the transposed convolution back to its grid; the deepest encoder has no such counterpart.
    """

    class Settings(Strict):
        name: Literal["unet"]
        width: Annotated[int, Field(ge=4, le=128, multiple_of=4)] = 8
        """Channels of the first level; each level has twice as many as the one above."""
        strides: Annotated[tuple[Stride, ...], Field(min_length=1, max_length=6)] = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
        """Down-sampling along I, J, K from level to level; the default keeps thick slices at the first level."""
        norm: Normalisation = "group"
        """Of every convolution but the last; `group` has 4 groups."""
        dropout: Dropout = 0.0
        """Share of activations dropped after each convolution; a teacher needs some for Monte-Carlo uncertainty."""
        num_residual_units: Annotated[int, Field(ge=0, le=4)] = 0
        """Residual units in place of each single convolution."""

    def __init__(self, settings: Any, num_classes: int):
        super().__init__(settings, num_classes)
        # MONAI normalises its last residual unit too, whose channels are the classes.
        groups = math.gcd(4, num_classes) if settings.num_residual_units else 4
        network = MonaiUNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=num_classes,
            channels=tuple(settings.width * 2**level for level in range(len(settings.strides) + 1)),
            strides=settings.strides,
            num_res_units=settings.num_residual_units,
            norm=monai_norm(settings.norm, groups),
            dropout=settings.dropout,
        )
        block, encoders, decoders = network.model, [], []
        while isinstance(block, nn.Sequential) and len(block) == 3:
            encoders.append(block[0])
            decoders.append(block[2])
            block = block[1].submodule
        head, *decoders = decoders
        strides = level_strides(settings.strides)[1:]
        self.attach(network, head, encoders=encoders, bottleneck=block, decoders=decoders, strides=strides)
