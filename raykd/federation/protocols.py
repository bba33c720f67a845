"""The seams of the simulation: where it runs, where its results go, who watches it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from raykd.federation.transport import Envelope
from raykd.scenario.schema import Scenario

Row = dict[str, Any]
J = TypeVar("J")


class Stopped(Exception):
    """Raised by a backend that was asked to stop while it had work: what it had in hand is given up."""


class Jobs(Sequence[J], Generic[J]):
    """Work for clients, each piece made when it is asked for, so that what it holds is in memory only while it is done.

    Args:
        client_ids: whose it is, in order.
        make: the piece of a client.
    """

    def __init__(self, client_ids: Sequence[int], make: Callable[[int], J]):
        self.client_ids, self._make = tuple(client_ids), make

    def __len__(self) -> int:
        return len(self.client_ids)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Jobs(self.client_ids[index], self._make)
        return self.of(self.client_ids[index])

    def of(self, client_id: int) -> J:
        """The piece of a client."""
        return self._make(client_id)


@dataclass(frozen=True)
class LocalJob:
    """One client's local update in one round: a pure function of this and of the client's data.

    `state` is what the client keeps between rounds; the simulation holds it, so that any worker can do the job, but it crosses
    no link.
    """

    client_id: int
    round_index: int
    state: Envelope
    own: Envelope | None = None
    """In a personal round, the client's own model in place of the download."""
    extra: Envelope | None = None
    """What this client alone is sent in the round, beside the download."""


@dataclass(frozen=True)
class LocalReply:
    """What a local update came to. `upload` crosses the link; the rest is the simulation's own book-keeping."""

    client_id: int
    state: Envelope
    upload: Envelope
    num_labelled: int
    num_unlabelled: int
    training: Row
    events: tuple[Row, ...] = ()
    privacy: tuple[Row, ...] = ()
    """What noise was added, by mechanism: how many releases, at which sampling rate."""


@dataclass(frozen=True)
class ServerJob:
    """The server's own work in a round on the repository's cases: the aggregated state, and what the clients sent."""

    round_index: int
    server: Envelope
    uploads: tuple[tuple[int, Envelope, int, int], ...] = ()
    """Client, upload, number of labelled and of unlabelled cases."""


@dataclass(frozen=True)
class EvaluationJob:
    """What a client scores on its own cases: the models shared by all, and `own`, its personal one, where it has one."""

    client_id: int
    round_index: int
    own: Envelope | None
    has_surface: bool
    num_previews: int
    has_records: bool = False
    """Whether to tell what was drawn for each of its cases."""
    has_calibration: bool = False
    """Whether to tell how sure the models are of the voxels near the structures."""


@dataclass(frozen=True)
class EvaluationReply:
    """Rows of the tables that its fields are called after. Previews hold pixels of test cases for the experimenter; no link carries
    them."""

    client_id: int
    cases: tuple[Row, ...]
    previews: tuple[Row, ...] = ()
    records: tuple[Row, ...] = ()
    calibration: tuple[Row, ...] = ()


class ResultSink(Protocol):
    """Where rows go: one part a round, written aside and renamed."""

    def write(self, table: str, rows: Sequence[Mapping[str, Any]], part: str) -> None:
        """Writes one part of a table; the same part again replaces it."""


class Progress(Protocol):
    """Who watches a run."""

    def __call__(self, event: str, **values: Any) -> None:
        """Told of `stage`, `teacher_step`, `round`, `client`, `evaluated`, with their numbers."""


class Backend(Protocol):
    """Where clients run. Replies of many clients come in whatever order they are done in, as soon as they are."""

    num_slots: int

    def open(self, scenario: Scenario, root: Path) -> None:
        """Prepares the workers for a scenario; forgets the one before."""

    def prepare(self, client_ids: Sequence[int], with_repository: bool) -> list[Row]:
        """Builds what each client holds, and the repository's cases if asked, and gives the rows of `clients`. Raises
        `DataError`.
        """

    def train_on_repository(self, networks: Sequence[Any]) -> list[tuple[Envelope, list[Row], EvaluationReply]]:
        """For each network: its parameters, rows of `teachers`, and what it scores on the repository's held-out cases."""

    def hand_out(self, payload: Envelope) -> None:
        """Brings what clients receive before the first round to every worker, once a run."""

    def local_updates(self, jobs: Jobs[LocalJob], download: Envelope) -> Iterator[LocalReply]:
        """The local updates of one round; `download` is the same for all."""

    def update_server(self, job: ServerJob) -> Envelope:
        """The server's state after its own work in a round."""

    def evaluate(self, jobs: Jobs[EvaluationJob], shared: Mapping[str, Envelope]) -> Iterator[EvaluationReply]:
        """Scores the shared models, by role (global, teacher), and each client's own on the clients' cases."""

    def incidents(self) -> list[tuple[int, str]]:
        """What went wrong with the machines since the last call, and was made good: whose work it was (-1: the repository's), and
        a sentence."""

    def close(self) -> None:
        """Ends every process that this backend started."""
