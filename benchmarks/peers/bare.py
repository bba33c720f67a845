"""Processes of the standard library that share weights by memory: the limit for work in parallel on one machine."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.multiprocessing as mp
from torch import Tensor

from benchmarks.peers.task import Task, Watch, kept_batch, kept_network, set_weights, train, weights_of


def work(rank: int, task: Task, weights: Tensor, total: Tensor, orders: Any, done: Any) -> None:
    """Trains its share of the clients whenever it is told to."""
    network, clients = kept_network(task), range(rank, task.clients, task.workers)
    done.put(rank)
    while orders.get():
        total.zero_()
        for client in clients:
            set_weights(network, weights)
            train(network, *kept_batch(task, client), task.steps)
            total += weights_of(network)
        done.put(rank)


def main() -> None:
    """Prints the line."""
    task, watch, context = Task.of_arguments(), Watch(), mp.get_context("spawn")
    weights = weights_of(task.network()).share_memory_()
    totals = [torch.zeros_like(weights).share_memory_() for _ in range(task.workers)]
    orders, done = [context.SimpleQueue() for _ in totals], context.SimpleQueue()
    for rank, own in enumerate(totals):
        context.Process(target=work, args=(rank, task, weights, own, orders[rank], done), daemon=True).start()
    for _ in totals:
        done.get()
    watch.starts()
    ends = []
    for _ in range(task.num_rounds):
        for queue in orders:
            queue.put(True)
        for _ in totals:
            done.get()
        weights.copy_(torch.stack(totals).sum(dim=0) / task.clients)
        ends.append(time.perf_counter())
    watch.tell(ends, weights)
    for queue in orders:
        queue.put(False)


if __name__ == "__main__":
    main()
