"""What methods share whose sites keep students of their own, which may be different networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raykd.methods._base import LocalContext, Method
from raykd.models._base import build_network
from raykd.numerics.params import Payload, select, state_of
from raykd.numerics.rng import generator, integer


class OwnStudents(Method):
    """A method under which no parameter travels: every site goes on from its own model, its `params/` in the client's state."""

    averages = False
    deployed = "personal"
    has_global_model = False

    def init_client(self, student: Payload) -> Payload:
        """The initial student, where it is every site's network."""
        is_everybodys = all(member.student.network == self.scenario.student.network for member in self.scenario.members())
        return dict(student) if is_everybodys else {}

    def own_model(self, context: LocalContext, state: Payload) -> Payload:
        """The site's model; where it has none yet, the initial one of its network, the same at all sites that have this network."""
        if own := select(state, "params"):
            return own
        network = self.scenario.members()[context.client_id].student.network
        return state_of(build_network(network, context.num_classes, integer(generator(self.scenario.seed, "own-student"), 2**31)))

    def global_model(self, server: Payload) -> Payload:
        return {}

    def uploaded_model(self, upload: Any) -> Payload:
        return {}

    def personal_model(self, state: Mapping[str, Any]) -> Payload:
        return select(state, "params")
