"""Apple's pfl-research: its FederatedAveraging on its simulated backend, in processes that torch's launcher starts."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

if not hasattr(torch.distributed, "reduce_op"):  # a name that torch has dropped and pfl still uses
    torch.distributed.reduce_op = torch.distributed.ReduceOp  # type: ignore[attr-defined]

from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm import FederatedAveraging, NNAlgorithmParams
from pfl.callback.base import TrainingProcessCallback
from pfl.data import FederatedDataset
from pfl.data.dataset import Dataset
from pfl.data.sampling import MinimizeReuseUserSampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel

from benchmarks.peers.task import LEARNING_RATE, MOMENTUM, Task, Watch, kept_batch, kept_network, weights_of
from raykd.numerics.segmentation_losses import dice_ce_loss


class OneBatch(Dataset):
    """A client's batch, once a step."""

    def __init__(self, task: Task, client: int):
        super().__init__(raw_data=list(kept_batch(task, client)), user_id=str(client))
        self._num_steps = task.steps

    def iter(self, batch_size: Any) -> Iterator[Any]:
        for _ in range(self._num_steps):
            yield self.raw_data

    def __len__(self) -> int:
        return 1


class Ticks(TrainingProcessCallback):
    """Notes the end of every round."""

    def __init__(self, watch: Watch):
        self._watch, self.ends = watch, list[float]()

    def on_train_begin(self, *, model: Any) -> Metrics:
        self._watch.starts()
        return Metrics()

    def after_central_iteration(self, aggregate: Any, model: Any, *, central_iteration: int) -> tuple[bool, Metrics]:
        self.ends.append(time.perf_counter())
        return False, Metrics()


def main() -> None:
    """Prints the line."""
    task, is_first = Task.of_arguments(), os.environ["RANK"] == "0"
    logging.disable(logging.INFO)
    network, ticks = kept_network(task), Ticks(Watch(os.getppid()))
    network.loss = lambda images, labels, eval=False: dice_ce_loss(network(images), labels)
    network.metrics = lambda images, labels, eval=False: {"loss": Weighted(0.0, 1)}
    data = FederatedDataset(lambda client: OneBatch(task, client), MinimizeReuseUserSampler(list(range(task.clients))))

    class Momentum(torch.optim.SGD):
        """What pfl makes anew for every client."""

        def __init__(self, parameters: Any, lr: float):
            super().__init__(parameters, lr, momentum=MOMENTUM)

    model = PyTorchModel(network, Momentum, torch.optim.SGD(network.parameters(), lr=1.0))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=task.num_rounds,
            evaluation_frequency=10**9,
            train_cohort_size=task.clients,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=data, val_data=data),
        model=model,
        model_train_params=NNTrainHyperParams(local_num_epochs=1, local_learning_rate=LEARNING_RATE, local_batch_size=1),
        model_eval_params=NNEvalHyperParams(local_batch_size=1),
        callbacks=[ticks],
    )
    if is_first:
        ticks._watch.tell(ticks.ends, weights_of(network))


if __name__ == "__main__":
    if "RANK" not in os.environ:
        launcher = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={Task.of_arguments().workers}",
        ]
        os.environ["OMP_NUM_THREADS"] = "1"
        os.execv(sys.executable, [*launcher, "-m", "benchmarks.peers.pfl_research", *sys.argv[1:]])
    main()
