"""What a method costs: bytes a client, and seconds."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from raykd.report.evidence import Evidence
from raykd.results.questions import work_of


@dataclass(frozen=True)
class Cost:
    """Means over a method's seeds.

    Attributes:
        num_rounds: rounds that were run.
        down, up: bytes by kind, to and from a client, mean over clients, all rounds and the hand-out before them.
        total: bytes over all clients and both directions.
        wall_s, train_s, simulated_s: summed over rounds, and over clients for `train_s`; NaN: not recorded.
        teacher_s: training on the repository before the rounds; NaN: not recorded.
        steps, flops: optimiser steps of a site over all rounds, its teacher's among them, and their floating-point operations, mean
            over sites; NaN: not recorded.
    """

    num_rounds: int
    down: dict[str, float]
    up: dict[str, float]
    total: float
    wall_s: float
    train_s: float
    simulated_s: float
    teacher_s: float
    steps: float
    flops: float

    @property
    def bytes_down(self) -> float:
        """Received by a client."""
        return sum(self.down.values())

    @property
    def bytes_up(self) -> float:
        """Sent by a client."""
        return sum(self.up.values())


def cost_of(evidence: Evidence, method: str) -> Cost:
    """The cost of one method.

    Args:
        evidence: all runs.
        method: one of `evidence.methods`.
    """
    tables = {name: frame[frame["method"] == method] for name, frame in evidence.tables.items()}
    num_runs = max(tables["rounds"]["run_id"].nunique(), tables["cases"]["run_id"].nunique(), 1)
    sizes = tables["clients"].groupby("run_id", observed=True).size()
    num_clients = float(sizes.mean()) if len(sizes) else max(len(evidence.client_names), 1)
    transfers = tables["transfers"][tables["transfers"]["client_id"] >= 0]
    by_kind = transfers.groupby(["direction", "kind"], observed=True)["num_bytes"].sum().astype(float).div(num_runs).reset_index()

    def per_client(direction: str) -> dict[str, float]:
        rows = by_kind[by_kind["direction"] == direction]
        return {str(kind): float(size) / num_clients for kind, size in zip(rows["kind"], rows["num_bytes"], strict=True)}

    def total(table: str, column: str) -> float:
        return float(tables[table][column].sum(min_count=1)) / num_runs

    return Cost(
        num_rounds=int(tables["rounds"].groupby("run_id", observed=True)["round"].nunique().max()) if len(tables["rounds"]) else 0,
        down=per_client("down"),
        up=per_client("up"),
        total=float(by_kind["num_bytes"].sum()),
        wall_s=total("rounds", "wall_s"),
        train_s=total("training", "train_s"),
        simulated_s=total("rounds", "simulated_s"),
        teacher_s=_teacher_seconds(tables["teachers"]),
        **{name: total / num_runs / num_clients for name, total in work_of(tables["training"]).items()},
    )


def _teacher_seconds(teachers: pd.DataFrame) -> float:
    by_role = teachers.groupby(["run_id", "role"], observed=True, dropna=False)["train_s"].max()
    return float(by_role.groupby(level="run_id", observed=True).sum(min_count=1).mean())
