"""What pydantic found, in plain sentences and at the place where the user wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from raykd.scenario.document import KeyPath, Node, as_written, locate, parse_path
from raykd.scenario.draws import DISTRIBUTIONS
from raykd.scenario.errors import Problem, did_you_mean
from raykd.scenario.shape import known_keys, shapes_of, shapes_under

_SAFE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_WHOLE, _NUMBER, _BLOCK, _LIST = "must be a whole number", "must be a number", "must be a block of keys", "must be a list"
_RULES = {
    "missing": "is required",
    "extra_forbidden": "unknown key",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "path_type": "must be text",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "finite_number": "must be a finite number",
    "literal_error": "must be {one_of}{expected}",
    "enum": "must be {one_of}{expected}",
    "tuple_type": _LIST,
    "list_type": _LIST,
    "set_type": _LIST,
    "frozen_set_type": _LIST,
    "dict_type": _BLOCK,
    "model_type": _BLOCK,
    "model_attributes_type": _BLOCK,
    "dataclass_type": _BLOCK,
    "too_short": "must have at least {min_length} elements",
    "too_long": "must have at most {max_length} elements",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "none_required": "must be null",
    "plugin_name": "must be a block with a 'name' key, as {{name: ...}}",
}
_NAMES_NO_VALUE = {"missing", "extra_forbidden", "plugin_unknown"}


@dataclass(frozen=True)
class _Finding:
    """One pydantic error, with its path in the document and the tags of unions that pydantic put between the steps."""

    path: KeyPath
    rule: str
    kind: str
    tags: tuple[str, ...]
    model: type[BaseModel]
    depth: int


def problems_of(errors: Iterable[Any], document: Node, model: type[BaseModel], loader_keys: Iterable[str] = ()) -> list[Problem]:
    """Every error of a `ValidationError`, in the order of the file.

    Args:
        errors: `error.errors(include_url=False)`.
        document: what was validated.
        model: what it was validated by: its keys are what hints are made of.
        loader_keys: further keys that a file may have, which are gone before it is validated.
    """
    located = [item for item in _flatten(errors, model, ()) if not _is_echo(item[0], locate(document, item[1]))]
    findings = [_finding(*item, document) for item in located]
    problems = {_problem(finding, document, set(loader_keys)) for finding in _join_unions(_join_lengths(findings))}
    return sorted(problems, key=position)


def position(problem: Problem) -> tuple[Any, ...]:
    """Sorts problems into the order of the file, those that stand nowhere last."""
    return problem.line == 0, problem.file, problem.line, problem.column, problem.path, problem.rule


def _is_echo(error: Any, node: Node) -> bool:
    """Whether a list is too short only because pydantic had dropped its bad elements, which are reported themselves."""
    return error["type"] == "too_short" and isinstance(node.value, list) and len(node.value) >= error["ctx"]["min_length"]


def _flatten(errors: Iterable[Any], model: type[BaseModel], prefix: KeyPath) -> Iterator[tuple[Any, KeyPath, type[BaseModel], int]]:
    """Errors with their full location, the model that raised them, and how deep that model's own block lies."""
    for error in errors:
        context = error.get("ctx", {})
        loc = (*prefix, *error["loc"])
        if error["type"] == "plugin_settings":
            yield from _flatten(context["errors"], context["model"], loc)
        else:
            yield error, (*loc, *parse_path(context["at"])) if "at" in context else loc, model, len(prefix)


def _finding(error: Any, loc: KeyPath, model: type[BaseModel], depth: int, document: Node) -> _Finding:
    node, path, tags, depth_in_path = document, [], [], 0
    for index, step in enumerate(loc):
        child = node.child(step)
        is_absent_key = error["type"] == "missing" and index == len(loc) - 1
        if child is None and not is_absent_key:
            tags.append(str(step))
            continue
        path.append(step)
        depth_in_path += index < depth
        node = child or node
    return _Finding(tuple(path), _rule(error, tags), error["type"], tuple(tags), model, depth_in_path)


