"""The bound that no contract allows: all clients' labelled cases in one place.

One trainer takes as many steps a round as all clients together would, on the union of their labelled cases.
"""

from __future__ import annotations

from typing import Literal

from raykd.methods.fedavg import FedAvg
from raykd.scenario.registry import METHODS


@METHODS.register("centralised")
class Centralised(FedAvg):
    """Supervised training on pooled data: what the federation would reach if images could move."""

    noise = "none"
    learns_by_gradients_alone = False
    pools_data = True

    class Settings(FedAvg.Settings):
        name: Literal["centralised"]  # type: ignore[assignment]
