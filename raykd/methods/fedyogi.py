"""Adaptive federated optimisation with Yogi at the server. Reddi et al., ICLR 2021. https://arxiv.org/abs/2003.00295"""

from __future__ import annotations

from typing import Literal

from raykd.methods.fedadam import FedAdam
from raykd.scenario.registry import METHODS


@METHODS.register("fedyogi")
class FedYogi(FedAdam):
    """FedAdam whose second moment moves by a bounded step, so that one large update does not slow the ones after it."""

    is_yogi = True

    class Settings(FedAdam.Settings):
        name: Literal["fedyogi"]  # type: ignore[assignment]
