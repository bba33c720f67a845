"""FedLab's standalone pipeline: one process, one client after the other."""

from __future__ import annotations

import logging
import sys
import time
import types
from typing import Any

for name in ("torchvision", "torchvision.transforms", "torchvision.datasets", "torchvision.models"):
    stand_in = types.ModuleType(name)  # imported by FedLab for data sets of images that are not used here
    stand_in.__file__, stand_in.__path__ = "stand-in", []
    stand_in.__getattr__ = lambda attribute: type(attribute, (), {})  # type: ignore[method-assign]
    sys.modules[name] = stand_in

from fedlab.contrib.algorithm.basic_client import SGDSerialClientTrainer
from fedlab.contrib.algorithm.basic_server import SyncServerHandler
from fedlab.core.standalone import StandalonePipeline
from torch import nn

from benchmarks.peers.task import LEARNING_RATE, MOMENTUM, Task, Watch, kept_batch, kept_network
from raykd.numerics.segmentation_losses import dice_ce_loss


class Trainer(SGDSerialClientTrainer):
    """With momentum, which FedLab's has not."""

    def train(self, model_parameters: Any, train_loader: Any) -> list[Any]:
        self.optimizer.state.clear()
        self.optimizer.param_groups[0]["momentum"] = MOMENTUM
        parameters: list[Any] = super().train(model_parameters, train_loader)
        return parameters


class Batches:
    """Every client's batch, once a step."""

    def __init__(self, task: Task):
        self._task = task

    def get_dataloader(self, client: int, batch_size: int) -> list[Any]:
        return [kept_batch(self._task, int(client))] * self._task.steps


def main() -> None:
    """Prints the line."""
    task, watch, ends = Task.of_arguments(), Watch(), list[float]()
    network: nn.Module = kept_network(task)
    trainer = Trainer(network, task.clients, cuda=False)
    trainer.setup_dataset(Batches(task))
    trainer.setup_optim(1, 1, LEARNING_RATE)
    trainer.criterion = dice_ce_loss
    handler = SyncServerHandler(task.network(), task.num_rounds, 1.0, cuda=False)

    class Timed(StandalonePipeline):
        def evaluate(self) -> None:
            ends.append(time.perf_counter())

    pipeline = Timed(handler, trainer)
    logging.disable(logging.CRITICAL)
    watch.starts()
    printed, sys.stdout = sys.stdout, sys.stderr
    pipeline.main()
    sys.stdout = printed
    watch.tell(ends, handler.model_parameters)


if __name__ == "__main__":
    main()
