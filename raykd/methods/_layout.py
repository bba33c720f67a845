"""What a method asks of its student's network before anything is trained: names and widths."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from raykd.models._base import SegmentationNetwork, build_network

if TYPE_CHECKING:
    from raykd.methods._base import Method


@functools.cache
def _layout(network: Any, num_classes: int) -> SegmentationNetwork:
    return build_network(network, num_classes, 0)


def layout(method: Method) -> SegmentationNetwork:
    """A student of the federation, to read names of parameters from; its values mean nothing."""
    return _layout(method.student_network(), len(method.scenario.classes) + 1)


def parameter_keys(method: Method) -> tuple[str, ...]:
    """The payload keys of the student's trainable parameters; what else a model holds are buffers."""
    return tuple(f"params/{name}" for name, _ in layout(method).named_parameters())


def feature_channels(method: Method, layer: str) -> int:
    """Channels of a named layer of the student."""
    network = layout(method).eval()
    i, j, k = network.total_stride
    image_BCIJK = torch.zeros((2, 1, i, j, 2 * k))  # a bottleneck of two voxels: a normalisation of one has no spread
    with torch.no_grad():
        return int(network.forward_with_features(image_BCIJK, (layer,))[1][layer].shape[1])
