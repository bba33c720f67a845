"""No layer of the default student falls to torch's slow 3D convolution, at any of the patch shapes that ship."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raykd.models._base import build_network
from raykd.scenario.load import load_scenario

ROOT = Path(__file__).parent.parent.parent
SHIPPED = ("base/four-knees", "smoke", "gallery/small-knees", "real/vertebra", "real/torso")


def backends(network: nn.Module, shape: tuple[int, ...]) -> Counter[str]:
    """How often each backend is chosen by the 3D convolutions of a network for an input."""
    found: Counter[str] = Counter()

    def note(layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        is_transposed = isinstance(layer, nn.ConvTranspose3d)
        extra = list(layer.output_padding) if is_transposed else [0, 0, 0]
        chosen = torch._C._select_conv_backend(
            inputs[0],
            layer.weight,
            layer.bias,
            list(layer.stride),
            list(layer.padding),
            list(layer.dilation),
            is_transposed,
            extra,
            layer.groups,
        )
        found[str(chosen).rpartition(".")[2]] += 1

    hooks = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d)]
    network.train()(torch.zeros(shape))
    for hook in hooks:
        hook.remove()
    return found


def students() -> list[Any]:
    """Network, classes, batch and patch of every student of the scenarios that ship."""
    found = {}
    for name in SHIPPED:
        scenario = load_scenario(ROOT / f"scenarios/{name}.yaml").scenario
        for member in scenario.members():
            training = member.training
            key = (member.student.network, len(scenario.classes) + 1, training.batch_size, training.patch_shape)
            found[key] = pytest.param(*key, id=f"{name} {member.name}")
    return list(found.values())


@pytest.mark.parametrize(("settings", "num_classes", "batch_size", "patch_shape"), students())
def test_no_layer_of_a_shipped_student_is_slow(settings: Any, num_classes: int, batch_size: int, patch_shape: Any) -> None:
    found = backends(build_network(settings, num_classes, 0), (batch_size, 1, *patch_shape))
    assert found and not any("Slow" in name for name in found), found


def test_the_slow_one_would_be_seen() -> None:
    """One patch of eight channels on 16 x 64 planes is under torch's threshold."""
    found = backends(nn.Conv3d(8, 8, 3, padding=1), (1, 8, 16, 64, 64))
    assert any("Slow" in name for name in found), found
