"""A study: one scenario, run with several methods, settings and seeds."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from raykd.scenario.document import KeyPath, Node, Place, as_written, format_path, locate, parse_path, set_at
from raykd.scenario.errors import Problem, ScenarioError
from raykd.scenario.fields import SafeName, Strict
from raykd.scenario.load import (
    LoadedScenario,
    Override,
    apply_overrides,
    parse_overrides,
    read_document,
    relative_file,
    validated,
)
from raykd.scenario.schema import Scenario
from raykd.scenario.yaml_reader import read_yaml

MAX_CELLS = 10_000
_MAX_ID = 120


class MethodEntry(Strict):
    """A method of a study: its settings, and what to call it in tables."""

    model_config = ConfigDict(extra="allow")

    name: str
    label: SafeName | None = Field(default=None, alias="as")
    """Tells two settings of one method apart; absent: the method's name."""


class StudyFile(Strict):
    """What a study's file may say."""

    name: SafeName | None = None
    """Of every scenario in the study; absent: the file's name."""
    description: str = ""
    base: str
    """The scenario that every cell starts from, relative to the study's file."""
    methods: Annotated[tuple[MethodEntry, ...], Field(min_length=1)] | None = None
    """Each takes the place of the base's method."""
    vary: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = {}
    """Values by key path; every combination is a cell."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1)] | None = None


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        cell_id: unique in the study (also where case does not count) and safe as a folder's name.
        method_label: what tables call the method.
        varied: the values of the study's `vary`, by key path.
        loaded: the scenario to run.
    """

    cell_id: str
    method_label: str
    varied: Mapping[str, Any]
    loaded: LoadedScenario


@dataclass(frozen=True)
class Study:
    """A study and its cells: methods outermost, then `vary` in its order, then seeds."""

    name: str
    description: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class _Draft:
    """A cell before its scenario is known to be sound."""

    label: str
    varied: dict[str, Any]
    document: Node


def is_study(path: Path) -> bool:
    """Whether the file has more of a study's own keys than of a scenario's. Raises `ScenarioError` where it cannot be read."""
    keys = read_yaml(Path(path)).value
    if not isinstance(keys, dict):
        return False
    study, scenario = set(StudyFile.model_fields), {*Scenario.model_fields, "extends"}
    return len(set(keys) & (study - scenario)) > len(set(keys) & (scenario - study))


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """The cells of a study.

    Args:
        path: the study's file.
        overrides: `key.path=value` each; one that begins with a key of the study (`seeds=[1]`) changes the study, any other
            every cell's scenario.

    Raises:
        ScenarioError: with every problem of the study, of its base and of each cell's scenario.
    """
    path = Path(path)
    settings = parse_overrides(overrides)
    of_study = [setting for setting in settings if setting.path[0] in StudyFile.model_fields]
    of_cells = [setting for setting in settings if setting.path[0] not in StudyFile.model_fields]
    document = apply_overrides(read_yaml(path), of_study)
    study = validated(document, StudyFile)
    _refuse_any(_ambiguities(study, document, of_cells))
    base_path = path.parent / relative_file(document.value["base"], "base")
    if not base_path.is_file():
        raise ScenarioError([document.value["base"].place.problem(("base",), "no such file", str(base_path))])
    name = study.name or _safe(path.stem)
    base = set_at(read_document(base_path), ("name",), Node(name, Place(str(path))))
    return Study(name, study.description, _validated_cells(_drafts(document, base, of_cells), base_path))


def _vary(document: Node) -> dict[str, Node]:
    vary = document.child("vary")
    return vary.value if vary else {}


def _choices(document: Node, key: str) -> list[Node | None]:
    """The elements of a list of the study; where it has none, the base's own value is the one choice."""
    node = document.child(key)
    return [None] if node is None or node.value is None else list(node.value)


def _ambiguities(study: StudyFile, document: Node, of_cells: Sequence[Override]) -> Iterator[Problem]:
    """Everything that leaves open what a cell is, or makes two cells the same."""
    try:
        axes = [(parse_path(key), node.place) for key, node in _vary(document).items()]
    except ValueError:
        place = document.value["vary"].place
        yield place.problem(("vary",), "must have key paths of a scenario as keys", hint="as in clients.*.labels.num_shots: [1, 2]")
        return
    axes += [(("method", "name"), document.value["methods"].place)] if study.methods else []
    axes += [(("seed",), document.value["seeds"].place)] if study.seeds else []
    for (first, _), (second, place) in itertools.combinations(axes, 2):
        if _overlap(first, second):
            yield place.problem((), f"sets {format_path(second)}, but the study also sets {format_path(first)}")
    for setting, (axis, _) in itertools.product(of_cells, axes):
        if _overlap(setting.path, axis):
            rule = f"the study itself sets {format_path(axis)}"
            yield setting.value.place.problem(setting.path, rule, hint="set the study's own methods, vary or seeds instead")
    yield from _repeats(study, document)


