"""What the configuration of an exported MONAI bundle names: the network, its inputs and its outputs, as raykd has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor, decollate_batch
from torch import Tensor

from raykd.data.patches import normalise
from raykd.federation.inference import predict_logits
from raykd.models._base import SegmentationNetwork, build_network
from raykd.scenario.registry import NETWORKS


def network(block: Mapping[str, Any], num_classes: int) -> SegmentationNetwork:
    """The network of a scenario's block.

    Args:
        block: with its `name`.
        num_classes: with background.
    """
    settings = NETWORKS.get(str(block["name"])).Settings.model_validate_json(json.dumps(dict(block)))
    return build_network(settings, num_classes, 0)


class Normalise:
    """The intensities (1, I, J, K) of an image as every network of raykd sees them."""

    def __call__(self, image_CIJK: Tensor) -> Tensor:
        image: Any = image_CIJK.clone()
        image[0] = normalise(torch.as_tensor(image_CIJK, dtype=torch.float32))
        return image


class WholeVolumes:
    """The inferer: volumes in one piece, large ones in blended windows, as raykd judges its models."""

    def __call__(self, inputs: Tensor, network: SegmentationNetwork, *args: Any, **kwargs: Any) -> Tensor:
        return predict_logits(network.eval(), torch.as_tensor(inputs))


def segment(
    network: SegmentationNetwork, batches: Iterable[Any], inferer: WholeVolumes, write: Callable[[dict[str, Any]], Any]
) -> int:
    """Predicts every image of a loader and hands it, as `pred` with the image's place in space, to what writes it.

    Returns:
        How many there were.
    """
    device, num = next(network.parameters()).device, 0
    for batch in batches:
        logits = inferer(batch["image"].to(device), network).cpu()
        for item, one in zip(decollate_batch(batch), logits, strict=True):
            write({"pred": MetaTensor(one).copy_meta_from(item["image"])})
            num += 1
    return num
