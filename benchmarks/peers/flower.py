"""Flower's simulation, which runs on Ray: its message API and its FedAvg, without evaluation."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.peers.task import Task, Watch, kept_batch, kept_network, train

TASK = Task.of_arguments()
client_app, server_app = ClientApp(), ServerApp()


@client_app.train()
def local_update(message: Message, context: Context) -> Message:
    """A client's part of a round."""
    network = kept_network(TASK)
    network.load_state_dict(message.content["arrays"].to_torch_state_dict())
    train(network, *kept_batch(TASK, int(context.node_config["partition-id"])), TASK.steps)
    content = RecordDict({"arrays": ArrayRecord(network.state_dict()), "metrics": MetricRecord({"num-examples": 1})})
    return Message(content=content, reply_to=message)


def main() -> None:
    """Prints the line."""
    watch, ends, found = Watch(), list[float](), dict[str, Any]()
    logging.getLogger("flwr").setLevel(logging.ERROR)

    class Timed(FedAvg):
        def configure_train(self, server_round: int, *args: Any) -> Any:
            if server_round == 1:
                watch.starts()
            return super().configure_train(server_round, *args)

        def aggregate_train(self, server_round: int, *args: Any) -> Any:
            aggregated = super().aggregate_train(server_round, *args)
            ends.append(time.perf_counter())
            return aggregated

    @server_app.main()
    def serve(grid: Grid, context: Context) -> None:
        strategy = Timed(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=TASK.clients, min_available_nodes=TASK.clients)
        start = ArrayRecord(TASK.network().state_dict())
        found["result"] = strategy.start(grid=grid, initial_arrays=start, train_config=ConfigRecord({}), num_rounds=TASK.num_rounds)

    ray_args = {"num_cpus": TASK.workers, "include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": ray_args}
    printed, sys.stdout = sys.stdout, sys.stderr
    run_simulation(server_app=server_app, client_app=client_app, num_supernodes=TASK.clients, backend_config=backend)
    sys.stdout = printed
    arrays = found["result"].arrays.to_torch_state_dict()
    watch.tell(ends, torch.cat([value.reshape(-1) for value in arrays.values()]))


if __name__ == "__main__":
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    main()