def _overlap(first: KeyPath, second: KeyPath) -> bool:
    """Whether setting one key path touches what is at the other."""
    return all(a == b or "*" in (a, b) for a, b in zip(first, second, strict=False))


def _repeats(study: StudyFile, document: Node) -> Iterator[Problem]:
    labels = [entry.label or entry.name for entry in study.methods or ()]
    lists: dict[KeyPath, Sequence[Any]] = {("vary", key): values for key, values in study.vary.items()}
    num_cells = math.prod(len(values) for values in (*lists.values(), study.seeds or "1", labels or "1"))
    if num_cells > MAX_CELLS:
        yield document.place.problem((), f"must have at most {MAX_CELLS} cells", str(num_cells))
    for path, values in {**lists, ("seeds",): study.seeds or (), ("methods",): labels}.items():
        counts = Counter(json.dumps(value) for value in values)
        twice = ", ".join(as_written(json.loads(value)) for value, count in counts.items() if count > 1)
        hint = "name one of them otherwise with 'as'" if path == ("methods",) else ""
        if twice:
            yield locate(document, path).place.problem(path, "must differ from one another", twice, hint)


def _drafts(document: Node, base: Node, of_cells: Sequence[Override]) -> Iterator[_Draft]:
    """The cross product. A key path that leads nowhere does so in the first cell already, which raises `ScenarioError`."""
    vary = _vary(document)
    combinations = itertools.product(*(node.value for node in vary.values()))
    for method, values, seed in itertools.product(_choices(document, "methods"), combinations, _choices(document, "seeds")):
        changes = [Override(("method",), method.without("as"))] if method else []
        changes += [Override(parse_path(key), value) for key, value in zip(vary, values, strict=True)]
        changes += [Override(("seed",), seed)] if seed else []
        cell = apply_overrides(base, [*changes, *of_cells])
        varied = {key: value.plain() for key, value in zip(vary, values, strict=True)}
        yield _Draft(_label(method, cell), varied, cell)


def _label(method: Node | None, cell: Node) -> str:
    alias = method.child("as") if method else None
    if alias is not None and alias.value is not None:
        return str(alias.value)
    name = locate(cell, ("method", "name")).value
    return name if isinstance(name, str) else "no-method"


def _validated_cells(drafts: Iterator[_Draft], base_path: Path) -> tuple[Cell, ...]:
    """The cells, or one `ScenarioError` in which each problem names the cells that have it."""
    cells: list[Cell] = []
    troubled: dict[Problem, list[str]] = {}
    taken: set[str] = set()
    for draft in drafts:
        cell_id = _cell_id(draft, taken)
        try:
            scenario = validated(draft.document, Scenario)
        except ScenarioError as error:
            for problem in error.problems:
                troubled.setdefault(problem, []).append(cell_id)
            continue
        cells.append(Cell(cell_id, draft.label, draft.varied, LoadedScenario(scenario, base_path.absolute().parent, base_path)))
    _refuse_any(_with_cells(problem, names, len(taken)) for problem, names in troubled.items())
    return tuple(cells)


def _with_cells(problem: Problem, names: list[str], num_cells: int) -> Problem:
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    where = "in every cell" if len(names) == num_cells > 1 else f"in cell {names[0]}{others}"
    return replace(problem, hint="; ".join(part for part in (problem.hint, where) if part))


def _cell_id(draft: _Draft, taken: set[str]) -> str:
    """A folder's name that says what the cell is; made unique by a hash where it would be too long or is taken."""
    seed = draft.document.child("seed")
    parts = [draft.label]
    for key, value in draft.varied.items():
        written = ".".join("all" if step == "*" else str(step) for step in parse_path(key))
        parts.append(f"{written}={value if isinstance(value, str) else json.dumps(value)}")
    title = "--".join([*parts, f"seed{seed.plain() if seed else 0}"])
    safe = "--".join(_safe(part) for part in title.split("--"))
    if len(safe) > _MAX_ID or safe.casefold() in taken:
        safe = f"{safe[: _MAX_ID - 9]}-{hashlib.sha256(title.encode()).hexdigest()[:8]}"
    taken.add(safe.casefold())
    return safe


def _safe(text: str) -> str:
    """Letters, digits and `._=-` only."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "_", text).strip("._") or "x"


def _refuse_any(problems: Iterator[Problem]) -> None:
    found = tuple(problems)
    if found:
        raise ScenarioError(found)
