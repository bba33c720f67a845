"""What the models of a run are worth at its sites: who evaluates what, and which models there are in the end."""

from __future__ import annotations

from collections.abc import Iterator

from raykd.failpoints import failpoint
from raykd.federation.checkpoint import State
from raykd.federation.ledger import Ledger
from raykd.federation.protocols import Backend, EvaluationJob, Jobs, Progress, Row
from raykd.federation.score import mean_dsc
from raykd.federation.shelf import EMPTY, Shelf, ShelvedPayload
from raykd.federation.start import BEFORE
from raykd.federation.transport import seal, unseal
from raykd.methods._base import Method
from raykd.numerics.params import Payload, rename
from raykd.scenario.labels import file_id


def is_personal_round(method: Method, round_index: int) -> bool:
    """Whether every site goes on alone from its own model in a round."""
    federation = method.scenario.federation
    return not method.pools_data and round_index >= federation.rounds - federation.personal_rounds


class Judge:
    """Has models scored at the sites.

    Args:
        method, backend, shelf: of the run.
        ledger: takes the rows.
        progress: who watches.
    """

    def __init__(
        self,
        method: Method,
        backend: Backend,
        shelf: Shelf,
        ledger: Ledger,
        progress: Progress,
    ):
        self.method, self.scenario, self.members = method, method.scenario, method.scenario.members()
        self.backend, self._shelf, self._ledger, self.progress = backend, shelf, ledger, progress

    def evaluate(self, round_index: int, state: State, *, is_final: bool) -> list[Row]:
        """Has all models scored that there are, and gives the rows of `cases`."""
        surface = self.scenario.evaluation.surface_metrics
        has_surface = surface == "always" or (surface == "final" and is_final)
        shared = {}
        if self.method.is_trained and (model := self.method.global_model(state.server)):
            shared["global"] = seal(model)
        has_own = is_final or "global" not in shared or is_personal_round(self.method, round_index)
        if state.teacher and (is_final or round_index == BEFORE):
            shared["teacher"] = seal(state.teacher)
        num_previews = self.scenario.evaluation.previews if is_final else 0
        has_calibration = self.scenario.evaluation.calibration == "final" and is_final

        def job(client_id: int) -> EvaluationJob:
            # A site that takes no part has what its method begins with, which is no model of the federation.
            own = self.personal(client_id, state) if has_own and not self.members[client_id].held_out else {}
            sealed, has_records = seal(own) if own else None, round_index == BEFORE
            return EvaluationJob(client_id, round_index, sealed, has_surface, num_previews, has_records, has_calibration)

        jobs = Jobs([member.client_id for member in self.members], job)
        self.progress("stage", name="evaluating", total=len(jobs))
        failpoint("round.before_evaluation")
        replies = sorted(self.backend.evaluate(jobs, shared), key=lambda reply: reply.client_id)
        part = "before" if round_index == BEFORE else f"round-{round_index:05d}"
        rows = [row for reply in replies for row in reply.cases]
        self._ledger.add("cases", rows, part)
        for table in ("calibration", "previews", "records"):
            self._ledger.add(table, [row for reply in replies for row in getattr(reply, table)], part)
        self._ledger.add("events", self._ledger.incidents(round_index), f"evaluation-{part}")
        if (dsc := mean_dsc(rows, "test", self.method.deployed_model)) is not None:
            self.progress("evaluated", round=round_index, dsc=dsc)
        return rows

    def personal(self, client_id: int, state: State) -> Payload:
        """A client's own model: what its method keeps, or else what it last uploaded to be averaged."""
        kept = self.method.personal_model(ShelvedPayload(self._shelf, state.clients.get(client_id, EMPTY)))
        if kept is not None:
            return kept
        return self.method.uploaded_model(unseal(self._shelf.get(state.uploads.get(client_id, EMPTY))))

    def models(self, state: State) -> Iterator[tuple[str, Payload]]:
        """The final models with their names: the global one, the personal ones, and the teacher."""
        if self.method.is_trained and (model := self.method.global_model(state.server)):
            yield "global", model
        for member in self.members:
            if not member.held_out and (personal := self.personal(member.client_id, state)):
                yield f"personal-{file_id(member.name)}", personal
        if state.teacher:
            yield "teacher", rename(state.teacher, "teacher", "params")
