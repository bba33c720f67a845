"""Attention U-Net of MONAI (Oktay et al., MIDL 2018, https://arxiv.org/abs/1804.03999)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from monai.networks.nets import AttentionUnet as MonaiAttentionUnet
from pydantic import Field
from torch import nn

from raykd.models._base import Dropout, Stride, TappedNetwork, level_strides
from raykd.models._normalisation import Normalisation, normalise_by
from raykd.scenario.fields import Strict
from raykd.scenario.registry import NETWORKS


@NETWORKS.register("attention_unet")
class AttentionUNet(TappedNetwork):
    """A U-Net from full resolution whose skip connections pass a gate: the coarser level says where to look."""

    class Settings(Strict):
        name: Literal["attention_unet"]
        width: Annotated[int, Field(ge=4, le=128, multiple_of=4)] = 16
        """Channels of the first level; each level has twice as many as the one above."""
        strides: Annotated[tuple[Stride, ...], Field(min_length=1, max_length=6)] = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
        """Down-sampling along I, J, K from level to level; the default keeps thick slices at the first step."""
        norm: Normalisation = "group"
        """`group` has, in each layer, the largest number of groups up to 8 that divides its channels."""
        dropout: Dropout = 0.0
        """Share of activations dropped after each convolution of the encoder and each merge of the decoder."""

    def __init__(self, settings: Any, num_classes: int):
        super().__init__(settings, num_classes)
        network = MonaiAttentionUnet(
            spatial_dims=3,
            in_channels=1,
            out_channels=num_classes,
            channels=[settings.width * 2**level for level in range(len(settings.strides) + 1)],
            strides=settings.strides,
            dropout=settings.dropout,
        )
        normalise_by(network, settings.norm)
        first, gated, head = network.model
        encoders, decoders = [first], [gated]
        while isinstance(gated.submodule, nn.Sequential):
            encoder, gated = gated.submodule
            encoders.append(encoder)
            decoders.append(gated)
        strides = level_strides(settings.strides)
        self.attach(network, head, encoders=encoders, bottleneck=gated.submodule, decoders=decoders, strides=strides)
