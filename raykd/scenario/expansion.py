"""Groups with draws become one group a site, before anything is validated."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from raykd.scenario.document import KeyPath, Node, as_written, format_path, from_plain
from raykd.scenario.draws import DISTRIBUTIONS, Draw, draw_number, draw_shares, stream
from raykd.scenario.errors import Problem
from raykd.scenario.labels import normal
from raykd.scenario.problems import position, problems_of
from raykd.scenario.shape import Shape, is_whole, known_keys, shapes_of, shapes_under, with_plugins
from raykd.scenario.sites import ClientGroup

MAX_SITES = 10_000
_OF_A_GROUP = re.compile(r"clients\[(?P<index>[0-9]+)\](?=[.\[]|$)")
NEVER_DRAWN = ("group", "count", "name", "drawn")
"""Keys of a client group that hold what is written there; below them, so does the `name` of a plug-in."""


@dataclass
class _Site:
    """One site while its draws are made.

    Attributes:
        seed: of the scenario.
        group, name: its own.
        index, count: which of how many sites of the group it is.
        at: the key path of its group.
        drawn: what it drew, by key path in the group.
        refused: what is wrong with draws, by the key paths of those that cannot be made.
    """

    seed: int
    group: str
    name: str
    index: int
    count: int
    at: KeyPath
    drawn: dict[str, Node] = field(default_factory=dict)
    refused: dict[str, list[Problem]] = field(default_factory=dict)

    def settle(self, node: Node, path: KeyPath, shapes: list[Shape], num_choices: int = 0) -> Node:
        """The value with nothing left to draw in it; what cannot be drawn stays as it was written."""
        if not _mentions_draw(node):
            return node
        shapes = with_plugins(shapes, node)
        if _is_draw(node, shapes):
            return self._draw(node, path, shapes, num_choices)
        items = enumerate(node.value) if isinstance(node.value, list) else list(node.value.items())
        for step, child in items:
            if path or step != "drawn":
                settled = self.settle(child, (*path, step), shapes_under(shapes, step), num_choices)
                node = node.with_child(step, settled)
        return node

    def _draw(self, node: Node, path: KeyPath, shapes: list[Shape], num_choices: int) -> Node:
        try:
            draw = Draw.model_validate_json(json.dumps(node.plain()))
        except ValidationError as error:
            where = format_path((*self.at, *path))
            found = problems_of(error.errors(include_url=False), node, Draw)
            self.refused[where] = [replace(one, path=f"{where}.{one.path}" if one.path else where) for one in found]
            return node
        rule, hint = self._refusal(draw, path, num_choices)
        if not rule:
            try:
                value = self._value(draw, node, path, shapes, num_choices)
            except ValueError as error:
                rule = str(error)
        if rule:
            whole = (*self.at, *path)
            self.refused[format_path(whole)] = [node.place.problem(whole, rule, as_written(node.plain()), hint)]
            return node
        self.drawn[format_path(path)] = value
        return value

    def _refusal(self, draw: Draw, path: KeyPath, num_choices: int) -> tuple[str, str]:
        if not path:
            return "a whole group cannot be drawn", "write a group for each, and draw its values"
        if path[-1] == "name" or (len(path) == 1 and path[0] in NEVER_DRAWN):
            hint = "draw the whole block, as in {choice: [{name: a}, {name: b}]}" if len(path) > 1 else ""
            return "cannot be drawn", hint
        if draw.dirichlet is not None and num_choices:
            return "shares of a total cannot stand in a choice: other sites would lack theirs", ""
        if draw.dirichlet is not None and draw.dirichlet.total < self.count:
            return f"total must be at least the group's count, {self.count}", ""
        return "", ""

    def _value(self, draw: Draw, node: Node, path: KeyPath, shapes: list[Shape], num_choices: int) -> Node:
        key = format_path(path)
        rng = stream(self.seed, self.name, key, *["choice"] * num_choices)
        if draw.dirichlet is not None:
            return Node(draw_shares(draw.dirichlet, self.count, stream(self.seed, self.group, key))[self.index], node.place)
        if draw.choice is None:
            return Node(draw_number(draw, rng, is_whole(shapes)), node.place)
        chosen = node.value["choice"].value[int(rng.random() * len(draw.choice))]
        return replace(self.settle(chosen, path, shapes, num_choices + 1), place=node.place)


@dataclass(frozen=True)
class Sites:
    """A scenario's document with every draw made.

    Attributes:
        document: without draws.
        origins: for every group in it, the index of the group as written.
        drawn: for every group in it, the key paths that were drawn, and the site's name.
        refused: what is wrong with draws, by the key paths of those that cannot be made, which still stand in the document.
    """

    document: Node
    origins: tuple[int, ...] = ()
    drawn: tuple[tuple[str, frozenset[str]], ...] = ()
    refused: Mapping[str, Sequence[Problem]] = field(default_factory=dict)

    def all_problems(self, of_values: list[Problem]) -> list[Problem]:
        """The problems of draws and of values, each once, by the key paths that were written."""
        of_draws = [problem for problems in self.refused.values() for problem in problems]
        sites: dict[Problem, list[str]] = {}
        for written, name in map(self._as_written, of_values):
            if not any(_is_at(written.path, path) or _is_at(path, written.path) for path in self.refused):
                sites.setdefault(written, []).extend(name)
        of_sites = [_with_sites(problem, names) for problem, names in sites.items()]
        return sorted({*of_draws, *of_sites}, key=position)

    def _as_written(self, problem: Problem) -> tuple[Problem, list[str]]:
        """The problem at the key path that was written, and the site that drew the value, if one did."""
        match = _OF_A_GROUP.match(problem.path)
        if match is None or int(match["index"]) >= len(self.origins):
            return problem, []
        index = int(match["index"])
        rest, (name, paths) = problem.path[match.end() :], self.drawn[index]
        is_drawn = any(_is_at(rest.removeprefix("."), path) for path in paths)
        return replace(problem, path=f"clients[{self.origins[index]}]{rest}"), [name] if is_drawn else []


def _with_sites(problem: Problem, names: list[str]) -> Problem:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    hints = [problem.hint, f"drawn for {names[0]}{more}"] if names else [problem.hint]
    return replace(problem, hint="; ".join(hint for hint in hints if hint))


def draw_sites(document: Node) -> Sites:
    """Every group with draws as one group a site, named and with a record of what it drew."""
    clients, seed = document.child("clients"), document.child("seed")
    if clients is None or not isinstance(clients.value, list):
        return Sites(document)
    groups: list[Node] = []
    origins: list[int] = []
    drawn: list[tuple[str, frozenset[str]]] = []
    refused: dict[str, list[Problem]] = {}
    number = seed.value if seed is not None and type(seed.value) is int else 0
    for index, group in enumerate(clients.value):
        for site, settled in _sites_of(group, number, index):
            groups.append(settled)
            origins.append(index)
            drawn.append((site.name, frozenset(site.drawn)))
            refused |= site.refused
    whole = document.with_child("clients", Node(groups, clients.place))
    return Sites(whole, tuple(origins), tuple(drawn), refused)


def _sites_of(group: Node, seed: int, index: int) -> list[tuple[_Site, Node]]:
    name, count = _text(group, "group"), _count(group)
    found = []
    for number in range(count):
        own = (_text(group, "name") or name) if count == 1 else f"{name}-{number}"
        site = _Site(seed, name, own, number, count, ("clients", index))
        settled = site.settle(group, (), shapes_of(ClientGroup))
        if not site.drawn:
            return [(site, group)]
        record = from_plain({key: value.plain() for key, value in site.drawn.items()}, group.place)
        settled = settled.with_child("drawn", record)
        if count > 1:
            settled = settled.without("count").with_child("name", Node(own, group.place))
        found.append((site, settled))
    return found


def _text(group: Node, key: str) -> str:
    node = group.child(key)
    return normal(node.value) if node is not None and isinstance(node.value, str) else ""


def _count(group: Node) -> int:
    """How many sites there are to draw for; 1 where `count` cannot be what it is, which validation will say."""
    node = group.child("count")
    is_fine = node is not None and type(node.value) is int and 1 <= node.value <= MAX_SITES and not _text(group, "name")
    return node.value if node is not None and is_fine else 1


def _mentions_draw(node: Node) -> bool:
    if isinstance(node.value, dict):
        return any(key in node.value for key in DISTRIBUTIONS) or any(_mentions_draw(child) for child in node.value.values())
    return isinstance(node.value, list) and any(_mentions_draw(child) for child in node.value)


def _is_draw(node: Node, shapes: list[Shape]) -> bool:
    """Whether a block is a draw: it has a distribution's word for a key, and the settings do not know it as theirs."""
    words = {key for key in DISTRIBUTIONS if isinstance(node.value, dict) and key in node.value}
    return bool(words - known_keys(shapes))


def _is_at(path: str, other: str) -> bool:
    """Whether one written key path is another one or leads on from it."""
    return path == other or path.startswith((f"{other}.", f"{other}["))
