"""SegResNet of MONAI (Myronenko, BrainLes 2018, https://arxiv.org/abs/1810.11654), without its variational branch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from monai.networks.nets import SegResNet as MonaiSegResNet
from pydantic import Field
from torch import nn

from raykd.models._base import Dropout, TappedNetwork, level_strides
from raykd.models._normalisation import Normalisation, monai_norm, num_groups
from raykd.scenario.fields import Strict
from raykd.scenario.registry import NETWORKS


@NETWORKS.register("segresnet")
class SegResNet(TappedNetwork):
    """A large encoder of residual blocks and a small decoder, whose skip connections add.

    MONAI halves all three axes from level to level, so that thick slices are merged as thin ones are: there is no `strides`.
    Up-sampling is by transposed convolution, because the backward pass of the published interpolation differs from run to run on
    a GPU.
    """

    class Settings(Strict):
        name: Literal["segresnet"]
        width: Annotated[int, Field(ge=4, le=128, multiple_of=4)] = 8
        """Channels of the first level; each level has twice as many as the one above."""
        num_blocks: Annotated[tuple[Annotated[int, Field(ge=1, le=8)], ...], Field(min_length=2, max_length=6)] = (1, 2, 2, 4)
        """Residual blocks of each level of the encoder; the decoder has one at each."""
        norm: Normalisation = "group"
        """`group` has the largest number of groups up to 8 that divides the width."""
        dropout: Dropout = 0.0
        """Share of channels dropped after the first convolution, the only place where MONAI has it."""

    def __init__(self, settings: Any, num_classes: int):
        super().__init__(settings, num_classes)
        num_steps = len(settings.num_blocks) - 1
        network = MonaiSegResNet(
            spatial_dims=3,
            init_filters=settings.width,
            in_channels=1,
            out_channels=num_classes,
            dropout_prob=settings.dropout or None,
            norm=monai_norm(settings.norm, num_groups(settings.width)),
            blocks_down=settings.num_blocks,
            blocks_up=(1,) * num_steps,
            upsample_mode="deconv",
        )
        *encoders, bottleneck = cast(nn.ModuleList, network.down_layers)
        decoders = list(reversed(cast(nn.ModuleList, network.up_layers)))
        strides = level_strides([(2, 2, 2)] * num_steps)
        self.attach(network, network.conv_final, encoders=encoders, bottleneck=bottleneck, decoders=decoders, strides=strides)
