"""What the configuration of an exported MONAI bundle names: the network, its inputs and its outputs, as raykd has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor

from raykd.data.patches import normalise
from raykd.federation.inference import class_scores, predict_logits
from raykd.federation.segmenter import Reading, read_scan
from raykd.models._base import SegmentationNetwork, build_network
from raykd.numerics.label_map import best_class
from raykd.scenario.registry import NETWORKS


def network(block: Mapping[str, Any], num_classes: int) -> SegmentationNetwork:
    """The network of a scenario's block.

    Args:
        block: with its `name`.
        num_classes: with background.
    """
    settings = NETWORKS.get(str(block["name"])).Settings.model_validate_json(json.dumps(dict(block)))
    return build_network(settings, num_classes, 0)


def reading(**settings: Any) -> Reading:
    """How the model is shown a scan; arguments as the attributes of `Reading`."""
    told: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    return Reading(**told)


class ReadScan:
    """From `image`, a file, to its intensities (1, I, J, K) as the network sees them, and the `scan` that a mask goes back to."""

    def __init__(self, reading: Reading):
        self.reading = reading

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        scan, meta = read_scan(Path(item["image"]), self.reading), {"filename_or_obj": str(item["image"])}
        image_CIJK = normalise(scan.case.image_CIJK)[None]
        return {"image": MetaTensor(image_CIJK, affine=torch.from_numpy(scan.case.affine), meta=meta), "scan": scan}


class Windows:
    """The inferer: scores (B, L, I, J, K) of volumes, run in the windows in which raykd evaluated the model."""

    def __init__(self, reading: Reading):
        self.reading = reading

    def __call__(self, inputs: Tensor, network: SegmentationNetwork, *args: Any, **kwargs: Any) -> Tensor:
        return class_scores(predict_logits(network.eval(), torch.as_tensor(inputs), self.reading.window), self.reading.known)


def segment(
    network: SegmentationNetwork, batches: Iterable[Iterable[Any]], inferer: Windows, write: Callable[[dict[str, Any]], Any]
) -> int:
    """Predicts every image of a loader and hands the classes of its file's own voxels, as `pred`, to what writes them.

    Returns:
        How many there were.
    """
    num = 0
    for item in (item for batch in batches for item in batch):
        scan, scores_LIJK = item["scan"], inferer(item["image"].as_tensor()[None], network)[0]
        mask, meta = scan.on_own_grid(best_class(scores_LIJK)), {"filename_or_obj": item["image"].meta["filename_or_obj"]}
        write({"pred": MetaTensor(torch.from_numpy(mask)[None], affine=torch.from_numpy(scan.own_affine), meta=meta)})
        num += 1
    return num
