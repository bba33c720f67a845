"""What a run needs to go on where it was: kept on disk after every round, found whole or not at all.

A checkpoint is an index `round-00003.json` that says where everything lies in the packs beside it, and what their SHA-256 are: the
server's state, and for every client its state and its last upload, in the pack of the last round in which it took part. A pack
is synced before the index that names it is written aside, flushed and renamed: an index that is there, and whose packs are what
it says, is a complete checkpoint. The last two are kept.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from raykd.failpoints import failpoint
from raykd.federation.flights import Air
from raykd.federation.shelf import EMPTY, Pack, Place, Shelf
from raykd.federation.transport import seal, unseal
from raykd.numerics.params import Payload

NUM_KEPT = 2
SLACK_BYTES = 64 * 2**20
"""Of what no client needs any more, so much may lie in packs before they are packed anew."""

IN_THE_AIR = ("versions", "uploads", "states")
"""Attributes of `Air` that are places."""


@dataclass
class State:
    """Everything that changes while a federation runs, and what was handed out before.

    Attributes:
        server: the server's state.
        clients: where what every client keeps lies.
        uploads: where the last upload of every client lies that counted, once there is one.
        teacher: as evaluated, under `teacher/`; empty where there is none.
        handed_out: what clients received before the first round.
        next_round: the round that comes next.
        air: what is under way at the sites between rounds.
        totals: `num_bytes` over all links and `simulated_s` so far.
        has_ended: whether a budget was met, so that no round comes next.
        released: by mechanism and client, how often privacy was spent so far.
    """

    server: Payload
    clients: dict[int, Place] = field(default_factory=dict)
    uploads: dict[int, Place] = field(default_factory=dict)
    teacher: Payload = field(default_factory=dict)
    handed_out: Payload = field(default_factory=dict)
    next_round: int = 0
    air: Air = field(default_factory=Air)
    totals: dict[str, float] = field(default_factory=lambda: {"num_bytes": 0, "simulated_s": 0.0})
    has_ended: bool = False

    def held(self) -> dict[str, dict[int, Place]]:
        """All mappings to places, by the name that an index has for them."""
        own = {"clients": self.clients, "uploads": self.uploads}
        return own | {f"air_{name}": getattr(self.air, name) for name in IN_THE_AIR}

    released: dict[str, int] = field(default_factory=dict)

    def places(self) -> Iterator[tuple[dict[int, Place], int]]:
        """Every entry of a client, by the mapping and the key that hold it."""
        for held in self.held().values():
            for client_id in held:
                yield held, client_id


class Files(Protocol):
    """Who writes the files of a run and knows their checksums."""

    def put(self, path: Path, content: bytes) -> None:
        """Puts a file there wholly or not at all, flushed to the disk."""

    def note(self, path: Path, sha256: str) -> None:
        """Notes the checksum of a file that is there already."""


class Checkpoints:
    """The checkpoints of one run.

    Args:
        shelf: where payloads lie.
        files: where indices go and the checksums of packs; None: nothing is kept for a later process.
    """

    def __init__(self, shelf: Shelf, files: Files | None = None):
        self.shelf, self._files = shelf, files
        self._start: dict[str, Place] = {}
        self._digests: dict[str, str] = {}
        self._kept: list[set[str]] = []

    def begin(self, next_round: int) -> None:
        """Begins the pack of what happens until `saving` is called for this round."""
        self.shelf.begin(f"round-{next_round:05d}")

    def saving(self, state: State) -> Callable[[], None]:
        """Takes down the state before `state.next_round`, and gives the call that keeps it, to be made in any thread but before
        the next one is taken down; the state and the shelf may be used meanwhile.
        """
        self._pack_anew(state)
        if self._files is None:
            return functools.partial(self._let_go, self.shelf.end(), _packs(_clients(state)))
        if not self._start:
            self._start = {name: self.shelf.put(seal(getattr(state, name))) for name in ("teacher", "handed_out")}
        server = self.shelf.put(seal(state.server))
        index: dict[str, Any] = {"next_round": state.next_round, "start": self._start, "server": server}
        index |= {"released": dict(state.released)} if state.released else {}
        index |= {name: {str(key): place for key, place in held.items()} for name, held in state.held().items()}
        index |= {"air": state.air.to_json(), "totals": dict(state.totals), "has_ended": state.has_ended}
        packs = _packs([server, *self._start.values(), *_clients(state)])
        return functools.partial(self._finish, self.shelf.end(), index, packs, self._files)

    def _let_go(self, pack: Pack, packs: set[str]) -> None:
        """Keeps nothing but what this process needs."""
        pack.sync()
        self.shelf.keep(packs)

    def _finish(self, pack: Pack, index: dict[str, Any], packs: set[str], files: Files) -> None:
        """Brings a pack and then the index that names it to the disk, and forgets older ones."""
        digest = pack.sync()
        files.note(self.shelf.folder / pack.name, digest)
        self._digests[pack.name] = digest
        self._digests = {name: digest for name, digest in self._digests.items() if name in packs}
        index["packs"] = self._digests
        failpoint("checkpoint.before_index")
        files.put(self.shelf.folder / f"round-{index['next_round']:05d}.json", json.dumps(index, sort_keys=True).encode())
        failpoint("checkpoint.after_index")
        self._forget(packs)

    def latest(self) -> State | None:
        """The newest complete checkpoint, from which the run goes on; None where there is none."""
        for state, index in self._complete():
            self._start = {name: _place(entry) for name, entry in index["start"].items()}
            named = _packs([_place(index["server"]), *self._start.values(), *_clients(state)])
            self._digests, self._kept = dict(index["packs"]), [named]
            return state
        return None

    def kept(self) -> Iterator[State]:
        """Every complete checkpoint that there is, the newest first."""
        return (state for state, _ in self._complete())

    def _complete(self) -> Iterator[tuple[State, dict[str, Any]]]:
        """Complete checkpoints with their indices, the newest first."""
        for path in sorted(self.shelf.folder.glob("round-*.json"), reverse=True):
            try:
                index = json.loads(path.read_bytes())
                start = {name: _place(entry) for name, entry in index["start"].items()}
                server = _place(index["server"])
                held = {name: {int(k): _place(entry) for k, entry in index[name].items()} for name in State({}).held()}
                air = Air.from_json(index["air"], {name: held[f"air_{name}"] for name in IN_THE_AIR})
                next_round, digests = int(index["next_round"]), dict(index["packs"])
                totals, has_ended = dict(index["totals"]), bool(index["has_ended"])
                released = {str(key): int(number) for key, number in index.get("released", {}).items()}
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
            named = _packs([server, *start.values(), *(place for places in held.values() for place in places.values())])
            if named <= digests.keys() and all(self.shelf.is_sound(name, digests[name]) for name in named):
                known = {name: unseal(self.shelf.get(place)) for name, place in {"server": server, **start}.items()}
                state = State(known["server"], held["clients"], held["uploads"], known["teacher"], known["handed_out"])
                state.next_round, state.released = next_round, released
                state.air, state.totals, state.has_ended = air, totals, has_ended
                yield state, index

    def _pack_anew(self, state: State) -> None:
        """Copies what still counts out of the oldest pack once more lies in packs than is needed."""
        by_pack: dict[str, int] = {}
        for place in _clients(state):
            by_pack[place.pack] = by_pack.get(place.pack, 0) + place.num_bytes
        by_pack.pop("", None)
        sizes = {name: (self.shelf.folder / name).stat().st_size for name in by_pack}
        if len(by_pack) < NUM_KEPT + 1 or sum(sizes.values()) < 2 * sum(by_pack.values()) + SLACK_BYTES:
            return
        oldest = min(by_pack)
        for held, client_id in state.places():
            if held[client_id].pack == oldest:
                held[client_id] = self.shelf.put(self.shelf.get(held[client_id]))

    def _forget(self, packs: set[str]) -> None:
        """Removes the indices before the last two, and the packs that none of these names."""
        self._kept = [*self._kept, packs][-NUM_KEPT:]
        for path in sorted(self.shelf.folder.glob("round-*.json"), reverse=True)[NUM_KEPT:]:
            path.unlink()
        self.shelf.keep(set().union(*self._kept))


def _packs(places: Iterable[Place]) -> set[str]:
    """The packs that hold something of these places."""
    return {place.pack for place in places if place.parts}


def _clients(state: State) -> Iterable[Place]:
    return (held[client_id] for held, client_id in state.places())


def _place(entry: Any) -> Place:
    """A place as JSON has it. Raises what a wrong type raises."""
    pack, start, parts = entry
    if Path(pack).name != pack:
        raise ValueError(f"{pack} is no pack of this folder")
    return Place(pack, int(start), [(str(kind), int(size)) for kind, size in parts]) if parts else EMPTY
