"""Swin UNETR of MONAI (Hatamizadeh et al., BrainLes 2021, https://arxiv.org/abs/2201.01266)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from monai.networks.nets import SwinUNETR as MonaiSwinUNETR
from monai.networks.nets.swin_unetr import WindowAttention
from pydantic import Field
from torch import Tensor

from raykd.models._base import Dropout, TappedNetwork, level_strides
from raykd.models._normalisation import Normalisation, monai_norm, num_groups
from raykd.scenario.fields import Strict
from raykd.scenario.registry import NETWORKS

WindowEdge = Annotated[int, Field(ge=2, le=16)]


@NETWORKS.register("swin_unetr")
class SwinUNETR(TappedNetwork):
    """An encoder of attention in shifted windows and a decoder of residual convolution blocks.

    MONAI halves all three axes five times, so that every edge must be a multiple of 32, thick slices too: there is no `strides`.
    There is no `encoder_5`, because the stage at 1/16 reaches the decoder through no block of its own.
    """

    class Settings(Strict):
        name: Literal["swin_unetr"]
        width: Annotated[int, Field(ge=12, le=96, multiple_of=12)] = 24
        """Channels of the first level; the deepest has 16 times as many."""
        window: tuple[WindowEdge, WindowEdge, WindowEdge] = (7, 7, 7)
        """Edges of the attention's windows along I, J, K, in tokens; a token of the first stage has 2 voxels along each axis."""
        norm: Normalisation = "group"
        """Of the convolution blocks, `instance` as published; `group` has the largest number of groups up to 8 that divides the
        width. The transformer keeps its layer normalisation."""
        dropout: Dropout = 0.0
        """Share of activations dropped in the transformer."""

    def __init__(self, settings: Any, num_classes: int):
        super().__init__(settings, num_classes)
        network = MonaiSwinUNETR(
            in_channels=1,
            out_channels=num_classes,
            feature_size=settings.width,
            window_size=settings.window,
            norm_name=monai_norm(settings.norm, num_groups(settings.width)),
            drop_rate=settings.dropout,
        )
        _keep_constants_at_home(network)
        self.attach(
            network,
            network.out,
            encoders=[network.encoder1, network.encoder2, network.encoder3, network.encoder4],
            bottleneck=network.encoder10,
            decoders=[network.decoder1, network.decoder2, network.decoder3, network.decoder4, network.decoder5],
            strides=level_strides([(2, 2, 2)] * 5),
        )


def _keep_constants_at_home(network: MonaiSwinUNETR) -> None:
    """Takes out of the state what follows from the window alone, which else would travel in every round."""
    for module in network.modules():
        if isinstance(module, WindowAttention):
            index = module.relative_position_index
            assert isinstance(index, Tensor)
            del module.relative_position_index
            module.register_buffer("relative_position_index", index, persistent=False)
