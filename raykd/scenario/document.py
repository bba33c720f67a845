"""A document as a tree whose every value knows where it was written; what can be done to one: merge, set, look up."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from raykd.scenario.errors import Problem, ScenarioError, did_you_mean
from raykd.scenario.registry import REGISTRIES

MAX_DEPTH = 32
KeyPath = tuple[str | int, ...]

_STEP = re.compile(r"(?:^|\.)(?P<key>[A-Za-z_][A-Za-z0-9_-]*|\*)|\[(?P<index>[0-9]{1,6}|\*)\]")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Place:
    """Where a value was written: a file with its line and column (1-based), or the option that gave it (line 0)."""

    file: str = ""
    line: int = 0
    column: int = 0

    def problem(self, path: KeyPath, rule: str, got: str = "", hint: str = "") -> Problem:
        """A problem that stands here."""
        return Problem(format_path(path), rule, got, self.file, self.line, self.column, hint)


@dataclass(frozen=True)
class Node:
    """A value and its place, which in a block is the place of its key.

    Attributes:
        value: a scalar, a list of nodes, or a block: nodes by key.
        place: where it was written. Two nodes with the same value are equal wherever they stand.
    """

    value: Any
    place: Place = field(default=Place(), compare=False)

    def plain(self) -> Any:
        """The value without its places."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def child(self, step: str | int) -> Node | None:
        """The node under a key or an index; None where there is none."""
        if isinstance(self.value, dict):
            return self.value.get(step) if isinstance(step, str) else None
        if isinstance(self.value, list) and isinstance(step, int) and 0 <= step < len(self.value):
            return self.value[step]
        return None

    def with_child(self, step: str | int, child: Node) -> Node:
        """This block or list with one entry replaced (or, in a block, added)."""
        if isinstance(self.value, dict):
            return Node({**self.value, step: child}, self.place)
        return Node([child if index == step else old for index, old in enumerate(self.value)], self.place)

    def without(self, key: str) -> Node:
        """This block less a key."""
        return Node({name: child for name, child in self.value.items() if name != key}, self.place)


def from_plain(data: Any, place: Place = Place(), path: KeyPath = ()) -> Node:
    """Plain Python data (dict, list, tuple, str, int, float, bool, None) as a node; `ScenarioError` for anything else."""
    if len(path) >= MAX_DEPTH and isinstance(data, dict | list | tuple):
        raise ScenarioError([place.problem((), f"must not be nested deeper than {MAX_DEPTH} levels")])
    if isinstance(data, dict):
        for key in data:
            if not isinstance(key, str):
                raise ScenarioError([place.problem(path, "keys must be text", repr(key))])
        return Node({key: from_plain(value, place, (*path, key)) for key, value in data.items()}, place)
    if isinstance(data, list | tuple):
        return Node([from_plain(value, place, (*path, index)) for index, value in enumerate(data)], place)
    if data is not None and type(data) not in (str, int, float, bool):
        raise ScenarioError(
            [place.problem(path, "must be plain data (dict, list, text, number, true, false, null)", type(data).__name__)]
        )
    rule = scalar_rule(data)
    if rule:
        raise ScenarioError([place.problem(path, rule, as_written(data))])
    return Node(data, place)


def scalar_rule(value: Any) -> str:
    """The rule that a scalar breaks wherever it stands, or "" ."""
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "must be a number below 2^63 in size"
    if isinstance(value, str) and _UNPRINTABLE.search(value):
        return "must hold no control characters"
    return ""


def as_written(value: Any) -> str:
    """A value as an error message quotes it: on one line, in JSON, which YAML reads too."""
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number too large to print"
    text = json.dumps(value, ensure_ascii=not str(value).isprintable())
    return text if len(text) <= 80 else f"{text[:77]}..."


