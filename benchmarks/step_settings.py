"""A training step under each setting of `training`: bfloat16, `channels_last_3d`, compiled. On a GPU where torch sees one, else on
one thread; settings interleaved."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import nn

from benchmarks.distillation_step import seconds
from raykd.federation.worker import keep_freed_memory
from raykd.models._base import build_network
from raykd.numerics.local_sgd import Batch, Loss, in_bfloat16
from raykd.numerics.segmentation_losses import dice_ce_loss
from raykd.runtime.device import take_up_device
from raykd.scenario.registry import NETWORKS

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPE = (32, 128, 128) if DEVICE == "cuda" else (16, 64, 64)
NUM_CLASSES, REPEATS = 4, 9
NETS: tuple[dict[str, Any], ...] = ({"name": "unet", "width": 8}, {"name": "segresnet"}, {"name": "paper_vnet"})
SETTINGS = ("fp32", "bf16", "channels_last_3d", "bf16 and channels_last_3d", "compiled")


class Step:
    """One optimiser step of a network under a setting."""

    def __init__(self, block: dict[str, Any], setting: str):
        self.network = build_network(NETWORKS.get(block["name"]).Settings(**block), NUM_CLASSES, 0).to(DEVICE).train()
        if "channels_last_3d" in setting:
            torch.nn.utils.convert_conv3d_weight_memory_format(self.network, torch.channels_last_3d)
        if setting == "compiled":
            self.network.compile()
        self.loss: Loss = in_bfloat16(supervised, DEVICE) if "bf16" in setting else supervised
        self.optimiser = torch.optim.Adam(self.network.parameters(), 1e-3)
        rng = torch.Generator().manual_seed(0)
        image, label = torch.randn((2, 1, *SHAPE), generator=rng), torch.randint(NUM_CLASSES, (2, *SHAPE), generator=rng)
        self.batch = Batch(image, label, 2).to(DEVICE)

    def __call__(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        self.loss(self.network, self.batch)["supervised"].backward()
        self.optimiser.step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()


def supervised(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """Half cross-entropy, half Dice."""
    return {"supervised": dice_ce_loss(model(batch.image_BCIJK), batch.label_BIJK)}


def main() -> None:
    """Prints the table."""
    keep_freed_memory()
    take_up_device(1.0, lambda event, **values: None)
    torch.set_num_threads(1)
    place = torch.cuda.get_device_name() if DEVICE == "cuda" else "one thread"
    print(f"{place}, 2 patches of {SHAPE}, fp32 in ms, the others as medians of {REPEATS} ratios fp32 / setting\n")
    print(f"| network | {' | '.join(SETTINGS)} | compiling |\n|{'---|' * (len(SETTINGS) + 2)}")
    for block in NETS:
        steps = [Step(block, setting) for setting in SETTINGS]
        for step in steps[:-1]:
            step()
        start = time.perf_counter()
        steps[-1]()
        compiling_s = time.perf_counter() - start
        times = [[seconds(step) for step in steps] for _ in range(REPEATS)]
        ratios = [statistics.median(row[0] / row[index] for row in times) for index in range(1, len(steps))]
        first = 1e3 * statistics.median(row[0] for row in times)
        print(
            f"| {block['name']} | {first:.0f} ms | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} | {compiling_s:.0f} s |",
            flush=True,
        )


if __name__ == "__main__":
    main()
