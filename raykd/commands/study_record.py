"""What a study's directory says of itself, and which of its cells are left to do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from raykd.scenario.document import as_written, differences
from raykd.scenario.errors import RaykdError, ScenarioError
from raykd.scenario.study import Cell, Study
from raykd.scenario.yaml_reader import read_yaml, write_yaml
from raykd.staging import check_out, to_begin
from raykd.storage import url_of

if TYPE_CHECKING:
    from raykd.launch import Plan

RECORD = "study.yaml"
SET_ASIDE = ".set-aside"
"""Holds what was left of unfinished cells; readers of runs pass it by."""
_MAX_TOLD = 5


def record_of(study: Study, folder: Path) -> str:
    """The text of study.yaml: the study with every option applied, and its cells."""
    settings = study.settings.model_dump(mode="json", by_alias=True, exclude={"name", "description", "base"})
    return write_yaml(
        {
            "name": study.name,
            "description": study.description,
            "base": str(study.base) if url_of(folder) else os.path.relpath(study.base, folder),
            **settings,
            "cells": [
                {
                    "cell": cell.cell_id,
                    "method": cell.method_label,
                    "varied": dict(cell.varied),
                    "seed": cell.loaded.scenario.seed,
                    "scenario_hash": cell.loaded.scenario.content_hash(),
                }
                for cell in study.cells
            ],
        }
    )


def refuse_other_study(study: Study, folder: Path) -> None:
    """Refuses to go on in a directory of something else.

    Raises:
        RaykdError: it holds no study, or one that differs, with what differs. An empty or absent directory is fine.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / RECORD).is_file():
        raise RaykdError(f"{folder}: holds no study to go on with (it has no {RECORD}); give the directory of one with --out")
    try:
        recorded = read_yaml(folder / RECORD).plain()
        differences = list(_differences(recorded, study, folder))
    except (ScenarioError, KeyError, TypeError, AttributeError):
        raise RaykdError(f"{folder / RECORD}: is damaged; run the study into another directory") from None
    if differences:
        _refuse_other_raykd(folder / cell.cell_id for cell in study.cells)
        told = differences[:_MAX_TOLD]
        more = f"\n  and {len(differences) - len(told)} more" if len(differences) > len(told) else ""
        lines = "".join(f"\n  {difference}" for difference in told)
        raise RaykdError(
            f"{folder}: holds a study that differs, so nothing was run; undo the change or give another directory with --out:"
            f"{lines}{more}"
        )


def _differences(recorded: dict[str, Any], study: Study, folder: Path) -> Iterator[str]:
    now = study.settings.model_dump(mode="json", by_alias=True)
    for key in ("methods", "vary", "zip", "seeds"):
        if recorded[key] != now[key]:
            yield f"{key}: {as_written(recorded[key])} there, {as_written(now[key])} now"
    before = {cell["cell"]: cell["scenario_hash"] for cell in recorded["cells"]}
    changed = [cell for cell in study.cells if before.get(cell.cell_id, _hash(cell)) != _hash(cell)]
    changes: dict[str, list[str]] = {}
    for cell in changed:
        for change in _changes_in(cell, folder / cell.cell_id / "scenario.yaml"):
            changes.setdefault(change, []).append(cell.cell_id)
    for change, cells in changes.items():
        yield f"{change}, in cell {cells[0]}" + (f" and {len(cells) - 1} more" if len(cells) > 1 else "")


def _hash(cell: Cell) -> str:
    return cell.loaded.scenario.content_hash()


def _changes_in(cell: Cell, file: Path) -> Iterator[str]:
    """The keys in which a cell's scenario is not the one of its run."""
    if not file.is_file():
        yield "the scenario has changed"
        return
    yield from differences(read_yaml(file).plain(), cell.loaded.scenario.model_dump(mode="json"))


def states_of(study: Study, folder: Path) -> Mapping[str, str]:
    """For every cell by its id: `done`, `unfinished` (there are remains of it), or `to do`."""
    return {cell.cell_id: state_in(folder / cell.cell_id, _hash(cell)) for cell in study.cells}


def state_in(run_dir: Path, scenario_hash: str) -> str:
    """`done`, `unfinished` (there are remains of a run) or `to do`, for a directory and the scenario that it is for."""
    if not run_dir.exists() or (run_dir.is_dir() and not any(run_dir.iterdir())):
        return "to do"
    manifest = _manifest(run_dir)
    is_done = manifest.get("status") == "done" and manifest.get("scenario_hash") == scenario_hash
    return "done" if is_done else "unfinished"


def set_aside(run_dir: Path) -> Path:
    """Moves what is left of an unfinished cell out of the way, and says where to."""
    folder = run_dir.parent / SET_ASIDE
    folder.mkdir(exist_ok=True)
    names = (run_dir.name if number == 1 else f"{run_dir.name}-{number}" for number in range(1, 10_000))
    return run_dir.rename(next(folder / name for name in names if not (folder / name).exists()))


def taken_up(plan: Plan) -> Plan:
    """The plan that goes on with an unfinished run; one that cannot go on is moved out of the way and done anew.

    Raises:
        RaykdError: another process writes it; or it is of a store and cannot go on.
    """
    from raykd.execution import refuse_written_now
    from raykd.resume import resume_plan

    refuse_written_now(plan.run_dir)
    try:
        resumed = replace(
            resume_plan(plan.run_dir), url=plan.url, settings=plan.settings, number=plan.number, num_runs=plan.num_runs
        )
        if resumed.scenario.content_hash() == plan.scenario.content_hash():
            return resumed
        raise RaykdError(f"{plan.run_dir}: holds a run of another scenario")
    except RaykdError as error:
        if plan.url:
            raise
        aside = set_aside(plan.run_dir)
        typer.echo(f"{error}: it is run anew, and what there was is in {aside}", err=True)
        return plan


def placed(plan: Plan, url: str, state: str) -> Plan:
    """The plan of a cell in a store, claimed for this machine.

    Args:
        url: of the study.
        state: of the cell, as `states_of` gives it.

    Raises:
        StorageError: it cannot be read or written there.
        RaykdError: somebody writes it, or what is there of it cannot be gone on with.
    """
    place = f"{url}/{plan.run_dir.name}"
    return taken_up(replace(plan, run_dir=check_out(place), url=place)) if state == "unfinished" else to_begin(plan, place)


def continued(plan: Plan) -> Plan | None:
    """What is left to do for a run that may have begun: the plan itself, one that goes on, or None where it is done.

    Raises:
        RaykdError: the directory holds a run of another scenario.
    """
    wanted, recorded = plan.scenario.content_hash(), _manifest(plan.run_dir).get("scenario_hash")
    if recorded is not None and recorded != wanted:
        _refuse_other_raykd([plan.run_dir])
        raise RaykdError(f"{plan.run_dir}: holds a run of another scenario, so nothing was run; give another directory with --out")
    state = state_in(plan.run_dir, wanted)
    return None if state == "done" else taken_up(plan) if state == "unfinished" else plan


def _refuse_other_raykd(run_dirs: Iterable[Path]) -> None:
    """Raises `RaykdError` where another raykd began one of the runs, which explains what differs better than the keys do."""
    from raykd.resume import refuse_other_raykd

    for run_dir in run_dirs:
        if manifest := _manifest(run_dir):
            refuse_other_raykd(run_dir, manifest)


def _manifest(run_dir: Path) -> dict[str, Any]:
    """What a run's manifest says; empty where there is none that can be read."""
    try:
        manifest = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}
