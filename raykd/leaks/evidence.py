"""What an attacker holds of a run's last round, and what the attacked site holds, so that success can be measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from raykd.data.federation import data_fingerprints
from raykd.federation.checkpoint import Checkpoints, State
from raykd.federation.client import Client, Networks
from raykd.federation.session import Session
from raykd.federation.shelf import Shelf
from raykd.federation.teacher import with_taught_classes
from raykd.federation.transport import unseal
from raykd.methods._base import Method
from raykd.numerics.local_sgd import Batch
from raykd.numerics.params import Payload
from raykd.scenario.errors import RaykdError
from raykd.scenario.load import load_scenario
from raykd.scenario.registry import METHODS
from raykd.scenario.schema import Scenario


@dataclass(frozen=True)
class Evidence:
    """One client's upload.

    Attributes:
        client: the site with its data; an attacker does not hold it.
        round_index: of the upload.
        received: what the client was sent in the round.
        upload: as it crossed the link, noise included.
        handed_out: what the client received before the first round.
        before, after: what the client keeps, before and after its local update; an attacker does not hold it.
    """

    client: Client
    round_index: int
    received: Payload
    upload: Payload
    handed_out: Payload
    before: Payload
    after: Payload

    @cached_property
    def trained_on(self) -> list[Batch]:
        """The batches of the local update, which is done again for them: every draw lies at its address."""
        watched = _Watched(self.client, self.round_index, self.handed_out)
        self.client.method.local_update(watched, self.before, self.received)
        return watched.batches


class _Watched(Session):
    """A local update whose batches are kept."""

    def __init__(self, client: Client, round_index: int, handed_out: Payload):
        super().__init__(client, round_index, handed_out)
        self.batches: list[Batch] = []

    def _train(self, network: Any, drawn: Iterable[Batch], *arguments: Any, **options: Any) -> Any:
        return super()._train(network, self._kept(drawn), *arguments, **options)

    def _kept(self, drawn: Iterable[Batch]) -> Iterator[Batch]:
        for batch in drawn:
            self.batches.append(batch)
            yield batch


def evidence_of(run_dir: Path) -> Iterator[Evidence]:
    """The uploads of the last round of a finished run, by client.

    Raises:
        RaykdError: the run is not done, pools its data, sent nothing in its last round, its checkpoints are gone or its data are
            others.
    """
    manifest = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
    if manifest["status"] != "done":
        raise RaykdError(
            f"{run_dir}: only a run that is done can be attacked, got one that is {manifest['status']}; finish it first"
        )
    root = (run_dir / manifest["scenario_root"]).resolve()
    scenario = with_taught_classes(load_scenario(run_dir / "scenario.yaml").scenario, root)
    method: Method = METHODS.get(scenario.method.name)(scenario.method, scenario)
    before, after = _last_two(run_dir)
    if method.pools_data or not _has_sent(scenario, method, before):
        raise RaykdError(f"{run_dir}: no client uploaded anything in the last round, so that there is nothing to attack")
    if data_fingerprints(scenario, root) != manifest["data"]:
        raise RaykdError(f"{run_dir}: the data are no longer those of the run, and success could not be judged")
    return _evidence(scenario, method, root, Shelf(run_dir / "checkpoints"), before, after)


def _evidence(scenario: Scenario, method: Method, root: Path, shelf: Shelf, before: State, after: State) -> Iterator[Evidence]:
    networks: Networks = {}
    for member in scenario.members():
        own = member.client_id
        has_news = after.uploads.get(own) != before.uploads.get(own) and after.uploads[own].parts
        if not has_news:
            continue
        yield Evidence(
            client=Client.build(scenario, method, member, root, "cpu", networks),
            round_index=before.next_round,
            received=method.broadcast(before.server) | method.download(before.server, own),
            upload=unseal(shelf.get(after.uploads[own])),
            handed_out=before.handed_out,
            before=unseal(shelf.get(before.clients[own])),
            after=unseal(shelf.get(after.clients[own])),
        )


def _last_two(run_dir: Path) -> tuple[State, State]:
    states = list(Checkpoints(Shelf(run_dir / "checkpoints")).kept())[:2]
    if len(states) < 2 or states[1].next_round != states[0].next_round - 1:
        raise RaykdError(f"{run_dir}: the last two checkpoints hold what was sent, and they are not there; run the scenario again")
    return states[1], states[0]


def _has_sent(scenario: Scenario, method: Method, before: State) -> bool:
    federation = scenario.federation
    is_personal = before.next_round >= federation.rounds - federation.personal_rounds
    return bool(method.kinds) and not is_personal
