"""The V-Nets are MONAI's at the width it has, and the reference method's at the width that it has."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from monai.networks.nets import VNet as MonaiVNet
from torch import nn

from raykd.models._base import SegmentationNetwork, build_network
from raykd.models._normalisation import num_groups
from raykd.numerics.rng import generator
from raykd.scenario.registry import NETWORKS


def network(name: str, num_classes: int, **values: Any) -> SegmentationNetwork:
    return build_network(NETWORKS.get(name).Settings.model_validate_json(json.dumps({"name": name, **values})), num_classes, 0)


def image(*shape: int) -> torch.Tensor:
    return torch.randn((2, 1, *shape), generator=generator(0, "image"))


def num_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("width", "published"), [(4, 2_855_420), (2, 715_502)])
def test_the_references_v_net_has_its_number_of_parameters(width: int, published: int) -> None:
    net = network("paper_vnet", 4, width=width, norm="batch")
    assert num_of(net) == published


def test_the_references_v_net_has_its_number_of_buffer_elements() -> None:
    net = network("paper_vnet", 4, width=4, norm="batch")
    assert sum(buffer.numel() for buffer in net.buffers()) == 1_360


def test_group_normalisation_has_as_many_parameters_and_no_buffer() -> None:
    net = network("paper_vnet", 4)
    assert num_of(net) == 2_855_420
    assert list(net.buffers()) == []


def test_the_references_feature_map_is_the_deepest_stage_after_its_last_elu() -> None:
    net = network("paper_vnet", 4, width=2).eval()
    shape = (16, 32, 48)
    with torch.inference_mode():
        feature = net.forward_with_features(image(*shape), ("bottleneck",))[1]["bottleneck"]
    assert feature.shape == (2, 16 * 2, 1, 2, 3)
    # An ELU gives nothing under -1, and below zero what a ReLU would not.
    assert -1.0 <= float(feature.min()) < 0.0


def test_convolutions_of_the_reference_start_as_kaiming_says() -> None:
    """Zero mean, variance 2 / fan-in: over 8 * 8 * 125 weights of one layer the standard error of the variance is 1.6 %."""
    net = network("paper_vnet", 4, width=4)
    weight = next(module.weight.detach() for module in net.modules() if isinstance(module, nn.Conv3d) and module.in_channels == 8)
    assert weight.shape == (8, 8, 5, 5, 5)
    assert float(weight.var()) == pytest.approx(2 / (8 * 125), rel=0.1)


def test_dropout_is_where_the_reference_has_it() -> None:
    """On four skip connections, in the two deepest stages down and before the two deepest up, of whole channels."""
    net = network("paper_vnet", 4)
    dropouts = [module for module in net.modules() if isinstance(module, nn.Dropout3d)]
    assert [module.p for module in dropouts] == [0.5] * 8


def test_at_its_width_the_v_net_is_monais() -> None:
    net = network("vnet", 3, norm="batch").eval()
    monai = MonaiVNet(spatial_dims=3, in_channels=1, out_channels=3).eval()
    ours = {key.removeprefix("network."): value for key, value in net.state_dict().items()}
    places = {"stem": "in_tr", "head": "out_tr", "down": "down_tr", "up": "up_tr"}
    levels = {"0": "32", "1": "64", "2": "128", "3": "256"}

    def theirs(key: str) -> str:
        part, *rest = key.split(".")
        return ".".join([places[part] + levels[rest[0]], *rest[1:]] if part in ("down", "up") else [places[part], *rest])

    monai.load_state_dict({theirs(key): value for key, value in ours.items()})
    x = image(16, 16, 16)
    with torch.inference_mode():
        assert torch.equal(net(x), monai(x))


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (3, 3), (4, 4), (8, 8), (11, 1), (12, 6), (64, 8)])
def test_groups_are_the_most_up_to_eight_that_divide_the_channels(channels: int, groups: int) -> None:
    assert num_groups(channels) == groups
