"""What every registered network promises: logits, named feature maps where it says they are, the same numbers from the same seed,
and a state that travels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from raykd.models._base import SegmentationNetwork, build_network, head_keys, norm_keys, set_dropout_only_training
from raykd.numerics.params import load_state, state_of
from raykd.numerics.rng import generator, seeded_layers
from raykd.scenario.errors import RaykdError
from raykd.scenario.registry import NETWORKS

NUM_CLASSES = 3
NAMES = NETWORKS.names()
SMALLEST: dict[str, dict[str, Any]] = {
    "unet": {"width": 4},
    "vnet": {"width": 2},
    "paper_vnet": {"width": 2},
    "segresnet": {"width": 4, "num_blocks": [1, 1, 1]},
    "dynunet": {"width": 4},
    "attention_unet": {"width": 4},
    "swin_unetr": {"width": 12, "window": [4, 4, 4]},
}
WITH_STRIDES = [name for name in NAMES if "strides" in NETWORKS.get(name).Settings.model_fields]
UNEVEN = {1: [2, 1, 2], 2: [1, 2, 2], 3: [1, 2, 1], 4: [2, 2, 1]}
every_network = pytest.mark.parametrize("name", NAMES)
every_norm = pytest.mark.parametrize("norm", ["group", "instance", "batch"])


def block(name: str, **values: Any) -> Any:
    return NETWORKS.get(name).Settings.model_validate_json(json.dumps({"name": name, **SMALLEST[name], **values}))


def network(name: str, seed: int = 0, **values: Any) -> SegmentationNetwork:
    return build_network(block(name, **values), NUM_CLASSES, seed)


def image(shape: tuple[int, ...], num_patches: int = 2) -> Tensor:
    return torch.randn((num_patches, 1, *shape), generator=generator(0, "image"))


def gradients(net: SegmentationNetwork, shape: tuple[int, ...]) -> dict[str, Tensor | None]:
    net.zero_grad()
    with seeded_layers(generator(0, "layers")):
        net(image(shape)).square().mean().backward()
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def strides_of_edges(layer: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n // m for n, m in zip(shape, layer.shape[2:], strict=True))


@every_network
def test_registered_under_the_name_of_its_file(name: str) -> None:
    assert NETWORKS.get(name).__module__ == f"raykd.models.{name}"


def test_the_networks_of_the_toolkit_are_there() -> None:
    assert {"unet", "vnet", "segresnet", "dynunet", "attention_unet", "swin_unetr", "paper_vnet"} <= set(NAMES)


@every_network
def test_settings_need_no_more_than_the_name_and_refuse_what_they_do_not_know(name: str) -> None:
    settings = NETWORKS.get(name).Settings
    assert settings(name=name).name == name
    with pytest.raises(ValidationError, match="no_such_key"):
        settings(name=name, no_such_key=1)
    with pytest.raises(ValidationError, match="name"):
        settings(name="another")


@every_network
def test_logits_have_the_grid_of_any_image_of_whole_strides(name: str) -> None:
    net = network(name).eval()
    i, j, k = net.total_stride
    with torch.inference_mode():
        for shape in [(i, j, k), (i, 2 * j, k)]:
            assert net(image(shape)).shape == (2, NUM_CLASSES, *shape)


@every_network
def test_feature_maps_have_the_strides_that_are_declared(name: str) -> None:
    net = network(name).eval()
    i, j, k = net.total_stride
    shape = (i, j, 2 * k)
    with torch.inference_mode():
        features = net.forward_with_features(image(shape), tuple(net.layers))[1]
    assert {layer: strides_of_edges(value, shape) for layer, value in features.items()} == net.layers


@every_network
def test_layers_are_named_alike_from_the_finest_encoder_to_the_finest_decoder(name: str) -> None:
    layers = list(network(name).layers)
    middle = layers.index("bottleneck")
    encoders, decoders = layers[:middle], layers[middle + 1 :]
    assert encoders == [f"encoder_{level}" for level in range(1, len(encoders) + 1)]
    assert decoders == [f"decoder_{level}" for level in range(len(decoders), 0, -1)]
    assert encoders and decoders


@every_network
def test_an_encoder_and_the_decoder_of_its_level_lie_on_one_grid(name: str) -> None:
    layers = network(name).layers
    levels = range(1, len(layers))
    both = [level for level in levels if {f"encoder_{level}", f"decoder_{level}"} <= layers.keys()]
    assert both[0] == 1
    assert all(layers[f"encoder_{level}"] == layers[f"decoder_{level}"] for level in both)
    assert layers["bottleneck"] == network(name).total_stride


@every_network
def test_channels_double_towards_the_bottleneck(name: str) -> None:
    net = network(name).eval()
    with torch.inference_mode():
        features = net.forward_with_features(image(net.total_stride), tuple(net.layers))[1]
    channels = {layer: value.shape[1] for layer, value in features.items()}
    width = SMALLEST[name]["width"]
    num_levels = {"segresnet": 3, "vnet": 5, "paper_vnet": 5, "swin_unetr": 5}.get(name, 4)
    assert channels["encoder_1"] == width
    assert channels["bottleneck"] == width * 2 ** (num_levels - 1)
    assert channels["decoder_1"] == (2 * width if "vnet" in name else width)


@every_network
def test_logits_are_the_same_with_and_without_features(name: str) -> None:
    net = network(name).eval()
    x = image(net.total_stride)
    with torch.inference_mode():
        assert torch.equal(net.forward_with_features(x, tuple(net.layers))[0], net(x))
    assert not any(module._forward_hooks for module in net.modules())


@every_network
def test_no_later_layer_writes_into_a_feature_map(name: str) -> None:
    """An activation in place after the tap would hand out other numbers than the layer gave."""
    net = network(name).eval()
    given: dict[str, Tensor] = {}
    taps: dict[str, nn.Module] = net._taps  # type: ignore[assignment]
    for layer, module in taps.items():
        module.register_forward_hook(lambda module, args, output, layer=layer: given.__setitem__(layer, output.clone()))
    with torch.inference_mode():
        features = net.forward_with_features(image(net.total_stride), tuple(net.layers))[1]
    assert features.keys() == given.keys()
    assert all(torch.equal(features[layer], given[layer]) for layer in given)


@every_network
def test_the_head_turns_the_last_feature_map_into_logits(name: str) -> None:
    net = network(name).eval()
    with torch.inference_mode():
        logits, features = net.forward_with_features(image(net.total_stride), ("decoder_1", "encoder_1"))
        last = features["decoder_1"]
        # The U-Net's last block joins the skip connection itself.
        given = torch.cat([features["encoder_1"], last], dim=1) if name == "unet" else last
        assert torch.equal(net.head(given), logits)


@every_network
def test_parameters_depend_on_the_seed_alone(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = network(name, 5).state_dict()
        torch.manual_seed(2)
        before = torch.get_rng_state()
        again, other = network(name, 5).state_dict(), network(name, 6).state_dict()
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@every_network
def test_a_gradient_reaches_every_parameter(name: str) -> None:
    net = network(name)
    shape = tuple(2 * n for n in net.total_stride) if name != "swin_unetr" else net.total_stride
    found = gradients(net, shape)
    assert [key for key, value in found.items() if value is None or not value.isfinite().all()] == []
    # A normalisation of one channel takes away what a bias before it adds, and its gradient with it.
    assert [key for key, value in found.items() if value is not None and not value.any() and not key.endswith("bias")] == []


@every_network
def test_every_parameter_is_in_the_state_once_and_nothing_is_beside_it(name: str) -> None:
    net = network(name, norm="group")
    assert list(net.state_dict()) == [key for key, _ in net.named_parameters()]
    assert len({parameter.data_ptr() for parameter in net.state_dict().values()}) == len(net.state_dict())


@every_network
@every_norm
def test_the_state_round_trips_through_a_payload(name: str, norm: str) -> None:
    one, other = network(name, 1, norm=norm), network(name, 2, norm=norm)
    shape = (one.total_stride[0], one.total_stride[1], 2 * one.total_stride[2])
    with seeded_layers(generator(0, "layers")), torch.no_grad():
        one(image(shape))  # running statistics move away from their start
    load_state(other, state_of(one))
    with torch.inference_mode():
        assert torch.equal(one.eval()(image(shape)), other.eval()(image(shape)))


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@every_network
def test_two_backward_passes_under_deterministic_algorithms_agree_to_the_last_bit(name: str) -> None:
    net = network(name, dropout=0.2)
    with deterministic():
        first = {key: value.clone() for key, value in gradients(net, net.total_stride).items() if value is not None}
        again = gradients(net, net.total_stride)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)  # type: ignore[arg-type]


@every_network
def test_nothing_is_interpolated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's backward pass of trilinear interpolation adds up in another order at every run on a GPU."""

    def refuse(*args: Any, **values: Any) -> Tensor:
        raise AssertionError("interpolate was called")

    net = network(name)
    monkeypatch.setattr(F, "interpolate", refuse)
    assert not any(isinstance(module, nn.Upsample) for module in net.modules())
    gradients(net, net.total_stride)


