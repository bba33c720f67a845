"""What each chain of codecs makes of a model's change, in bytes as serialised. No clock is read: the same
numbers on any machine.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from raykd.federation.transport import seal, seal_coded, unseal
from raykd.models._base import build_network
from raykd.numerics.params import Payload, state_of
from raykd.numerics.rng import generator
from raykd.scenario.registry import NETWORKS
from raykd.scenario.traffic import Codecs

TOP: dict[str, Any] = {"name": "top_k", "share": 0.01}
CHAINS: tuple[tuple[str, tuple[dict[str, Any], ...]], ...] = (
    ("fp16", ({"name": "fp16"},)),
    ("bf16", ({"name": "bf16"},)),
    ("int8", ({"name": "int8"},)),
    ("qsgd, 7 levels", ({"name": "qsgd", "num_levels": 7},)),
    ("top_k 5 %, int8", ({**TOP, "share": 0.05}, {"name": "int8"})),
    ("top_k 1 %, int32 indices", ({**TOP, "indices": "int32"},)),
    ("top_k 1 %", (TOP,)),
    ("top_k 1 %, int8", (TOP, {"name": "int8"})),
    ("stc 1 %", ({"name": "stc", "share": 0.01},)),
    ("power_sgd, rank 2", ({"name": "power_sgd", "rank": 2},)),
    ("power_sgd, rank 2, fp16", ({"name": "power_sgd", "rank": 2}, {"name": "fp16"})),
)


def models() -> dict[str, Payload]:
    """The paper's V-Net, the student that scenarios have, and one 5 x 5 x 5 convolution of 64 channels."""
    built = {
        name: state_of(build_network(NETWORKS.get(name).Settings(name=name, **more), 4, 0))
        for name, more in (("paper_vnet", {}), ("unet", {"width": 8}))
    }
    return {**built, "conv 64, 5^3": {"params/weight": torch.zeros((64, 64, 5, 5, 5))}}


def changed(model: Payload) -> Payload:
    """The model after a change whose numbers are normal."""
    rng = generator(0, "change")

    def moved(value: Tensor) -> Tensor:
        return value + 0.01 * torch.randn(value.shape, generator=rng) if value.is_floating_point() else value

    return {key: moved(model[key]) for key in sorted(model)}


def ratio(model: Payload, blocks: tuple[dict[str, Any], ...]) -> tuple[float, int]:
    """How many times smaller the change is than the model, both as serialised, and the bytes of a message."""
    chains = {"params": Codecs.model_validate({"params": blocks}).params}
    new = changed(model)
    coded, _ = seal_coded(new, chains, model, {}, lambda kind: generator(0, kind))
    assert unseal(coded, model).keys() == new.keys()
    return seal(new)["params"].nbytes / coded["params"].nbytes, coded["params"].nbytes


def main() -> None:
    """Prints the table of docs/traffic.md."""
    known = models()
    print("| codecs | " + " | ".join(known) + " |")
    print("|---|" + "---|" * len(known))
    print("| none (bytes) | " + " | ".join(f"{seal(model)['params'].nbytes:,}" for model in known.values()) + " |")
    for title, blocks in CHAINS:
        cells = [f"{times:.1f} x ({num_bytes:,})" for times, num_bytes in (ratio(model, blocks) for model in known.values())]
        print(f"| {title} | " + " | ".join(cells) + " |")
