"""FedAvg whose server takes a step along the average update, with moments that it keeps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from raykd.methods._base import ServerStart, Upload, average, takes_older_updates
from raykd.methods._layout import parameter_keys
from raykd.methods.fedavg import FedAvg
from raykd.numerics.params import Payload, select
from raykd.numerics.server_optimisers import Tensors, pseudo_gradient

MOMENTS = "control/"


class ServerOptimiser(FedAvg):
    """Trainable parameters take the server's step; buffers, as running statistics are, are averaged plainly."""

    def init_server(self, start: ServerStart) -> Payload:
        server = super().init_server(start)
        keys = parameter_keys(self)
        for name, value in self.start_values().items():
            server |= {f"{MOMENTS}{name}/{key}": server[key].new_full(server[key].shape, value) for key in keys}
        return server

    @takes_older_updates
    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        mean, keys = average(uploads, self.settings.weighting), parameter_keys(self)
        old = {key: server[key] for key in keys}
        d = pseudo_gradient(old, {key: mean[key] for key in keys})
        moments = {name: {key: server[f"{MOMENTS}{name}/{key}"] for key in keys} for name in self.start_values()}
        moved, moments = self.step(old, d, moments)
        kept = {f"{MOMENTS}{name}/{key}": value for name, values in moments.items() for key, value in values.items()}
        return {**select(mean, "params"), **moved, **kept}

    @abstractmethod
    def start_values(self) -> dict[str, float]:
        """What every moment starts from, by its name."""

    @abstractmethod
    def step(self, server: Tensors, d: Tensors, moments: dict[str, Tensors]) -> tuple[Tensors, dict[str, Tensors]]:
        """The next parameters and moments."""