@every_network
@every_norm
def test_norm_keys_are_those_of_the_normalisation_asked_for(name: str, norm: str) -> None:
    net = network(name, norm=norm)
    wanted = {"group": nn.GroupNorm, "instance": nn.InstanceNorm3d, "batch": nn.BatchNorm3d}
    found = {type(module) for module in net.modules() if isinstance(module, tuple(wanted.values()))}
    assert found == {wanted[norm]}
    owners = {key: type(net.get_submodule(key.rpartition(".")[0])).__name__ for key in net.state_dict()}
    assert norm_keys(net) == {key for key, owner in owners.items() if "Norm" in owner}
    assert any(key.endswith("running_mean") for key in norm_keys(net)) == (norm == "batch")


@every_network
def test_only_the_head_moves_where_only_its_keys_are_trained(name: str) -> None:
    net = network(name).eval()
    keys, x = head_keys(net), image(net.total_stride)
    assert keys < net.state_dict().keys()
    with torch.inference_mode():
        before = net.forward_with_features(x, ("decoder_1",))
        for key, parameter in net.named_parameters():
            if key in keys:
                parameter.add_(1.0)
        after = net.forward_with_features(x, ("decoder_1",))
    assert torch.equal(before[1]["decoder_1"], after[1]["decoder_1"])
    assert not torch.equal(before[0], after[0])