def format_path(path: KeyPath) -> str:
    """A key path as people write it: `clients[1].labels.num_shots`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def parse_path(text: str) -> KeyPath:
    """The steps of a written key path; `*` and `[*]` stand for every element of a list. Raises `ValueError` for anything else."""
    steps: list[str | int] = []
    end = 0
    while end < len(text):
        match = _STEP.match(text, end)
        if match is None:
            raise ValueError(f"not a key path: {text!r}")
        key, index = match["key"], match["index"]
        steps.append(key if key is not None else "*" if index == "*" else int(index))
        end = match.end()
    if not 0 < len(steps) <= MAX_DEPTH:
        raise ValueError(f"a key path has 1 to {MAX_DEPTH} steps, got {len(steps)}")
    return tuple(steps)


def locate(node: Node, path: Iterable[str | int]) -> Node:
    """The node at a key path, or the last one on the way to it."""
    for step in path:
        child = node.child(step)
        if child is None:
            break
        node = child
    return node


def _is_other_plugin(key: str | int, old: Node, name: Node | None) -> bool:
    """Whether a plug-in's block is about to change its name: the settings of one plug-in mean nothing to another."""
    before = old.child("name")
    return key in REGISTRIES and before is not None and name is not None and before != name


def merge(base: Node, over: Node) -> Node:
    """`over` laid on `base`: blocks merge, lists and scalars replace, and so does the block of a plug-in with another name."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for key, new in over.value.items():
        old = merged.get(key)
        merged[key] = new if old is None or _is_other_plugin(key, old, new.child("name")) else merge(old, new)
    return Node(merged, over.place)


def set_at(node: Node, path: KeyPath, new: Node, done: KeyPath = ()) -> Node:
    """The document with `new` at `path`; blocks missing on the way are made, list elements are not (`ScenarioError`).

    Setting the `name` of a plug-in to another one drops the settings of the old one.
    """
    if not path:
        return new
    step, rest = path[0], path[1:]
    if isinstance(step, int) or step == "*":
        return _set_in_list(node, path, new, done)
    if not isinstance(node.value, dict):
        raise ScenarioError([new.place.problem((*done, step), *_not_a_block(node, done, step))])
    child = node.child(step)
    is_absent = child is None or (child.value is None and bool(rest))
    if is_absent and rest and (isinstance(rest[0], int) or rest[0] == "*"):
        hint = did_you_mean(step, [key for key, value in node.value.items() if isinstance(value.value, list)])
        raise ScenarioError([new.place.problem((*done, step), "no such list", hint=hint)])
    if child is None or is_absent or (rest == ("name",) and _is_other_plugin(step, child, new)):
        child = Node({}, new.place)
    return node.with_child(step, set_at(child, rest, new, (*done, step)))


def _set_in_list(node: Node, path: KeyPath, new: Node, done: KeyPath) -> Node:
    step, rest = path[0], path[1:]
    where = format_path(done) or "the document"
    if not isinstance(node.value, list):
        raise ScenarioError([new.place.problem((*done, step), f"{where} is not a list")])
    count = len(node.value)
    if isinstance(step, int) and step >= count:
        hint = f"{where} has {count} elements, the first being {where}[0]"
        raise ScenarioError([new.place.problem((*done, step), "no such element", hint=hint)])
    for index in range(count) if step == "*" else [int(step)]:
        node = node.with_child(index, set_at(node.value[index], rest, new, (*done, index)))
    return node


def _not_a_block(node: Node, done: KeyPath, step: str) -> tuple[str, str, str]:
    where = format_path(done) or "the document"
    if isinstance(node.value, list):
        return f"{where} is a list, not a block", "", f"write {where}[0].{step} for its first element, {where}.*.{step} for all"
    return f"{where} is not a block", "", ""


def differences(there: Any, now: Any) -> Iterator[str]:
    """The keys in which two plain documents differ, each with both values: `seed: 3 there, 4 now`."""
    was, is_ = dict(_leaves(there)), dict(_leaves(now))
    for key in [*is_, *(key for key in was if key not in is_)]:
        if (key in was, was.get(key)) != (key in is_, is_.get(key)):
            before, after = (as_written(data[key]) if key in data else "nothing" for data in (was, is_))
            yield f"{key}: {before} there, {after} now"


def _leaves(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    items: Any = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    if not items:
        yield path, data
    for key, value in items:
        yield from _leaves(value, f"{path}[{key}]" if isinstance(data, list) else f"{path}.{key}".removeprefix("."))
