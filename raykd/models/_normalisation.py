"""Which normalisation a network has: GroupNorm unless told otherwise, because running statistics travel and mix between sites
(Hsieh et al., ICML 2020, https://arxiv.org/abs/1910.00189).
"""

from __future__ import annotations

from typing import Any, Literal

from monai.networks.utils import replace_modules
from torch import nn

Normalisation = Literal["group", "instance", "batch"]


def num_groups(channels: int) -> int:
    """The largest number up to 8 that divides the channels."""
    return max(groups for groups in range(1, 9) if channels % groups == 0)


def monai_norm(norm: Normalisation, groups: int) -> tuple[str, dict[str, Any]]:
    """A normalisation in MONAI's words, with scale and shift for every channel.

    Args:
        norm: which.
        groups: of a GroupNorm; must divide the channels of all layers.
    """
    arguments: dict[str, dict[str, Any]] = {"group": {"num_groups": groups}, "instance": {"affine": True}, "batch": {}}
    return norm, arguments[norm]


def normalise_by(network: nn.Module, norm: Normalisation) -> None:
    """Puts a normalisation in place of every batch or instance normalisation, for networks of MONAI that give no choice."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.modules.batchnorm._NormBase):
            replace_modules(network, name, _layer(norm, module.num_features), strict_match=True)


def _layer(norm: Normalisation, channels: int) -> nn.Module:
    if norm == "group":
        return nn.GroupNorm(num_groups(channels), channels)
    return nn.InstanceNorm3d(channels, affine=True) if norm == "instance" else nn.BatchNorm3d(channels)
