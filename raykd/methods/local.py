"""No federation: every site trains alone on its own labelled cases. What a site has without a contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from raykd.methods._base import LocalContext, LocalUpdate, MethodSettings, Upload, supervised_loss
from raykd.methods._own_students import OwnStudents
from raykd.numerics.params import Payload
from raykd.scenario.registry import METHODS


@METHODS.register("local")
class Local(OwnStudents):
    """Each client keeps its own parameters from round to round; nothing travels but the initial model."""

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

    def problems(self) -> list[str]:
        networks = [member.student.network for member in self.scenario.members()]
        unlike = ["is_warm sends one student to every site, so all must train one network"] if self.is_warm else []
        return super().problems() + (unlike if networks != [self.scenario.student.network] * len(networks) else [])

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        params, result = context.fit(self.own_model(context, state), supervised_loss(context.annotated))
        return LocalUpdate(params, {}, result)

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        return server
