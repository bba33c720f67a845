"""The seam between server and clients: what crosses it is noted tensor by tensor, and what no method declared ends the run."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raykd.federation.blobs import METADATA, entries_of
from raykd.federation.protocols import Row
from raykd.federation.transport import Direction, Envelope, Sizes, coded_header, sizes_of
from raykd.methods._base import Method
from raykd.models._base import build_network
from raykd.numerics.params import kind_of
from raykd.scenario.errors import RunFailed

OF_NETWORKS = ("params", "teacher")
"""Kinds of which every entry must be one of a network's, and no larger."""
HEADER = "header"
"""The name under which the bytes of a message are noted that are no tensor."""


class Boundary:
    """What crosses in one run.

    Args:
        method: whose declarations count.
        networks: blocks of all networks of the federation.
    """

    def __init__(self, method: Method, networks: Sequence[Any]):
        self._method, self._networks = method, list(dict.fromkeys(networks))
        self._noted: dict[tuple[Any, ...], int] = {}

    def crossing(
        self, envelope: Envelope, direction: Direction, num_messages: int, *, whose: str = "", is_handed_out: bool = False
    ) -> Sizes:
        """Notes a message and gives its sizes; nothing crosses where one trainer holds everybody's data.

        Args:
            envelope: as it is sent.
            direction: down or up.
            num_messages: to or from how many clients it goes.
            whose: who sends it, for a sentence.
            is_handed_out: whether it is what clients get once, before their first round.

        Raises:
            RunFailed: it holds what the method does not declare.
        """
        if num_messages and not self._method.pools_data:
            declared = self._method.handed_kinds if is_handed_out else self._method.kinds
            for kind, blob in sorted(envelope.items()):
                self._check(kind, dict(_contents(kind, blob)), declared, f"{whose or 'the server'} ({direction})")
                for entry in _entries(blob):
                    key = (direction, kind, *entry)
                    self._noted[key] = self._noted.get(key, 0) + num_messages
        return sizes_of(envelope)

    def rows(self, round_index: int) -> list[Row]:
        """Rows of `crossings` for all that was noted since the last call."""
        noted, self._noted = self._noted, {}
        names = ("direction", "kind", "name", "dtype", "shape", "num_bytes")
        return [
            {"round": round_index, **dict(zip(names, key, strict=True)), "num_messages": count}
            for key, count in sorted(noted.items())
        ]

    def _check(self, kind: str, contents: Mapping[str, tuple[int, ...]], declared: Sequence[str], whose: str) -> None:
        name = self._method.settings.name
        if kind not in declared or any(kind_of(key) != kind for key in contents):
            key, shape = next(iter(contents.items()), (kind, ()))
            told = ", ".join(declared) or "nothing"
            raise RunFailed(
                f"{whose} would have sent {key} of shape {list(shape)}, but method {name} declares {told}; nothing of it was used; "
                "declare the kind in the method, or keep the tensor where it is"
            )
        if kind in OF_NETWORKS:
            for key, shape in contents.items():
                most = self._known.get(key.removeprefix(f"{kind}/"), 0)
                if math.prod(shape) > most:
                    raise RunFailed(
                        f"{whose} would have sent {key} of shape {list(shape)}, which is no entry of the federation's networks "
                        f"(most values there: {most}); nothing of it was used"
                    )

    @functools.cached_property
    def _known(self) -> dict[str, int]:
        """By name, the most values that an entry of a network has."""
        known: dict[str, int] = {}
        for settings in self._networks:
            for name, num_values in _entries_of_network(settings, len(self._method.scenario.classes) + 1):
                known[name] = max(known.get(name, 0), num_values)
        return known


@functools.lru_cache(maxsize=64)
def _entries_of_network(settings: Any, num_classes: int) -> tuple[tuple[str, int], ...]:
    """The entries of a network's state with their numbers of values; networks are built once for all runs of a process."""
    return tuple((name, value.numel()) for name, value in build_network(settings, num_classes, 0).state_dict().items())


def boundary_of(method: Method) -> Boundary:
    """The boundary of a scenario's federation."""
    scenario = method.scenario
    networks = [method.student_network(), *(member.student.network for member in scenario.members())]
    return Boundary(method, [*networks, scenario.repository.teacher.network])


def _contents(kind: str, blob: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of what a message stands for; of changes, those of what they change were checked before."""
    header = coded_header(blob)
    if header is None:
        yield from ((name, entry["shape"]) for name, entry in entries_of(blob)[0].items() if name != METADATA)
    else:
        yield from ((name, shape) for name, (_, shape) in json.loads(header)["like"].items())


def _entries(blob: Any) -> Iterator[tuple[str, str, str, int]]:
    """Name, type, shape and bytes of every tensor as it is sent, and the bytes that are none."""
    tensors, num_bytes = entries_of(blob)
    for name, entry in tensors.items():
        if name == METADATA:
            continue
        start, end = entry["data_offsets"]
        yield name, entry["dtype"], "x".join(map(str, entry["shape"])) or "scalar", end - start
    yield HEADER, "JSON", "", num_bytes
