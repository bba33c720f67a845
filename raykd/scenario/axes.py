"""What a study varies: axes of values, and what would leave open which cells they make."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from raykd.scenario.document import KeyPath, Node, Place, as_written, format_path, parse_path
from raykd.scenario.errors import Problem

MAX_CELLS = 10_000
_HINT = "as in clients.*.labels.num_shots: [1, 2]"


@dataclass(frozen=True)
class Axis:
    """Keys that change together, from one cell to the next.

    Attributes:
        where: its own key path in the study's file.
        place: where it is written.
        columns: the values of each key path of a scenario.
    """

    where: KeyPath
    place: Place
    columns: dict[str, Node]

    def steps(self) -> list[dict[str, Node]]:
        """What each key is at every step of the axis."""
        return [dict(zip(self.columns, row, strict=True)) for row in zip(*self._lists(), strict=True)]

    def _lists(self) -> list[list[Node]]:
        return [column.value for column in self.columns.values()]

    def lengths(self) -> set[int]:
        """How many values its keys have: one number, if they can change together."""
        return {len(values) for values in self._lists()}


def axes_of(document: Node) -> list[Axis]:
    """The axes of a valid study: one for each key of `vary`, one for each block of `zip`, in their order."""
    vary, zipped = document.child("vary"), document.child("zip")
    axes = [Axis(("vary", key), node.place, {key: node}) for key, node in (vary.value if vary else {}).items()]
    blocks = zipped.value if zipped else []
    return axes + [Axis(("zip", index), block.place, dict(block.value)) for index, block in enumerate(blocks)]


def ambiguities(
    document: Node, axes: Sequence[Axis], methods: Sequence[str], set_keys: Sequence[tuple[KeyPath, Place]]
) -> Iterator[Problem]:
    """Everything that leaves open what a cell is, or makes two cells the same.

    Args:
        document: a valid study.
        axes: its own.
        methods: the labels of its methods.
        set_keys: key paths of every cell's scenario that options set, and where.
    """
    keys: list[tuple[KeyPath, Place]] = []
    for axis in axes:
        for key, node in axis.columns.items():
            try:
                keys.append((parse_path(key), node.place))
            except ValueError:
                block: KeyPath = ("vary",) if axis.where[0] == "vary" else axis.where
                place = document.value["vary"].place if axis.where[0] == "vary" else axis.place
                yield place.problem(block, "must have key paths of a scenario as keys", hint=_HINT)
                return
    keys += [(("method", "name"), document.value["methods"].place)] if methods else []
    seeds = document.child("seeds")
    keys += [(("seed",), seeds.place)] if seeds is not None and seeds.value else []
    left_out = document.child("leave_one_site_out")
    keys += [(("held_out",), left_out.place)] if left_out is not None and left_out.value else []
    for (first, _), (second, place) in itertools.combinations(keys, 2):
        if _overlap(first, second):
            yield place.problem((), f"sets {format_path(second)}, but the study also sets {format_path(first)}")
    for (path, place), (own, _) in itertools.product(set_keys, keys):
        if _overlap(path, own):
            hint = "set the study's own methods, vary, zip or seeds instead"
            yield place.problem(path, f"the study itself sets {format_path(own)}", hint=hint)
    yield from _uneven(axes)
    yield from _repeats(document, [axis for axis in axes if len(axis.lengths()) == 1], methods)


def _overlap(first: KeyPath, second: KeyPath) -> bool:
    """Whether setting one key path touches what is at the other."""
    return all(a == b or "*" in (a, b) for a, b in zip(first, second, strict=False))


def _uneven(axes: Sequence[Axis]) -> Iterator[Problem]:
    for axis in axes:
        if len(axis.lengths()) > 1:
            got = ", ".join(f"{key} {len(node.value)}" for key, node in axis.columns.items())
            yield axis.place.problem(axis.where, "keys that change together must have equally many values", got)


def _repeats(document: Node, axes: Sequence[Axis], methods: Sequence[str]) -> Iterator[Problem]:
    seeds = document.child("seeds")
    seed_values = seeds.plain() if seeds is not None and seeds.value else []
    num_cells = math.prod([*(len(axis.steps()) for axis in axes), len(seed_values) or 1, len(methods) or 1])
    if num_cells > MAX_CELLS:
        yield document.place.problem((), f"must have at most {MAX_CELLS} cells", str(num_cells))
    for axis in axes:
        rows = [[value.plain() for value in step.values()] for step in axis.steps()]
        yield from _twice(axis.where, axis.place, [row[0] if len(row) == 1 else row for row in rows])
    yield from _twice(("seeds",), seeds.place if seeds else Place(), seed_values)
    hint = "name one of them otherwise with 'as'"
    yield from _twice(("methods",), document.value["methods"].place if methods else Place(), methods, hint)


def _twice(path: KeyPath, place: Place, values: Sequence[object], hint: str = "") -> Iterator[Problem]:
    counts = Counter(json.dumps(value) for value in values)
    twice = ", ".join(as_written(json.loads(value)) for value, count in counts.items() if count > 1)
    if twice:
        yield place.problem(path, "must differ from one another", twice, hint)
