"""The U-Net gives logits and, by name, feature maps at the strides that it states; its parameters depend on a seed alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from raykd.models._base import SegmentationNetwork, build_network, set_dropout_only_training
from raykd.models.unet import UNet
from raykd.numerics.rng import generator

NUM_CLASSES = 3
SHALLOW = [[2, 1, 2]]
UNEVEN = [[1, 2, 2], [1, 2, 1], [2, 1, 2], [2, 2, 2]]


def settings(**values: Any) -> UNet.Settings:
    return UNet.Settings.model_validate_json(json.dumps({"name": "unet", "width": 4, **values}))


def network(seed: int = 0, **values: Any) -> SegmentationNetwork:
    return build_network(settings(**values), NUM_CLASSES, seed)


def image(shape: tuple[int, int, int], num_patches: int = 2) -> torch.Tensor:
    return torch.randn((num_patches, 1, *shape), generator=generator(0, "image"))


def test_the_default_keeps_thick_slices_at_the_first_level() -> None:
    assert network().layers == {
        "encoder_1": (1, 2, 2),
        "encoder_2": (2, 4, 4),
        "encoder_3": (4, 8, 8),
        "bottleneck": (4, 8, 8),
        "decoder_2": (2, 4, 4),
        "decoder_1": (1, 2, 2),
    }


@pytest.mark.parametrize(("strides", "total"), [(SHALLOW, (2, 1, 2)), (UNEVEN, (4, 8, 8))])
def test_the_total_stride_is_the_product_along_each_axis(strides: list[list[int]], total: tuple[int, int, int]) -> None:
    assert network(strides=strides).total_stride == total


@pytest.mark.parametrize("strides", [SHALLOW, UNEVEN])
@pytest.mark.parametrize("num_residual_units", [0, 2])
def test_every_named_feature_map_has_its_stride_and_channels(strides: list[list[int]], num_residual_units: int) -> None:
    net = network(strides=strides, num_residual_units=num_residual_units).eval()
    shape = (8, 16, 16)
    with torch.no_grad():
        logits, features = net.forward_with_features(image(shape), tuple(net.layers))
    assert logits.shape == (2, NUM_CLASSES, *shape)
    for layer, stride in net.layers.items():
        place, _, level = layer.partition("_")
        # Level l has 4 * 2^(l - 1) channels, the bottleneck twice those of the last level.
        doublings = len(strides) if place == "bottleneck" else int(level) - 1
        assert features[layer].shape == (2, 4 * 2**doublings, *(n // s for n, s in zip(shape, stride, strict=True)))


def test_logits_are_the_same_with_and_without_features() -> None:
    net, x = network().eval(), image((4, 8, 8))
    with torch.no_grad():
        assert torch.equal(net.forward_with_features(x, ("bottleneck", "decoder_1"))[0], net(x))


def test_only_the_layers_asked_for_are_given_and_nothing_stays_attached() -> None:
    net = network().eval()
    _, features = net.forward_with_features(image((4, 8, 8)), ("decoder_1",))
    assert list(features) == ["decoder_1"]
    assert not any(module._forward_hooks for module in net.modules())


def test_hooks_are_removed_after_a_failed_pass() -> None:
    net = network()
    with pytest.raises(RuntimeError, match="channels"):
        net.forward_with_features(torch.zeros(2, 5, 4, 8, 8), ("bottleneck",))
    assert not any(module._forward_hooks for module in net.modules())


def test_a_gradient_flows_through_feature_maps() -> None:
    net = network()
    _, features = net.forward_with_features(image((4, 8, 8)), ("encoder_2",))
    features["encoder_2"].square().sum().backward()
    touched = {name for name, parameter in net.named_parameters() if parameter.grad is not None and bool(parameter.grad.any())}
    assert touched and len(touched) < len(list(net.parameters()))


def test_parameters_depend_on_the_seed_alone() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = network(5).state_dict()
        torch.manual_seed(2)
        again, other = network(5).state_dict(), network(6).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_building_a_network_gives_the_global_generator_back() -> None:
    before = torch.get_rng_state()
    network(5)
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_travels_but_parameters_each_once() -> None:
    net = network(dropout=0.2)
    assert not list(net.buffers())
    assert list(net.state_dict()) == [name for name, _ in net.named_parameters()]
    assert all(name.startswith("network.") for name in net.state_dict())


def test_a_patch_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    net, x = network(), image((4, 8, 8), 3)
    with torch.no_grad():
        torch.testing.assert_close(net(x)[1:], net(x[1:]), rtol=1e-4, atol=1e-5)


def test_monte_carlo_dropout_leaves_all_but_dropout_in_evaluation_mode() -> None:
    net = network(dropout=0.3)
    net.train()
    set_dropout_only_training(net)
    training = {type(module).__name__ for module in net.modules() if module.training}
    assert training == {"Dropout"}
    with torch.no_grad():
        assert not torch.equal(net(image((4, 8, 8))), net(image((4, 8, 8))))


@pytest.mark.parametrize(
    "values", [{"width": 6}, {"width": 0}, {"strides": []}, {"strides": [[1, 3, 1]]}, {"dropout": 1.0}, {"depth": 3}]
)
def test_settings_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**values)
