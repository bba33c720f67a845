"""Commands about the language of scenarios: what can be written, and whether what was written is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from raykd.commands.options import REFUSED, AsJson, Set, plan_scenario, plan_study


def check(
    scenarios: Annotated[list[Path], typer.Argument(metavar="SCENARIO...", help="Scenarios or studies.", show_default=False)],
    set_: Set = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Says everything that is wrong with scenarios or studies, or that nothing is, without running them. Notes are no errors."""
    from raykd.data.checks import inspect_cases
    from raykd.launch import check_plans
    from raykd.scenario.errors import RaykdError, ScenarioError
    from raykd.scenario.registry import refused_plugins
    from raykd.scenario.study import is_study

    found: list[dict[str, Any]] = []
    notes = [{"file": "", "message": sentence, "level": "note"} for sentence in refused_plugins()]
    for path in scenarios:
        try:
            plans = plan_study(path, set_, Path())[1] if is_study(path) else [plan_scenario(path, set_, Path())]
            check_plans(plans)
            for plan in {plan.scenario.model_dump_json(exclude={"method", "seed"}): plan for plan in plans}.values():
                inspection = inspect_cases(plan.scenario, plan.root)
                notes += [_row(path, note, "note") for note in inspection.notes]
                if inspection.problems:
                    raise RaykdError("\n".join(inspection.problems))
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


def _row(path: Path, message: str, level: str) -> dict[str, Any]:
    return {"file": str(path), "message": message, "level": level}


def list_(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="methods, networks, sources, shifts or codecs.")],
    as_json: AsJson = False,
) -> None:
    """Lists what can be named in a scenario: methods, networks, sources, shifts, codecs."""
    from raykd.scenario.errors import RaykdError, did_you_mean
    from raykd.scenario.registry import REGISTRIES

    registries = {f"{name}s": registry for name, registry in REGISTRIES.items()}
    if kind not in registries:
        raise RaykdError(f"KIND must be one of the known words, got {kind!r}; {did_you_mean(kind, registries)}")
    registry = registries[kind]
    rows = []
    for name in registry.names():
        try:
            rows.append(_description(name, registry.get(name)))
        except Exception as error:  # of a plug-in: it hides no other
            typer.echo(f"{registry.kind} {name!r} cannot be described: {type(error).__name__}: {error}", err=True)
    for sentence in registry.refused_plugins():
        typer.echo(sentence, err=True)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        typer.echo(f"{row['name']:<{width}}  {row['summary']}")


def _description(name: str, cls: Any) -> dict[str, Any]:
    """What a class says of itself and of its settings."""
    settings = {key: field.description or "" for key, field in cls.Settings.model_fields.items() if key != "name"}
    facts = cls.facts() if hasattr(cls, "facts") else {}
    return {"name": name, "summary": (cls.__doc__ or "").strip().partition("\n")[0], **facts, "settings": settings}


def schema(study: Annotated[bool, typer.Option("--study", help="That of a study instead.")] = False) -> None:
    """Prints the JSON Schema of a scenario, for editors that complete keys."""
    from raykd.scenario.json_schema import json_schema, study_schema

    typer.echo(json.dumps(study_schema() if study else json_schema(), indent=2))
