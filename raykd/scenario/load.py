"""YAML files to a validated scenario, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from raykd.scenario.document import KeyPath, Node, as_written, from_plain, merge, parse_path, set_at
from raykd.scenario.errors import Problem, ScenarioError
from raykd.scenario.expansion import Sites, draw_sites
from raykd.scenario.problems import problems_of
from raykd.scenario.schema import Scenario
from raykd.scenario.yaml_reader import parse_yaml, read_yaml, write_yaml

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class LoadedScenario:
    """A scenario and where it came from.

    Attributes:
        scenario: validated and complete.
        root: absolute; relative paths in the scenario start here. The folder of the file that was loaded, not of those it extends.
        path: that file; None for a scenario made in Python.
    """

    scenario: Scenario
    root: Path
    path: Path | None = None


@dataclass(frozen=True)
class Override:
    """One `--set KEY.PATH=VALUE`: a key path, in which `*` is every element of a list, and the value that goes there."""

    path: KeyPath
    value: Node


def load_scenario(path: Path, overrides: Sequence[str] = ()) -> LoadedScenario:
    """The scenario of a YAML file.

    Args:
        path: the file. `extends: other.yaml` in it (absolute, or relative to it) lays it on another scenario.
        overrides: `key.path=value` each, applied in order; the value is YAML.

    Raises:
        ScenarioError: with every problem found.
    """
    path = Path(path)
    settings = parse_overrides(overrides)
    document = apply_overrides(read_document(path), settings)
    return LoadedScenario(validated(document, Scenario), path.absolute().parent, path)


def scenario_from_dict(data: Mapping[str, Any], root: Path, overrides: Sequence[str] = ()) -> LoadedScenario:
    """The scenario of plain Python data, refused with the same words as a file.

    Args:
        data: what the YAML file would hold; tuples count as lists.
        root: relative paths in the scenario, and `extends`, start here.
        overrides: as for `load_scenario`.
    """
    settings = parse_overrides(overrides)
    document = _extended(from_plain(dict(data)), Path(root), ())
    return LoadedScenario(validated(apply_overrides(document, settings), Scenario), Path(root).absolute())


def dump_scenario(scenario: Scenario) -> str:
    """YAML text of the scenario with every default written out; it loads back to an equal scenario."""
    return write_yaml(scenario.model_dump(mode="json"))


def read_document(path: Path) -> Node:
    """A file laid on all that it extends, not yet validated."""
    return _extended(read_yaml(path), path.parent, (path,))


def _extended(document: Node, folder: Path, chain: tuple[Path, ...]) -> Node:
    name = document.child("extends")
    if name is None:
        return document
    base = folder / yaml_file(name, "extends")
    if base.resolve() in [file.resolve() for file in chain]:
        trail = " extends ".join(str(file) for file in (*chain, base))
        raise ScenarioError([name.place.problem(("extends",), "must not lead back to the file itself", trail)])
    if not base.is_file():
        raise ScenarioError([name.place.problem(("extends",), "no such file", str(base))])
    return merge(_extended(read_yaml(base), base.parent, (*chain, base)), document.without("extends"))


def yaml_file(node: Node, key: str) -> Path:
    """The path of a YAML file that a node holds; `ScenarioError` for anything else: no other file is read."""
    if not isinstance(node.value, str) or Path(node.value).suffix not in (".yaml", ".yml"):
        raise ScenarioError([node.place.problem((key,), "must be the path of a YAML file", as_written(node.plain()))])
    return Path(node.value)


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """The parsed `key.path=value` options. Raises `ScenarioError` for all that cannot be read."""
    parsed: list[Override] = []
    problems: list[Problem] = []
    for text in overrides:
        option = f"--set {text}"
        key, _, value = text.partition("=")
        try:
            path = parse_path(key.strip())
            if not value.strip():
                raise ValueError(text)
            parsed.append(Override(path, parse_yaml(value, option, path)))
        except ValueError:
            hint = "as in --set clients[0].labels.num_shots=1"
            problems.append(Problem("", "must be written KEY.PATH=VALUE", file=option, hint=hint))
        except ScenarioError as error:
            problems.extend(error.problems)
    if problems:
        raise ScenarioError(problems)
    return parsed


def apply_overrides(document: Node, overrides: Sequence[Override]) -> Node:
    """The document with every override set, in order. Raises `ScenarioError` for all that point nowhere."""
    problems: list[Problem] = []
    for override in overrides:
        try:
            document = set_at(document, override.path, override.value)
        except ScenarioError as error:
            problems.extend(error.problems)
    if problems:
        raise ScenarioError(problems)
    return document


def validated(document: Node, model: type[Model]) -> Model:
    """The document as a model, a scenario's draws made. Raises `ScenarioError` with all problems, each at its place."""
    sites = draw_sites(document) if model is Scenario else Sites(document)
    problems: list[Problem] = []
    try:
        checked = model.model_validate_json(json.dumps(sites.document.plain()))
    except ValidationError as error:
        loader_keys = ["extends"] if model is Scenario else []
        problems = problems_of(error.errors(include_url=False), sites.document, model, loader_keys)
    if problems or sites.refused:
        raise ScenarioError(sites.all_problems(problems))
    return checked
