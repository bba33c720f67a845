"""DynUNet of MONAI: the U-Net of nnU-Net (Isensee et al., Nature Methods 2021, https://doi.org/10.1038/s41592-020-01008-z)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from monai.networks.blocks.dynunet_block import UnetOutBlock
from monai.networks.nets import DynUNet as MonaiDynUNet
from pydantic import Field

from raykd.models._base import Dropout, Stride, TappedNetwork, level_strides
from raykd.models._normalisation import Normalisation, monai_norm, num_groups
from raykd.scenario.fields import Strict
from raykd.scenario.registry import NETWORKS

MAX_CHANNELS = 320


@NETWORKS.register("dynunet")
class DynUNet(TappedNetwork):
    """Two convolutions a level down and up from full resolution, transposed convolutions between levels; no deep supervision."""

    class Settings(Strict):
        name: Literal["dynunet"]
        width: Annotated[int, Field(ge=4, le=128, multiple_of=4)] = 32
        """Channels of the first level; each level has twice as many as the one above, up to 320."""
        strides: Annotated[tuple[Stride, ...], Field(min_length=2, max_length=6)] = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
        """Down-sampling along I, J, K from level to level; the default keeps thick slices at the first step."""
        norm: Normalisation = "group"
        """`instance` as published; `group` has the largest number of groups up to 8 that divides the width."""
        dropout: Dropout = 0.0
        """Share of activations dropped after each convolution but the last."""
        is_residual: bool = False
        """Whether each level's two convolutions are a residual block."""

    def __init__(self, settings: Any, num_classes: int):
        super().__init__(settings, num_classes)
        strides = level_strides(settings.strides)
        network = MonaiDynUNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=num_classes,
            kernel_size=[3] * len(strides),
            strides=[(1, 1, 1), *settings.strides],
            upsample_kernel_size=settings.strides,
            filters=[min(settings.width * 2**level, MAX_CHANNELS) for level in range(len(strides))],
            dropout=settings.dropout or None,
            norm_name=monai_norm(settings.norm, num_groups(settings.width)),
            res_block=settings.is_residual,
        )
        # MONAI's drops logits too.
        network.output_block = UnetOutBlock(3, settings.width, num_classes)
        network.output_block.apply(network.initialize_weights)
        encoders, decoders = [network.input_block, *network.downsamples], list(reversed(network.upsamples))
        bottleneck, head = network.bottleneck, network.output_block
        # MONAI registers every block a second time, in the nested skip layers that its forward pass uses.
        del network.input_block, network.downsamples, network.bottleneck, network.upsamples
        self.attach(network, head, encoders=encoders, bottleneck=bottleneck, decoders=decoders, strides=strides)
