"""Strict YAML: scalars as a person means them (YAML 1.2 core), nothing that surprises, and a line number for everything.

Refused: duplicate keys, anchors, aliases, tags, merge keys, deep nesting, large files, other encodings than UTF-8, several
documents, control characters, `012`, `.nan`, `.inf`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from raykd.scenario.document import MAX_DEPTH, KeyPath, Node, Place, as_written, scalar_rule
from raykd.scenario.errors import Problem, ScenarioError

MAX_BYTES = 2**20
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_REFUSED = {
    re.compile(r"[-+]?0[0-9]+", re.ASCII): ("must not begin with 0", "write the number without it, or quote it to mean text"),
    re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII): ("must be a finite number", "quote it to mean text"),
}
_MAX_DIGITS = 400


def read_yaml(path: Path) -> Node:
    """The document of a file. Raises `ScenarioError` with every problem of the YAML itself."""
    place = Place(str(path))
    try:
        if path.exists() and not path.is_file():
            raise ScenarioError([place.problem((), "must be a file")])
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ScenarioError([place.problem((), f"cannot be read: {error.strerror}")]) from None
    if len(raw) > MAX_BYTES:
        raise ScenarioError([place.problem((), "must not be larger than 1 MiB")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise ScenarioError(
            [Place(str(path), line, column).problem((), "must be UTF-8 text", f"byte 0x{raw[error.start]:02x}")]
        ) from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, file: str, option_path: KeyPath | None = None) -> Node:
    """The one document of a YAML text; in the value of an option that sets `option_path`, every place is `file`, without a line."""
    reader = _Reader(text, file, option_path)
    node = reader.read()
    if reader.problems:
        raise ScenarioError(reader.problems)
    return node


def resolve_scalar(text: str) -> Any:
    """What an unquoted scalar means: null, true, false, a whole number, a number, or text. Raises `ValueError(rule, hint)`."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0) if len(text) < _MAX_DIGITS else 2**63
    for pattern, refusal in _REFUSED.items():
        if pattern.fullmatch(text):
            raise ValueError(*refusal)
    return float(text) if _FLOAT.fullmatch(text) else text


class _Reader:
    """Builds nodes from PyYAML's events and notes what is wrong on the way."""

    def __init__(self, text: str, file: str, option_path: KeyPath | None):
        self.text, self.file = text, file
        self.is_option = option_path is not None
        self.start: KeyPath = option_path or ()
        self.problems: list[Problem] = []

    def read(self) -> Node:
        try:
            return self._document(yaml.parse(self.text, Loader=yaml.SafeLoader))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            hint = "indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
            self._refuse(self._place(mark), self.start, f"is not YAML: {error.problem or error.context}", hint=hint)
        except yaml.reader.ReaderError as error:
            line, start = self.text.count("\n", 0, error.position) + 1, self.text.rfind("\n", 0, error.position)
            place = Place(self.file) if self.is_option else Place(self.file, line, error.position - start)
            self._refuse(place, self.start, "must hold no control characters")
        except ValueError:  # PyYAML lets int() and chr() fail on absurd directives and escapes
            self._refuse(Place(self.file), self.start, "is not YAML: an escape or a version number is out of range")
        return Node(None)

    def _document(self, events: Iterator[yaml.Event]) -> Node:
        next(events)  # the start of the stream
        start = next(events)
        if isinstance(start, yaml.StreamEndEvent):
            self._refuse(Place(self.file), self.start, "is empty")
            return Node(None)
        node = self._node(next(events), events, self.start, None)
        next(events)  # the end of the document
        end = next(events)
        if not isinstance(end, yaml.StreamEndEvent):
            self._refuse(self._place(end.start_mark), self.start, "must hold one document, got a second one")
        return node

    def _place(self, mark: Any) -> Place:
        return Place(self.file) if self.is_option or mark is None else Place(self.file, mark.line + 1, mark.column + 1)

    def _refuse(self, place: Place, path: KeyPath, rule: str, got: str = "", hint: str = "") -> None:
        self.problems.append(place.problem(path, rule, got, hint))

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], path: KeyPath, place: Place | None) -> Node:
        here = place or self._place(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            self._refuse(
                self._place(event.start_mark),
                path,
                "aliases are not allowed",
                f"*{event.anchor}",
                "write the value out, or use 'extends'",
            )
            return Node(None, here)
        self._check_plain(event, path)
        if len(path) >= MAX_DEPTH and isinstance(event, yaml.CollectionStartEvent):
            deep = self._place(event.start_mark).problem((), f"must not be nested deeper than {MAX_DEPTH} levels")
            raise ScenarioError([*self.problems, deep])
        if isinstance(event, yaml.MappingStartEvent):
            return Node(self._block(events, path), here)
        if isinstance(event, yaml.SequenceStartEvent):
            return Node(self._list(events, path), here)
        assert isinstance(event, yaml.ScalarEvent)
        return Node(self._scalar(event, path), here)

    def _check_plain(self, event: Any, path: KeyPath) -> None:
        place = self._place(event.start_mark)
        if event.anchor is not None:
            self._refuse(place, path, "anchors are not allowed", f"&{event.anchor}", "write the value out, or use 'extends'")
        if event.tag is not None:
            self._refuse(place, path, "tags are not allowed", event.tag.replace("tag:yaml.org,2002:", "!!"))

    def _list(self, events: Iterator[yaml.Event], path: KeyPath) -> list[Node]:
        nodes: list[Node] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            nodes.append(self._node(event, events, (*path, len(nodes)), None))
        return nodes

    def _block(self, events: Iterator[yaml.Event], path: KeyPath) -> dict[str, Node]:
        block: dict[str, Node] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            place = self._place(event.start_mark)
            if not isinstance(event, yaml.ScalarEvent):
                self._refuse(place, path, "keys must be text")
                self._node(event, events, (*path, "?"), place)
                self._node(next(events), events, (*path, "?"), place)
                continue
            key = event.value
            self._check_plain(event, (*path, key))
            rule = "merge keys are not allowed" if key == "<<" and event.implicit[0] else scalar_rule(key)
            if rule:
                self._refuse(place, path, rule, as_written(key))
            elif key in block:
                first = "" if self.is_option else f", first in line {block[key].place.line}"
                self._refuse(place, (*path, key), f"the key is given twice{first}")
            block[key] = self._node(next(events), events, (*path, key), place)
        return block

    def _scalar(self, event: yaml.ScalarEvent, path: KeyPath) -> Any:
        value: Any = event.value
        place = self._place(event.start_mark)
        try:
            if event.implicit[0]:
                value = resolve_scalar(event.value)
        except ValueError as error:
            self._refuse(place, path, error.args[0], event.value, error.args[1])
        rule = scalar_rule(value)
        if rule:
            self._refuse(place, path, rule, as_written(event.value))
        return value


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes what the reader above reads back: text that would mean something else is quoted, and nothing is an alias. In C where
    PyYAML has that, ten times as fast.
    """

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def write_text(self, data: str) -> yaml.Node:
        try:
            is_text = isinstance(resolve_scalar(data), str)
        except ValueError:
            is_text = False
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if is_text else "'")


_Dumper.add_representer(str, _Dumper.write_text)


def write_yaml(data: Any) -> str:
    """Plain data as YAML text, keys in their order, that `parse_yaml` reads back to the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
