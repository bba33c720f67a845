"""No training at the sites: the repository's teacher is sent once and used as it is. What a site has for the price of a
download.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from raykd.methods._base import LocalContext, LocalUpdate, Method, MethodSettings, Upload
from raykd.numerics.local_sgd import LocalResult
from raykd.numerics.params import Payload
from raykd.scenario.registry import METHODS


@METHODS.register("teacher_only")
class TeacherOnly(Method):
    """Zero-shot use of the teacher at every site."""

    is_trained = False
    averages = False
    kinds = ()
    needs_teacher = True
    deployed = "teacher"

    class Settings(MethodSettings):
        name: Literal["teacher_only"]

    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        return LocalUpdate(state, {}, LocalResult(0, {}))

    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        return server
