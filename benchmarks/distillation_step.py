"""A distillation step with cached knowledge against the reference's step, which asks the teacher nine times for every
unlabelled volume.

Both steps train the same student on the same batch with the same losses (half cross-entropy half Dice, masked softmax-MSE).
The reference takes its target from one noisy teacher pass and its uncertainty from eight more, at every step; the cached step
reads both from memory in half precision, as `dual_kd` does. Variants are interleaved; the table gives medians and the median
of the ratios of neighbours.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from monai.networks.nets import VNet
from torch import Tensor, nn

from raykd.federation.worker import keep_freed_memory
from raykd.models._base import build_network
from raykd.numerics.response_losses import entropy, entropy_threshold, softmax_mse_loss
from raykd.numerics.segmentation_losses import dice_ce_loss
from raykd.scenario.registry import NETWORKS

NUM_CLASSES, NUM_PASSES, SHAPE = 4, 8, (16, 64, 64)
REPEATS = 7


def unet(width: int) -> nn.Module:
    """The shipped network."""
    return build_network(NETWORKS.get("unet").Settings(name="unet", width=width, dropout=0.1), NUM_CLASSES, 0)


def vnet() -> nn.Module:
    """MONAI's V-Net with 5 x 5 x 5 convolutions, as the reference's but with 16 channels at its first level."""
    with torch.random.fork_rng():
        return VNet(in_channels=1, out_channels=NUM_CLASSES, dropout_prob_down=0.5)


class Steps:
    """One optimiser step in each way."""

    def __init__(self, student: nn.Module, teacher: nn.Module, layout: torch.memory_format):
        self.layout = layout
        self.student = student.to(memory_format=layout).train()
        self.teacher = teacher.train()
        self.optimiser = torch.optim.Adam(student.parameters(), 1e-3)
        rng = torch.Generator().manual_seed(0)
        self.image_BCIJK = torch.randn((4, 1, *SHAPE), generator=rng)
        self.label_BIJK = torch.randint(NUM_CLASSES, (2, *SHAPE), generator=rng)
        self.soft_BLIJK = self.ask_teacher()[0].half()

    def ask_teacher(self) -> tuple[Tensor, Tensor]:
        """Target and entropy of the unlabelled half: one pass, and eight more in four calls on a doubled batch."""
        image = self.image_BCIJK[2:]
        with torch.no_grad():
            target = torch.softmax(self.teacher(image + 0.1 * torch.randn_like(image)), 1)
            doubled = image.repeat(2, 1, 1, 1, 1)
            passes = [
                torch.softmax(self.teacher(doubled + 0.1 * torch.randn_like(doubled)), 1).view(2, *target.shape).mean(0)
                for _ in range(NUM_PASSES // 2)
            ]
        return target, entropy(torch.stack(passes).mean(0))

    def step(self, target_BLIJK: Tensor, entropy_BIJK: Tensor, layout: torch.memory_format) -> None:
        """What the student does in both."""
        self.optimiser.zero_grad(set_to_none=True)
        logits = self.student(self.image_BCIJK.to(memory_format=layout))
        mask = (entropy_BIJK < entropy_threshold(0.5, NUM_CLASSES)).float()
        loss = dice_ce_loss(logits[:2], self.label_BIJK) + 0.1 * softmax_mse_loss(logits[2:], target_BLIJK, mask)
        loss.backward()
        self.optimiser.step()

    def reference(self) -> None:
        """The teacher is asked."""
        self.step(*self.ask_teacher(), self.layout)

    def cached(self) -> None:
        """The teacher's answer is read."""
        soft = self.soft_BLIJK.float()
        self.step(soft, entropy(soft), self.layout)


def seconds(work: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Prints the table."""
    keep_freed_memory()
    torch.set_num_threads(1)
    pairs = {
        "teacher unet 16, student unet 8": (lambda: unet(16), lambda: unet(8), torch.contiguous_format),
        "teacher unet 16, student unet 16": (lambda: unet(16), lambda: unet(16), torch.contiguous_format),
        "V-Net both, student channels_last_3d when cached": (vnet, vnet, torch.channels_last_3d),
    }
    print(f"2 labelled + 2 unlabelled patches of {SHAPE}, 1 thread, {REPEATS} interleaved repeats\n")
    print("| networks | reference step | cached step | ratio |\n|---|---|---|---|")
    for name, (teacher, student, layout) in pairs.items():
        plain = Steps(student(), teacher(), torch.contiguous_format)
        cached = Steps(student(), teacher(), layout) if layout is not torch.contiguous_format else plain
        plain.reference(), cached.cached()
        times = [(seconds(plain.reference), seconds(cached.cached)) for _ in range(REPEATS)]
        ratio = statistics.median(a / b for a, b in times)
        middle = [statistics.median(column) * 1e3 for column in zip(*times, strict=True)]
        print(f"| {name} | {middle[0]:.0f} ms | {middle[1]:.0f} ms | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
