"""What a study's directory says of it at one moment: the numbers behind `raykd watch STUDY_DIR`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raykd.commands.looks import Look, look
from raykd.commands.run_state import is_locked
from raykd.commands.study_record import RECORD
from raykd.commands.tables import aligned
from raykd.scenario.errors import RaykdError, ScenarioError
from raykd.scenario.yaml_reader import read_yaml

BETWEEN_RUNS_S = 120.0
"""A study of which no run was written for so long is not going on: the data of its next run are prepared in less."""
TO_DO = "to do"


@dataclass(frozen=True)
class StudyLook:
    """What a study's directory says at one moment.

    Attributes:
        name: of the study.
        cells: of every cell: cell, status (`to do` before it began), rounds_done, rounds and dsc, None where unknown.
        running: the run that is being written, if any.
        is_over: whether nobody goes on with the study.
    """

    name: str
    cells: list[dict[str, Any]]
    running: Look | None
    is_over: bool


def is_study_dir(folder: Path) -> bool:
    """Whether `raykd study` wrote here."""
    return (folder / RECORD).is_file()


def look_at_study(folder: Path) -> StudyLook:
    """What there is to see now.

    Raises:
        RaykdError: the study's record, or a file of a run, is damaged.
    """
    record = folder / RECORD
    try:
        plain = read_yaml(record).plain()
        name, names = str(plain["name"]), [str(cell["cell"]) for cell in plain["cells"]]
    except (ScenarioError, KeyError, TypeError):
        raise RaykdError(f"{record}: is damaged; see one of the runs beside it") from None
    looks = {cell: look(folder / cell) for cell in names if (folder / cell / "manifest.json").is_file()}
    running = next((seen for seen in looks.values() if seen.state["status"] == "running"), None)
    is_done = all(cell in looks and looks[cell].state["status"] == "done" for cell in names)
    is_left = running is None and time.time() - _changed_s(folder, names) > BETWEEN_RUNS_S
    return StudyLook(name, [_cell(cell, looks.get(cell)) for cell in names], running, is_done or is_left)


def _cell(name: str, seen: Look | None) -> dict[str, Any]:
    if seen is None:
        return {"cell": name, "status": TO_DO, "rounds_done": None, "rounds": None, "dsc": None}
    scores = [row["dsc"] for row in seen.rounds if row["dsc"] is not None]
    state = {key: seen.state[key] for key in ("status", "rounds_done", "rounds")}
    return {"cell": name, **state, "dsc": scores[-1] if scores else None}


def _changed_s(folder: Path, names: list[str]) -> float:
    """When a run of the study last changed; now, while one is about to be written."""
    files = [folder / RECORD, *(folder / name / file for name in names for file in ("run.lock", "manifest.json", "run.log"))]
    if any(is_locked(folder / name) for name in names):
        return time.time()
    return max(file.stat().st_mtime for file in files if file.exists())


def headline(seen: StudyLook) -> str:
    """The study in a line."""
    counts = Counter(cell["status"] for cell in seen.cells)
    words = [f"{seen.name}: {counts.pop('done', 0)} of {len(seen.cells)} runs done"]
    return ", ".join([*words, *(f"{count} {status}" for status, count in counts.items())])


def text_of(seen: StudyLook, about_run: str) -> str:
    """A look as plain text; `about_run` is the headline of the run that is being written."""
    return "\n".join([headline(seen), *([f"now {about_run}"] if about_run else []), "", aligned(list(rows_of(seen)), left=(0, 1))])


def rows_of(seen: StudyLook) -> Iterator[list[str]]:
    """Words of a table with a row per cell, heads first."""
    yield ["run", "status", "round", "DSC"]
    for cell in seen.cells:
        rounds = "-" if cell["rounds_done"] is None else f"{cell['rounds_done']} of {cell['rounds'] or '?'}"
        yield [cell["cell"], cell["status"], rounds, "-" if cell["dsc"] is None else f"{cell['dsc']:.3f}"]
