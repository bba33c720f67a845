"""BlazeFL: its pool of processes with shared memory, or its pool of threads."""

from __future__ import annotations

import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from blazefl.core import IPCMode, ProcessPoolClientTrainer, SHMHandle, ThreadPoolClientTrainer
from torch import Tensor

from benchmarks.peers.task import Task, Watch, kept_batch, set_weights, train, weights_of

OF_THREAD = threading.local()


@dataclass
class Up:
    """What a client sends."""

    client: int
    weights: Any


@dataclass
class Down:
    """What all are sent."""

    weights: Tensor


@dataclass
class Order:
    """What a process is told of its client."""

    client: int
    task: Task


def updated(task: Task, client: int, weights: Tensor) -> Tensor:
    """One local update, on the network of this thread."""
    if not hasattr(OF_THREAD, "network"):
        torch.set_num_threads(1)
        OF_THREAD.network = task.network()
    set_weights(OF_THREAD.network, weights)
    train(OF_THREAD.network, *kept_batch(task, client), task.steps)
    return weights_of(OF_THREAD.network)


class InProcesses(ProcessPoolClientTrainer):  # type: ignore[type-arg]
    """Clients in a pool of processes."""

    def __init__(self, task: Task, stop_event: Any):
        self.num_parallels, self.device, self.device_count = task.workers, "cpu", 0
        self.share_dir, self.ipc_mode = Path(tempfile.mkdtemp(prefix="blazefl-")), IPCMode.SHARED_MEMORY
        self.cache: list[Up] = []
        self.stop_event, self._task = stop_event, task
        self._num_values = len(weights_of(task.network()))

    def get_client_config(self, cid: int) -> Order:
        return Order(cid, self._task)

    def prepare_uplink_package_buffer(self) -> Up:
        return Up(-1, torch.zeros(self._num_values))

    @staticmethod
    def worker(config: Order, payload: Down, device: str, stop_event: Any, *, shm_buffer: Any = None) -> Up:
        shm_buffer.weights.copy_(updated(config.task, config.client, payload.weights))
        return Up(config.client, SHMHandle())

    def uplink_package(self) -> list[Up]:
        sent, self.cache = self.cache, []
        return sent


class InThreads(ThreadPoolClientTrainer):  # type: ignore[type-arg]
    """Clients in a pool of threads."""

    def __init__(self, task: Task):
        self.num_parallels, self.device, self.device_count = task.workers, "cpu", 0
        self.cache: list[Up] = []
        self.stop_event, self._task = threading.Event(), task

    def worker(self, cid: int, device: str, payload: Down, stop_event: Any) -> Up:
        return Up(cid, updated(self._task, cid, payload.weights))

    def uplink_package(self) -> list[Up]:
        sent, self.cache = self.cache, []
        return sent


def main() -> None:
    """Prints the line."""
    task, watch, ends = Task.of_arguments(), Watch(), list[float]()
    torch.set_num_threads(1)
    mp.set_start_method("forkserver")
    trainer = InThreads(task) if task.use_threads else InProcesses(task, mp.Manager().Event())
    weights = weights_of(task.network())
    watch.starts()
    for _ in range(task.num_rounds):
        trainer.local_process(Down(weights), list(range(task.clients)))
        weights = torch.stack([sent.weights for sent in trainer.uplink_package()]).mean(dim=0)
        ends.append(time.perf_counter())
    watch.tell(ends, weights)


if __name__ == "__main__":
    main()
