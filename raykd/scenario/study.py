"""A study: one scenario, run with several methods, settings and seeds."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from raykd.scenario.axes import ambiguities, axes_of
from raykd.scenario.document import Node, Place, locate, parse_path, set_at
from raykd.scenario.errors import Problem, ScenarioError
from raykd.scenario.fields import SafeName, Strict
from raykd.scenario.load import (
    LoadedScenario,
    Override,
    apply_overrides,
    parse_overrides,
    read_document,
    validated,
    yaml_file,
)
from raykd.scenario.schema import Scenario
from raykd.scenario.sites import site_names
from raykd.scenario.yaml_reader import read_yaml

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
    """A sentence for reports."""
    base: str
    """The scenario that every cell starts from: an absolute path, or one relative to the study's file."""
    methods: Annotated[tuple[MethodEntry, ...], Field(min_length=1)] | None = None
    """Each takes the place of the base's method."""
    vary: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = {}
    """Values by key path; every combination is a cell."""
    zip: tuple[Annotated[dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]], Field(min_length=1)], ...] = ()
    """Blocks of values by key path, equally many in each: their keys change together, from first to last, as one more thing to
    combine with the rest."""
    leave_one_site_out: bool = False
    """Whether every cell is run once a site, which then is `held_out`: the others train, and it is tested on."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1)] | None = None
    """Of the cells: each combination runs once a seed; absent: the base's own seed."""


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        cell_id: unique in the study (also where case does not count) and safe as a folder's name.
        method_label: what tables call the method.
        varied: the values of the study's `vary` and `zip`, by key path.
        loaded: the scenario to run.
    """

    cell_id: str
    method_label: str
    varied: Mapping[str, Any]
    loaded: LoadedScenario

    @property
    def settings_text(self) -> str:
        """What was varied, for a person: each key by its last word where no other key of the study ends in it."""
        last = {key: key.rsplit(".", 1)[-1] for key in self.varied}
        num = Counter(last.values())
        names = {key: word if num[word] == 1 else key for key, word in last.items()}
        return ", ".join(
            f"{names[key]}={value if isinstance(value, str) else json.dumps(value)}" for key, value in self.varied.items()
        )


@dataclass(frozen=True)
class Study:
    """A study and its cells: methods outermost, then `vary` and `zip` in their order, then seeds.

    Attributes:
        name: of every cell's scenario.
        description: a sentence or two.
        cells: in the order in which they run.
        settings: the study's file, options applied.
        base: the file of the scenario that every cell starts from.
    """

    name: str
    description: str
    cells: tuple[Cell, ...]
    settings: StudyFile
    base: Path


@dataclass(frozen=True)
class _Draft:
    """A cell before its scenario is known to be sound."""

    label: str
    varied: dict[str, Any]
    document: Node


def is_study(path: Path) -> bool:
    """Whether the file has more of a study's own keys than of a scenario's. Raises `ScenarioError` where it cannot be read."""
    study, scenario = _num_own_keys(path)
    return study > scenario


def is_scenario(path: Path) -> bool:
    """Whether the file has more of a scenario's own keys than of a study's. Raises `ScenarioError` where it cannot be read."""
    study, scenario = _num_own_keys(path)
    return scenario > study


def _num_own_keys(path: Path) -> tuple[int, int]:
    """How many keys the file has that only a study may have, and how many that only a scenario may have."""
    content = read_yaml(Path(path)).value
    keys = set(content) if isinstance(content, dict) else set()
    study, scenario = set(StudyFile.model_fields), {*Scenario.model_fields, "extends"}
    return len(keys & (study - scenario)), len(keys & (scenario - study))


def base_document(path: Path) -> Node | None:
    """The scenario that a study's file starts from, not yet validated; None where it names no file that is there."""
    base = read_yaml(Path(path)).child("base")
    file = Path(path).parent / base.value if base is not None and isinstance(base.value, str) else None
    return read_document(file) if file is not None and file.is_file() else None


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
    labels = [entry.label or entry.name for entry in study.methods or ()]
    set_keys = [(setting.path, setting.value.place) for setting in of_cells]
    _refuse_any(ambiguities(document, axes_of(document), labels, set_keys))
    base_path = path.parent / yaml_file(document.value["base"], "base")
    if not base_path.is_file():
        raise ScenarioError([document.value["base"].place.problem(("base",), "no such file", str(base_path))])
    name = study.name or _safe(path.stem)
    base = set_at(read_document(base_path), ("name",), Node(name, Place(str(path))))
    cells = _validated_cells(_drafts(document, base, of_cells), base_path)
    return Study(name, study.description, cells, study, base_path)


def _choices(document: Node, key: str) -> list[Node | None]:
    """The elements of a list of the study; where it has none, the base's own value is the one choice."""
    node = document.child(key)
    return [None] if node is None or node.value is None else list(node.value)


def _drafts(document: Node, base: Node, of_cells: Sequence[Override]) -> Iterator[_Draft]:
    """The cross product. A key path that leads nowhere does so in the first cell already, which raises `ScenarioError`."""
    combinations = list(itertools.product(*(axis.steps() for axis in axes_of(document))))
    for method, steps, seed in itertools.product(_choices(document, "methods"), combinations, _choices(document, "seeds")):
        values = {key: value for step in steps for key, value in step.items()}
        changes = [Override(("method",), method.without("as"))] if method else []
        changes += [Override(parse_path(key), value) for key, value in values.items()]
        changes += [Override(("seed",), seed)] if seed else []
        cell = apply_overrides(base, [*changes, *of_cells])
        varied = {key: value.plain() for key, value in values.items()}
        for left_out in _left_out(document, cell):
            own = apply_overrides(cell, [Override(("held_out",), left_out)]) if left_out else cell
            yield _Draft(_label(method, cell), varied | ({"held_out": left_out.value} if left_out else {}), own)


def _left_out(document: Node, cell: Node) -> list[Node | None]:
    """The sites of a cell that are left out in turn; None where the study leaves out none."""
    key, clients = document.child("leave_one_site_out"), cell.child("clients")
    if key is None or not key.value:
        return [None]
    groups = clients.plain() if clients is not None else None
    names = [name for group in (groups if isinstance(groups, list) else []) for name in site_names(group)]
    return [Node(name, key.place) for name in names] or [None]


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
