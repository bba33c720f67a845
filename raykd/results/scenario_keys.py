"""The settings of a run's scenario by key path: groups of sites go by name, and what was drawn stands apart."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from raykd.results.reader import Run, varied_in_study

NOT_A_DIFFERENCE = ("seed", "name", "description", "resources")
"""Blocks of a scenario that make no other condition."""
DRAWN = "drawn"
"""Stands in the place of a value that every site draws."""
PRESENT = json.dumps("present")

Path = tuple[str, ...]


@dataclass(frozen=True)
class RunSettings:
    """What a scenario says.

    Attributes:
        flat: key path to value in JSON; of a group of sites at `("clients", GROUP, ...)`.
        draws: the key paths in `flat` that are drawn, each with what every site drew, in JSON.
    """

    flat: dict[Path, str]
    draws: dict[Path, str] = field(default_factory=dict)


def settings_of(runs: Sequence[Run]) -> dict[str, RunSettings]:
    """The settings of runs by run_id, such that two runs agree in a key path where the same was written.

    What a site drew is no setting, or every seed would be one. The distribution is: it is known of runs in a study's directory. Of
    other runs it is known to differ where runs of one seed drew different values, and then these values are settings.
    """
    found = {run.run_id: run_settings(run.scenario) for run in runs}
    origins = {run.run_id: run.run_id for run in runs}
    for run in runs:
        own = found[run.run_id]
        varied = varied_in_study(run) if own.draws else None
        if varied is not None:
            origins[run.run_id] = str(run.path.parent)
            own.flat.update(_distributions(own, varied))
    for path in _of_other_distributions(runs, found, origins):
        for own in found.values():
            if path in own.draws:
                own.flat[path] = own.draws[path]
    return found


def _distributions(own: RunSettings, varied: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """What was written at the key paths that are drawn, of those that the study varied."""
    groups = list(dict.fromkeys(path[1] for path in own.flat if path[0] == "clients"))
    for key, value in varied.items():
        top, *rest = _steps(key)
        if top != "clients" or not rest:
            continue
        group = groups[int(rest[0])] if rest[0].isdigit() and int(rest[0]) < len(groups) else rest[0]
        for path in own.draws:
            is_there = group in ("*", path[1]) and path[2:][: len(rest) - 1] == tuple(rest[1:])
            if is_there:
                yield path, in_json(value)


def run_settings(scenario: Mapping[str, Any]) -> RunSettings:
    """One scenario as it was resolved. Values that mean the same, as 2 and 2.0, are the same."""
    settings = RunSettings({})
    clients = scenario.get("clients") or []
    others = {key: value for key, value in scenario.items() if key not in (*NOT_A_DIFFERENCE, "clients")}
    settings.flat.update(_flatten(others, ()))
    for group, entries in _by_group(clients).items():
        for name, block in _blocks(group, entries, settings.draws).items():
            settings.flat["clients", name] = PRESENT
            settings.flat.update(_flatten(block, ("clients", name)))
    return settings


def in_json(value: Any) -> str:
    """A value as text that is equal for equal values."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _flatten(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _flatten(child, (*path, str(key)))
    elif isinstance(value, list) and any(isinstance(child, dict) for child in value):
        for index, child in enumerate(value):
            yield from _flatten(child, (*path, str(index)))
    else:
        yield path, in_json(value)


def _by_group(clients: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The entries of `clients` by the name of their group; one without a name goes by its number."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for index, entry in enumerate(clients):
        groups.setdefault(str(entry.get("group") or index), []).append(entry)
    return groups


def _blocks(group: str, entries: Sequence[Mapping[str, Any]], draws: dict[Path, str]) -> dict[str, dict[str, Any]]:
    """A group's entries as one block with their number as `count`, or, where they differ in more than what was drawn, by site.

    Args:
        group: its name.
        entries: of `clients`.
        draws: takes what was drawn.
    """
    blocks = {_name(entry, group, index): _without_draws(entry) for index, entry in enumerate(entries)}
    is_one = len({in_json(block) for block in blocks.values()}) == 1
    drawn: dict[Path, dict[str, Any]] = {}
    for index, entry in enumerate(entries):
        site = _name(entry, group, index)
        for path, value in _drawn(entry).items():
            drawn.setdefault(("clients", group if is_one else site, *path), {})[site] = value
    draws.update({path: in_json(values) for path, values in drawn.items()})
    if not is_one:
        return blocks
    return {group: {**next(iter(blocks.values())), "count": sum(int(entry.get("count", 1)) for entry in entries)}}


def _name(entry: Mapping[str, Any], group: str, index: int) -> str:
    return str(entry.get("name") or (group if index == 0 else f"{group}#{index}"))


def _without_draws(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of an entry with a word in the place of each value that was drawn, without its names and number."""
    block = {key: deepcopy(value) for key, value in entry.items() if key not in ("group", "name", "drawn", "count")}
    for *above, last in _drawn(entry):
        parent: Any = block
        for step in above:
            parent = _child(parent, step)
        if isinstance(parent, list) and last.isdigit() and int(last) < len(parent):
            parent[int(last)] = DRAWN
        elif isinstance(parent, dict):
            parent[last] = DRAWN
    return block


def _drawn(entry: Mapping[str, Any]) -> dict[Path, Any]:
    """What a site drew by key path; of a block that was drawn whole, the block alone."""
    found: dict[Path, Any] = {}
    paths = {tuple(_steps(key)): value for key, value in (entry.get("drawn") or {}).items()}
    for path in sorted(paths, key=len):
        if not any(path[: len(known)] == known for known in found):
            found[path] = paths[path]
    return found


def _child(parent: Any, step: str) -> Any:
    if isinstance(parent, list):
        return parent[int(step)] if step.isdigit() and int(step) < len(parent) else None
    return parent.get(step) if isinstance(parent, dict) else None


def _steps(key: str) -> list[str]:
    """The steps of a written key path: `spacing_mm[0]` has two."""
    return [step for step in re.split(r"[.\[\]]+", key) if step]


def _of_other_distributions(runs: Sequence[Run], found: Mapping[str, RunSettings], origins: Mapping[str, str]) -> Iterator[Path]:
    """Key paths at which runs of one seed, but not of one study, drew different values."""
    paths = dict.fromkeys(path for settings in found.values() for path in settings.draws)
    for path in paths:
        by_seed: dict[int, set[tuple[str, str]]] = {}
        for run in runs:
            if path in found[run.run_id].draws:
                drawn = (origins[run.run_id], found[run.run_id].draws[path])
                by_seed.setdefault(int(run.scenario.get("seed", 0)), set()).add(drawn)
        if any(a[0] != b[0] and a[1] != b[1] for pairs in by_seed.values() for a in pairs for b in pairs):
            yield path
