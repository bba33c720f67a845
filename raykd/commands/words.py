"""Commands about the language of scenarios: what can be written, and whether what was written is right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raykd.commands.options import REFUSED, AsJson, Set, plan_scenario, plan_study, shipped_is_copied
from raykd.commands.tables import padded, wrapped

if TYPE_CHECKING:
    from raykd.data.inspection import Inspection
    from raykd.launch import Plan


def check(
    scenarios: Annotated[list[Path], typer.Argument(metavar="SCENARIO...", help="Scenarios or studies.", show_default=False)],
    set_: Set = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Says everything that is wrong with scenarios or studies, or that nothing is, without running them. Notes are no errors."""
    from raykd.scenario.errors import RaykdError, ScenarioError
    from raykd.scenario.registry import refused_plugins
    from raykd.scenario.study import is_study

    found: list[dict[str, Any]] = []
    notes = [{"file": "", "message": sentence, "level": "note"} for sentence in refused_plugins()]
    for path in scenarios:
        try:
            shipped_is_copied(path)
            plans = plan_study(path, set_, Path())[1] if is_study(path) else [plan_scenario(path, set_, Path())]
            inspections = list(_inspections(plans))
            notes += [_row(path, note, "note") for inspection in inspections for note in inspection.notes]
            if problems := [problem for inspection in inspections for problem in inspection.problems]:
                raise RaykdError("\n".join(dict.fromkeys(problems)))
            sites = len(plans[0].scenario.members())
            if not as_json:
                typer.echo(f"{path}: fine, {len(plans)} run{'s' * (len(plans) > 1)} of {sites} client{'s' * (sites > 1)}")
        except ScenarioError as error:
            found += [vars(problem) | {"message": str(problem), "level": "error"} for problem in error.problems]
        except RaykdError as error:
            found.append(_row(path, str(error), "error"))
    notes = [note for index, note in enumerate(notes) if note not in notes[:index]]
    if as_json:
        typer.echo(json.dumps([*found, *notes], indent=2))
    else:
        for told in (*found, *notes):
            typer.echo(f"{'note: ' if told['level'] == 'note' else ''}{told['message']}", err=True)
    if found:
        raise typer.Exit(REFUSED)


def _inspections(plans: Sequence[Plan]) -> Iterator[Inspection]:
    """Refuses runs that cannot be made, and opens every case once."""
    from raykd.data.checks import inspect_cases  # after the YAML was read: it imports torch
    from raykd.launch import check_plans

    check_plans(plans)
    for plan in {plan.scenario.model_dump_json(exclude={"method", "seed"}): plan for plan in plans}.values():
        yield inspect_cases(plan.scenario, plan.root)


def _row(path: Path, message: str, level: str) -> dict[str, Any]:
    return {"file": str(path), "message": message, "level": level}


KINDS = ("scenarios", "methods", "networks", "sources", "shifts", "codecs")


def list_(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="scenarios, methods, networks, sources, shifts or codecs.",
            autocompletion=lambda incomplete: [word for word in KINDS if word.startswith(incomplete)],
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Lists the scenarios that come with raykd, and what can be named in one: methods, networks, sources, shifts, codecs."""
    from raykd.scenario.errors import RaykdError, did_you_mean

    if kind not in KINDS:
        raise RaykdError(f"KIND must be one of the known words, got {kind!r}; {did_you_mean(kind, KINDS)}")
    rows = _scenarios() if kind == "scenarios" else _plugins(kind.removesuffix("s"))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        typer.echo(wrapped(f"{padded(row['name'], width)}  {row['summary']}", " " * (width + 2)))
    if kind == "scenarios":
        typer.echo("to have one here: raykd new --from NAME", err=True)


def _scenarios() -> list[dict[str, Any]]:
    from raykd.commands.shipped import shipped

    return [{"name": one.name, "kind": one.kind, "summary": one.summary, "path": str(one.path)} for one in shipped()]


def _plugins(kind: str) -> list[dict[str, Any]]:
    from raykd.scenario.registry import REGISTRIES

    rows, registry = [], REGISTRIES[kind]
    for name in registry.names():
        try:
            rows.append(_description(name, registry.get(name)))
        except Exception as error:  # of a plug-in: it hides no other
            typer.echo(f"{registry.kind} {name!r} cannot be described: {type(error).__name__}: {error}", err=True)
    for sentence in registry.refused_plugins():
        typer.echo(sentence, err=True)
    return rows


def _description(name: str, cls: Any) -> dict[str, Any]:
    """What a class says of itself and of its settings."""
    settings = {key: field.description or "" for key, field in cls.Settings.model_fields.items() if key != "name"}
    facts = cls.facts() if hasattr(cls, "facts") else {}
    return {"name": name, "summary": (cls.__doc__ or "").strip().partition("\n")[0], **facts, "settings": settings}


def schema(study: Annotated[bool, typer.Option("--study", help="That of a study instead.")] = False) -> None:
    """Prints the JSON Schema of a scenario, for editors that complete keys."""
    from raykd.scenario.json_schema import json_schema, study_schema

    typer.echo(json.dumps(study_schema() if study else json_schema(), indent=2))
