"""Writes docs/networks.md by building every network: `python docs/make_networks.py`. A test keeps the two equal."""

from __future__ import annotations

import inspect
import math
import re
import sys
from pathlib import Path

import torch

from raykd.models._base import SegmentationNetwork, build_network
from raykd.scenario.registry import NETWORKS

NUM_CLASSES = 4
HEAD = """# Networks

A scenario names one for the students and one for the teacher, which need not be the same:

```yaml
repository:
  teacher: {network: {name: dynunet, width: 16, dropout: 0.2}, num_steps: 600}
student: {network: {name: unet, width: 8}}
```

`raykd schema` and every editor that reads it know the settings of each. All are seeded by the scenario, give one
tensor of logits and take any image whose edges are multiples of the strides below; `patch_shape` must be such a
multiple, whole volumes are padded.

## What each costs

Measured with one channel in and four classes out, every other setting at its default. What travels is the state in
single precision, every round, both ways. A feature map is kept for every case in half precision where `dual_kd`
distils it: its bytes a voxel of the image are in the last columns. Strides are those at the defaults, and a setting
or not.

| network | parameters | MiB that travel | strides I, J, K | a setting | `bottleneck`, B a voxel | `decoder_1`, B a voxel |
|---|---|---|---|---|---|---|
"""
WHAT_FOR = """
## What each is for

| network | what for | source |
|---|---|---|
"""
PURPOSE = {
    "unet": "The default: small enough for sites without a GPU and for slow links.",
    "dynunet": "nnU-Net's plain network; a teacher where the repository is large.",
    "segresnet": "Deep encoder at few channels: much computation for few bytes.",
    "attention_unet": "Small organs in a large field of view.",
    "vnet": "MONAI's V-Net, to compare with published runs; large kernels, and the most bytes of all.",
    "paper_vnet": "The reference method's own network, to repeat it: `{name: paper_vnet, norm: batch}`.",
    "swin_unetr": "Transformer for isotropic volumes and a GPU; as a student only over fast links.",
}
TAIL = """
## Feature maps

`dual_kd` and every method that compares features names layers, and the names are the same everywhere: `encoder_1` ...
`encoder_n` from the image inwards, `bottleneck`, and `decoder_n` ... `decoder_1` outwards. 1 is the finest level;
`encoder_l` and `decoder_l` of a network lie on one grid, and `decoder_1` is the last map before the output block. In
`unet` level 1 is already coarser than the image, in all others it has the image's own grid, which makes `decoder_1`
expensive to keep for large volumes; `decoder_2` is the next best. Teacher and student may differ in channels and
grids with `attention`, `pairwise` and `region_affinity`.

## Normalisation

`norm: group` is the default of all, because the running statistics of `batch` are averaged with the rest and belong
to no site afterwards; `fedbn` keeps them, with all scales and shifts, at the site. `norm: instance` needs more than
one voxel at the bottleneck: a patch of twice the strides along one axis. `norm: batch` needs a batch of two or more
there.

`group` and `instance` take their means and variances over all voxels that the network is shown. A network with either
therefore answers otherwise in another window: the same voxel gets other logits in a whole volume than in a training
patch, and the difference can decide the class. So raykd runs every model in windows of the training patch, in
evaluation, in what a teacher says, in trust and in exported bundles ([one function](../raykd/federation/segmenter.py));
whoever runs `model.pt` with other code must do the same. `norm: batch` uses the statistics that it kept in training:
beyond the reach of its convolutions a voxel gets the same logits in every window. A test holds both.

## Thick slices

Where strides are a setting, one triple a level along I, J, K, a 1 along the axis of the slices leaves them apart:
`strides: [[1,2,2], [1,2,2], [2,2,2]]`. `segresnet` and `swin_unetr` have no such setting in MONAI and halve all axes
at every level. The V-Nets have four levels down, so four triples.

## The same numbers twice

No network interpolates: all up-sampling is by transposed convolution, because the backward pass of trilinear
interpolation adds up in another order at every run on a GPU. On a GPU clients run under
`torch.use_deterministic_algorithms(True)`, and maps that losses bring to one grid are resized by products of matrices;
every method and network gave the same tables and models, byte for byte, in two runs on an H100
([tests/test_cuda.py](../tests/test_cuda.py), skipped where torch sees no GPU). Between a CPU and a GPU, and between
unlike GPUs, sums differ in their last digits; what the cache keeps is kept apart for the two.
"""


def default(name: str) -> SegmentationNetwork:
    """A network with nothing but its name given."""
    return build_network(NETWORKS.get(name).Settings(name=name), NUM_CLASSES, 0)


def bytes_a_voxel(network: SegmentationNetwork) -> list[str]:
    """Of `bottleneck` and `decoder_1` in half precision."""
    layers = ("bottleneck", "decoder_1")
    with torch.inference_mode():
        maps = network.eval().forward_with_features(torch.zeros(2, 1, *network.total_stride), layers)[1]
    return [f"{2 * maps[layer].shape[1] / math.prod(network.layers[layer]):.3g}" for layer in layers]


def cost(name: str) -> str:
    """A line of the table of costs."""
    network = default(name)
    num_params = sum(parameter.numel() for parameter in network.parameters())
    num_bytes = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    has_strides = "strides" in NETWORKS.get(name).Settings.model_fields
    strides = ", ".join(str(stride) for stride in network.total_stride)
    cells = [f"`{name}`", f"{num_params:,}", f"{num_bytes / 2**20:.1f}", strides, "yes" if has_strides else "no"]
    return "| " + " | ".join([*cells, *bytes_a_voxel(network)]) + " |"


def purpose(name: str) -> str:
    """A line of the table of purposes, with the source that the module cites."""
    text = inspect.getdoc(sys.modules[NETWORKS.get(name).__module__]) or ""
    source = re.search(r"\(([^()]+), (https://[^)\s]+)\)", text.replace("\n", " "))
    assert source is not None, f"the docstring of {name}'s module must cite (AUTHORS, VENUE, URL)"
    return f"| `{name}` | {PURPOSE[name]} | [{source[1]}]({source[2]}) |"


def markdown() -> str:
    """The whole page."""
    names = [name for name in PURPOSE if name in NETWORKS.names()]
    return HEAD + "\n".join(map(cost, names)) + "\n" + WHAT_FOR + "\n".join(map(purpose, names)) + "\n" + TAIL


if __name__ == "__main__":
    Path(__file__).with_name("networks.md").write_text(markdown(), encoding="utf-8")
