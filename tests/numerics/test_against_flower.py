"""Aggregation against Flower's strategies on the same tensors. Runs where Flower is installed (`pip install flwr`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from raykd.numerics.aggregation import aggregation_weights
from raykd.numerics.params import weighted_mean
from raykd.numerics.server_optimisers import adaptive_step, momentum_step, pseudo_gradient

flwr = pytest.importorskip("flwr", reason="Flower is not installed")

SHAPES = {"params/weight": (4, 3, 3, 3, 3), "params/bias": (4,)}
EXAMPLES = [3, 1, 7]
NUM_ROUNDS = 3
RATES = {"eta": 0.05, "beta_1": 0.8, "beta_2": 0.97, "tau": 1e-3}


def _draw(seed: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return {key: torch.from_numpy(rng.normal(size=shape).astype(np.float32)) for key, shape in SHAPES.items()}


def _to_flower(payload: dict[str, torch.Tensor]) -> Any:
    from flwr.common import ndarrays_to_parameters

    return ndarrays_to_parameters([payload[key].numpy() for key in SHAPES])


def _rounds(strategy: Any) -> list[list[np.ndarray]]:
    """Flower's parameters after each round, given three clients whose updates are drawn at (round, client)."""
    from flwr.common import Code, FitRes, Status, parameters_to_ndarrays

    found = []
    for number in range(1, NUM_ROUNDS + 1):
        results = [
            (None, FitRes(Status(Code.OK, ""), _to_flower(_draw(10 * number + client)), count, {}))
            for client, count in enumerate(EXAMPLES)
        ]
        parameters, _ = strategy.aggregate_fit(number, results, [])
        found.append(parameters_to_ndarrays(parameters))
    return found


def _average(number: int) -> dict[str, torch.Tensor]:
    uploads = [_draw(10 * number + client) for client in range(len(EXAMPLES))]
    return weighted_mean(uploads, aggregation_weights("labelled", EXAMPLES, [0] * len(EXAMPLES)))


def _assert_agree(ours: dict[str, torch.Tensor], theirs: list[np.ndarray]) -> None:
    for key, array in zip(SHAPES, theirs, strict=True):
        np.testing.assert_allclose(ours[key].numpy(), array, rtol=2e-5, atol=2e-6, err_msg=key)


@pytest.mark.parametrize("name", ["FedAvg", "FedProx"])
def test_the_average_is_flowers(name: str) -> None:
    """FedProx differs from FedAvg at the clients alone."""
    from flwr.server import strategy

    options = {"proximal_mu": 0.1} if name == "FedProx" else {}
    for number, theirs in enumerate(_rounds(getattr(strategy, name)(**options)), start=1):
        _assert_agree(_average(number), theirs)


def test_server_momentum_is_flowers() -> None:
    from flwr.server.strategy import FedAvgM

    server = _draw(0)
    momentum = {key: torch.zeros_like(value) for key, value in server.items()}
    strategy = FedAvgM(server_learning_rate=0.7, server_momentum=0.9, initial_parameters=_to_flower(server))
    for number, theirs in enumerate(_rounds(strategy), start=1):
        d = pseudo_gradient(server, _average(number))
        server, momentum = momentum_step(server, d, momentum, learning_rate=0.7, beta=0.9)
        _assert_agree(server, theirs)


@pytest.mark.parametrize("is_yogi", [False, True])
def test_adaptive_steps_are_flowers(is_yogi: bool) -> None:
    """Flower starts the second moment at zero, not at tau squared, and corrects Adam's rate for its bias, which the source does
    not: here both are given to our step."""
    from flwr.server.strategy import FedAdam, FedYogi

    server = _draw(0)
    m = {key: torch.zeros_like(value) for key, value in server.items()}
    v = dict(m)
    strategy = (FedYogi if is_yogi else FedAdam)(initial_parameters=_to_flower(server), **RATES)
    for number, theirs in enumerate(_rounds(strategy), start=1):
        bias = np.sqrt(1 - RATES["beta_2"] ** (number + 1.0)) / (1 - RATES["beta_1"] ** (number + 1.0))
        server, m, v = adaptive_step(
            server,
            pseudo_gradient(server, _average(number)),
            m,
            v,
            learning_rate=RATES["eta"] * (1.0 if is_yogi else float(bias)),
            beta_1=RATES["beta_1"],
            beta_2=RATES["beta_2"],
            tau=RATES["tau"],
            is_yogi=is_yogi,
        )
        _assert_agree(server, theirs)