def test_norm_keys_hold_layer_normalisation_too() -> None:
    net = network("swin_unetr")
    assert "network.swinViT.layers1.0.blocks.0.norm1.weight" in norm_keys(net)
    assert "network.swinViT.layers1.0.blocks.0.mlp.linear1.weight" not in norm_keys(net)


@every_network
def test_dropout_is_on_in_monte_carlo_passes_and_normalisation_is_not(name: str) -> None:
    net = network(name, dropout=0.5, norm="batch").train()
    set_dropout_only_training(net)
    statistics = {key: value.clone() for key, value in net.state_dict().items() if "running" in key}
    x = image(net.total_stride)
    with torch.no_grad(), seeded_layers(generator(0, "layers")):
        assert not torch.equal(net(x), net(x))
    assert statistics and all(torch.equal(net.state_dict()[key], value) for key, value in statistics.items())


@every_network
def test_without_dropout_a_training_pass_is_no_lottery(name: str) -> None:
    net = network(name, dropout=0.0).train()
    x = image(net.total_stride)
    with torch.no_grad():
        assert torch.equal(net(x), net(x))


@every_network
def test_dropout_never_drops_logits(name: str) -> None:
    net = network(name, dropout=0.5).train()
    dropouts = [module for module in net.head.modules() if isinstance(module, nn.modules.dropout._DropoutNd)]
    assert [module for module in dropouts if module.p] == []


@every_network
def test_an_image_that_is_not_of_whole_strides_is_refused_with_what_to_change(name: str) -> None:
    net = network(name)
    i, j, k = net.total_stride
    with pytest.raises(RaykdError, match=rf"{name} .*multiples of \({i}, {j}, {k}\), got \({i}, {j}, {k + 1}\).*patch_shape"):
        net.forward_with_features(image((i, j, k + 1)), ("bottleneck",))
    assert not any(module._forward_hooks for module in net.modules())


@every_network
def test_instance_normalisation_of_a_single_voxel_is_refused(name: str) -> None:
    net = network(name, norm="instance").eval()
    with pytest.raises(RaykdError, match="more than one voxel at the bottleneck"):
        net(image(net.total_stride))


@pytest.mark.parametrize("name", WITH_STRIDES)
def test_uneven_strides_are_where_they_are_asked_for(name: str) -> None:
    num_steps = 4 if "vnet" in name else 3
    steps = [UNEVEN[step] for step in range(1, num_steps + 1)]
    net = network(name, strides=steps).eval()
    # (2,1,2) (1,2,2) (1,2,1) (2,2,1): along I 2 2 2 4, along J 1 2 4 8, along K 2 4 4 4.
    at = [(1, 1, 1), (2, 1, 2), (2, 2, 4), (2, 4, 4), (4, 8, 4)]
    finest = at[1] if name == "unet" else at[0]
    shape = (4, 8, 8)
    with torch.inference_mode():
        logits, features = net.forward_with_features(image(shape), ("encoder_1", "bottleneck", "decoder_1"))
    assert logits.shape[2:] == shape
    assert net.total_stride == at[num_steps]
    found = {layer: strides_of_edges(value, shape) for layer, value in features.items()}
    assert found == {"encoder_1": finest, "bottleneck": at[num_steps], "decoder_1": finest}


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(WITH_STRIDES)))
def test_networks_that_cannot_keep_thick_slices_say_so(name: str) -> None:
    assert "no `strides`" in (NETWORKS.get(name).__doc__ or "")
    assert len(set(network(name).total_stride)) == 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("vnet", {"width": 3}),
        ("vnet", {"strides": [[2, 2, 2]]}),
        ("segresnet", {"num_blocks": [1]}),
        ("segresnet", {"strides": [[2, 2, 2]]}),
        ("dynunet", {"strides": [[2, 2, 2]]}),
        ("dynunet", {"width": 6}),
        ("attention_unet", {"strides": [[1, 3, 1]]}),
        ("swin_unetr", {"width": 16}),
        ("swin_unetr", {"window": [1, 7, 7]}),
        ("paper_vnet", {"norm": "layer"}),
        ("paper_vnet", {"dropout": 1.0}),
    ],
)
def test_settings_out_of_range_are_refused(name: str, values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        block(name, **values)
