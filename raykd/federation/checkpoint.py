"""What a run needs to go on where it was: kept on disk after every round, found whole or not at all.

A checkpoint is an index `round-00003.json` that names files of tensors with their SHA-256: the server's state, and for every client
the file of the last round in which it changed. Files are written aside, flushed and renamed, the index last: an index that is
there, and whose files have their checksums, is a complete checkpoint. The last two are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from raykd.failpoints import failpoint
from raykd.numerics.params import Payload

NUM_KEPT = 2
SERVER, START = "server", "start"


@dataclass
class State:
    """Everything that changes while a federation runs, and what was handed out before.

    Attributes:
        server: the server's state.
        clients: what every client keeps.
        uploads: the model that every client uploaded last, where it did.
        teacher: as evaluated, under `teacher/`; empty where there is none.
        handed_out: what clients received before the first round.
        next_round: the round that comes next.
    """

    server: Payload
    clients: dict[int, Payload]
    uploads: dict[int, Payload]
    teacher: Payload
    handed_out: Payload
    next_round: int = 0


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: made with the first one.
        write: puts a file there wholly or not at all, flushed to the disk.
    """

    def __init__(self, folder: Path, write: Callable[[Path, bytes], None]):
        self._folder, self._write = folder, write
        self._files: dict[str, list[str]] = {}

    def save(self, state: State, changed: Sequence[int]) -> None:
        """Keeps the state before `state.next_round`, given the clients that changed since the last time."""
        self._folder.mkdir(parents=True, exist_ok=True)
        number = f"{state.next_round:05d}"
        if START not in self._files:
            self._put(START, number, _nested(teacher=state.teacher, handed_out=state.handed_out))
        self._put(SERVER, number, _nested(state=state.server))
        for client_id in changed:
            parts = _nested(state=state.clients[client_id], upload=state.uploads.get(client_id, {}))
            self._put(str(client_id), number, parts)
        failpoint("checkpoint.before_index")
        index = {"next_round": state.next_round, "files": self._files}
        self._write(self._folder / f"round-{number}.json", json.dumps(index, indent=1, sort_keys=True).encode())
        failpoint("checkpoint.after_index")
        self._forget()

    def latest(self) -> State | None:
        """The newest complete checkpoint; None where there is none."""
        for path in sorted(self._folder.glob("round-*.json"), reverse=True):
            try:
                index = json.loads(path.read_bytes())
                parts = {owner: self._get(*entry) for owner, entry in index["files"].items()}
            except (OSError, ValueError, KeyError, TypeError, SafetensorError):
                continue
            self._files = index["files"]
            clients = {int(owner): part for owner, part in parts.items() if owner not in (SERVER, START)}
            uploads = {client_id: _part(part, "upload") for client_id, part in clients.items()}
            return State(
                _part(parts[SERVER], "state"),
                {client_id: _part(part, "state") for client_id, part in clients.items()},
                {client_id: upload for client_id, upload in uploads.items() if upload},
                _part(parts[START], "teacher"),
                _part(parts[START], "handed_out"),
                index["next_round"],
            )
        return None

    def _put(self, owner: str, number: str, payload: Payload) -> None:
        content = save({key: value.clone(memory_format=torch.contiguous_format) for key, value in payload.items()})
        name = f"{owner}-{number}.safetensors"
        self._write(self._folder / name, content)
        self._files[owner] = [name, hashlib.sha256(content).hexdigest()]

    def _get(self, name: str, sha256: str) -> Payload:
        content = (self._folder / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError(f"{name} is not what was written")
        return load(content)

    def _forget(self) -> None:
        """Removes the indices before the last two, and files that no index names."""
        indices = sorted(self._folder.glob("round-*.json"), reverse=True)
        for path in indices[NUM_KEPT:]:
            path.unlink()
        named = {entry[0] for path in indices[:NUM_KEPT] for entry in json.loads(path.read_bytes())["files"].values()}
        for path in self._folder.glob("*.safetensors"):
            if path.name not in named:
                path.unlink()


def _nested(**payloads: Payload) -> Payload:
    """Several payloads as one, each under a name of its own."""
    return {f"{name}:{key}": value for name, payload in payloads.items() for key, value in payload.items()}


def _part(payload: Payload, name: str) -> Payload:
    return {key.removeprefix(f"{name}:"): value for key, value in payload.items() if key.startswith(f"{name}:")}
