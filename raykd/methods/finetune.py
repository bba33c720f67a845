"""Warm start: every site continues a model of the repository by federated averaging.

The control that a distillation method must beat: it gets the same knowledge of the repository, as parameters. FedAvg is
McMahan et al., AISTATS 2017, https://arxiv.org/abs/1602.05629.
"""

from __future__ import annotations

from typing import Any, Literal

from raykd.methods.fedavg import FedAvg
from raykd.scenario.registry import METHODS


@METHODS.register("finetune")
class Finetune(FedAvg):
    """FedAvg from parameters trained on the repository."""

    class Settings(FedAvg.Settings):
        name: Literal["finetune"]  # type: ignore[assignment]
        network: Literal["teacher", "student"] = "teacher"
        """Which network travels: the teacher itself, or one of the student's size trained on the repository in the same way."""

    @property
    def is_warm(self) -> bool:
        return True

    def student_network(self) -> Any:
        return self.scenario.repository.teacher.network if self.settings.network == "teacher" else self.scenario.student.network