def _rule(error: Any, tags: list[str]) -> str:
    context = {key: value for key, value in error.get("ctx", {}).items() if key not in ("error", "errors")}
    kind, message = error["type"], str(error["msg"])
    if kind == "string_pattern_mismatch" and context.get("pattern") == _SAFE_NAME:
        return "must be 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or a digit"
    if kind in _RULES:
        is_choice = " or " in str(context.get("expected", ""))
        rule = _RULES[kind].format(**{"one_of": "one of " if is_choice else "", **context}).replace(" 1 elements", " 1 element")
        return f"the key {rule}" if tags and tags[-1] == "[key]" else rule
    return message.removeprefix("Value error, ").removeprefix("Assertion failed, ").replace("Input should", "must")


def _join_lengths(findings: list[_Finding]) -> list[_Finding]:
    """A list of three that has one element lacks element 1 and element 2: one problem of the list."""
    lengths: dict[KeyPath, int] = {}
    for finding in findings:
        if finding.kind == "missing" and isinstance(finding.path[-1], int):
            lengths[finding.path[:-1]] = max(lengths.get(finding.path[:-1], 0), finding.path[-1] + 1)
    kept: list[_Finding] = []
    for finding in findings:
        if finding.kind == "missing" and isinstance(finding.path[-1], int):
            parent = finding.path[:-1]
            finding = replace(finding, path=parent, rule=f"must have {lengths[parent]} elements", kind="length")
        kept.append(finding)
    return list(dict.fromkeys(kept))


def _join_unions(findings: list[_Finding]) -> list[_Finding]:
    """The ways in which the branches of a union refused one value, as one rule; branches that got less far are left out."""
    joined: dict[tuple[KeyPath, str], _Finding] = {}
    for finding in findings:
        is_union = bool(finding.tags) and finding.tags[-1] != "[key]"
        if is_union and any(other.tags and _is_inside(other.path, finding.path) for other in findings):
            continue
        first = joined.setdefault((finding.path, "" if is_union else finding.rule), finding)
        if finding.rule not in first.rule:
            joined[finding.path, ""] = replace(first, rule=f"{first.rule} or {finding.rule.removeprefix('must be ')}")
    return list(joined.values())


def _is_inside(path: KeyPath, block: KeyPath) -> bool:
    return len(path) > len(block) and path[: len(block)] == block


def _problem(finding: _Finding, document: Node, loader_keys: set[str]) -> Problem:
    node = locate(document, finding.path)
    is_told = finding.kind in _NAMES_NO_VALUE or not finding.path or ", got " in finding.rule
    is_whole_block = finding.kind not in _RULES and isinstance(node.value, dict)
    value = finding.path[-1] if finding.tags[-1:] == ("[key]",) else node.plain()
    got = "" if is_told or is_whole_block else as_written(value)
    hint = ""
    if finding.kind == "extra_forbidden":
        known = _known_keys(finding) | (loader_keys if len(finding.path) == 1 else set())
        hint = did_you_mean(str(finding.path[-1]), known)
    elif isinstance(node.value, str) and finding.rule == _BLOCK and finding.path[:1] == ("methods",):
        hint = f"write {{name: {node.value}}}"
    elif isinstance(node.value, dict) and finding.kind in _RULES:
        hint = _hint_at_draw(finding.path, node)
    return node.place.problem(finding.path, finding.rule, got, hint)


def _hint_at_draw(path: KeyPath, block: Node) -> str:
    """What to say of a block in the place of a value where it looks as if the value should have been drawn."""
    if any(word in block.value for word in DISTRIBUTIONS):
        return "" if path[:1] == ("clients",) else "only the values of a client group can be drawn"
    near = did_you_mean(next(iter(block.value), ""), DISTRIBUTIONS)
    return near if near.startswith("did") else ""


def _known_keys(finding: _Finding) -> set[str]:
    """The keys of the block that holds an unknown key, as the model that refused it knows them."""
    shapes = shapes_of(finding.model)
    for step in finding.path[finding.depth : -1]:
        shapes = shapes_under(shapes, step)
    return known_keys(shapes)
