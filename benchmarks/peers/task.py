"""The task that all do, and how they tell of it: FedAvg over clients of one batch, with the same network, loss and optimiser.

Nothing is drawn in training (no dropout, no augmentation), so that the last weights must agree up to the order of sums.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from monai.networks.nets.unet import UNet
from torch import Tensor, nn

from raykd.numerics.segmentation_losses import dice_ce_loss
from raykd.runtime.descendants import descendants

CLASSES, PATCH = ("one", "two", "three"), (16, 96, 96)
LEARNING_RATE, MOMENTUM = 1e-2, 0.9
WARM_UP, COOL_DOWN = 1, 1
"""Rounds before and after those that are timed: processes warm up in the first, and the last may end in an evaluation."""


@dataclass(frozen=True)
class Task:
    """How much there is to do.

    Attributes:
        data: folder with `start.pt`, the first weights in one row, and `client-N.pt`, images
            (2, 1, I, J, K) and classes (2, I, J, K).
        workers: processes or threads at once, of one torch thread each.
        use_threads: whether the workers are threads of one process, where a toolkit has both.
    """

    data: Path
    clients: int = 8
    rounds: int = 5
    steps: int = 4
    workers: int = 2
    use_threads: bool = False

    @property
    def num_rounds(self) -> int:
        """With those that are not timed."""
        return WARM_UP + self.rounds + COOL_DOWN

    @classmethod
    def of_arguments(cls) -> Task:
        """As the command line has it."""
        parser = argparse.ArgumentParser()
        parser.add_argument("data", type=Path)
        for name in ("clients", "rounds", "steps", "workers"):
            parser.add_argument(f"--{name}", type=int, default=getattr(cls, name))
        parser.add_argument("--use-threads", action="store_true")
        return cls(**vars(parser.parse_args()))

    def batch(self, client: int) -> tuple[Tensor, Tensor]:
        """Images and classes of a client."""
        images, labels = torch.load(self.data / f"client-{client}.pt")
        return images, labels

    def network(self) -> nn.Module:
        """raykd's default student, which is MONAI's U-Net, with the first weights."""
        strides = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
        network = UNet(3, 1, len(CLASSES) + 1, channels=(8, 16, 32, 64), strides=strides, norm=("GROUP", {"num_groups": 4}))
        set_weights(network, torch.load(self.data / "start.pt"))
        return network


@functools.cache
def kept_network(task: Task) -> nn.Module:
    """The network of this process, which trains on one thread."""
    torch.set_num_threads(1)
    return task.network()


@functools.cache
def kept_batch(task: Task, client: int) -> tuple[Tensor, Tensor]:
    """A client's batch, read once a process."""
    return task.batch(client)


def train(network: nn.Module, images: Tensor, labels: Tensor, num_steps: int) -> None:
    """One local update, in place."""
    optimiser = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=MOMENTUM)
    network.train()
    for _ in range(num_steps):
        optimiser.zero_grad(set_to_none=True)
        dice_ce_loss(network(images), labels).backward()
        optimiser.step()


def weights_of(network: nn.Module) -> Tensor:
    """All parameters in one row."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()])


def set_weights(network: nn.Module, weights: Tensor) -> None:
    """Sets what `weights_of` gives."""
    start = 0
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(weights[start : start + parameter.numel()].view_as(parameter))
            start += parameter.numel()


class Watch:
    """Seconds and memory of a script and of all processes under it, pages that they share counted once.

    Args:
        root: the process at the top; None: this one.
    """

    def __init__(self, root: int | None = None):
        self._root = root or os.getpid()
        self._memory_mb, self._start_s, self._ended = 0.0, 0.0, threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not self._ended.wait(0.5):
            held = sum(proportional_mb(process) for process in [self._root, *descendants(self._root)])
            self._memory_mb = max(self._memory_mb, held)

    def starts(self, began: float | None = None) -> None:
        """Takes note that the first round begins, now or when `time.time()` gave `began`."""
        self._start_s = (began or time.time()) - Path(f"/proc/{self._root}").stat().st_ctime

    def tell(self, ends: list[float], weights: Tensor) -> None:
        """Prints the line, given the clock's reading at the end of every round and the weights after the last one."""
        self._ended.set()
        line = {
            "start_s": self._start_s,
            "rounds_s": ends[-1 - COOL_DOWN] - ends[WARM_UP - 1],
            "memory_mb": self._memory_mb,
            "checksum": float(weights.double().abs().sum()),
        }
        print(json.dumps(line), flush=True)


def proportional_mb(process: int) -> float:
    """What a process holds, its part of what it shares with others; 0 once it is gone."""
    try:
        rows = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return sum(int(row.split()[1]) for row in rows if row.startswith("Pss:")) / 1024
