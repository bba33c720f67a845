"""No federation: every site trains alone on its own labelled cases. What a site has without a contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from raykd.methods._base import LocalContext, LocalUpdate, Method, MethodSettings, Upload, supervised_loss
from raykd.numerics.params import Payload
from raykd.scenario.registry import METHODS


@METHODS.register("local")
class Local(Method):
    """Each client keeps its own parameters from round to round; nothing travels but the initial model."""

    deployed = "personal"
    averages = False
    kinds = ()
    hands_out_student = True

    class Settings(MethodSettings):
        name: Literal["local"]
        is_warm: bool = False
        """Whether each site starts from a student trained on the repository, sent once."""

    @property
    def is_warm(self) -> bool:
        return bool(self.settings.is_warm)

    def broadcast(self, server: Payload) -> Payload:
        return {}

    def init_client(self, student: Payload) -> Payload:
        return dict(student)

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        params, result = context.fit(state, supervised_loss(context.annotated))
        return LocalUpdate(params, {}, result)

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        return server

    def personal_model(self, state: Mapping[str, Any]) -> Payload:
        return dict(state)
