"""Opening run directories, and the tables of one or many of them as pandas frames."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml

from raykd.results.access import TableAccess
from raykd.results.dictionary import dictionary
from raykd.results.parts import frame_of, named, read_parts, read_schema
from raykd.results.schema import TABLES
from raykd.results.summary import headline, tables_text
from raykd.scenario.errors import RaykdError
from raykd.storage import local_copy

STUDY_RECORD = "study.yaml"
"""Beside the run directories of a study, what it varied."""
STUDY_DEPTH = 3
"""How many folders below a study's own a run may lie."""

NUM_SHOWN = 5
"""Runs that the text of `Tables` names; it tells how many more there are."""


@dataclass(frozen=True, repr=False)
class Run(TableAccess):
    """A run directory, finished or not.

    Attributes:
        path: the directory.
        manifest: the content of `manifest.json`.
        scenario: the content of `scenario.yaml`.
        without: tables that are taken to be empty, whatever their files hold.
        own_id: the run's name where it stands beside another run of its `run_id`, as a reproduction does; "": the `run_id`.
    """

    path: Path
    manifest: dict[str, Any]
    scenario: dict[str, Any]
    without: frozenset[str] = frozenset()
    own_id: str = ""

    @property
    def run_id(self) -> str:
        """The run's name in every table that is read."""
        return self.own_id or str(self.manifest["run_id"])

    def parts(self, name: str) -> pa.Table:
        """All rows of a table under the run's name.

        Raises:
            RaykdError: there is no such table, or a file of it cannot be read.
        """
        rows = read_parts(self.path, name)
        return named(rows, self.own_id) if self.own_id else rows

    def table(self, name: str) -> pd.DataFrame:
        return Tables((self,)).table(name)

    def scores(self) -> pd.DataFrame:
        return Tables((self,)).scores()

    def __repr__(self) -> str:
        return f"Run of {headline(self.scenario, self.manifest)}\n  path: {self.path}\n{tables_text([(self.path, _names(self))])}"


@dataclass(frozen=True, repr=False)
class Tables(TableAccess):
    """The tables of several runs, one below the other.

    Attributes:
        runs: the runs, each once, in the order given.
    """

    runs: tuple[Run, ...]

    def __repr__(self) -> str:
        shown = self.runs if len(self.runs) <= NUM_SHOWN + 1 else self.runs[:NUM_SHOWN]
        lines = [f"Tables of {len(self.runs)} run{'s' * (len(self.runs) != 1)}"]
        lines += [f"  {run.path}: {headline(run.scenario, run.manifest)}" for run in shown]
        lines += [f"  and {len(self.runs) - len(shown)} more"] if len(shown) < len(self.runs) else []
        return "\n".join([*lines, tables_text((run.path, _names(run)) for run in self.runs)])

    def table(self, name: str) -> pd.DataFrame:
        return frame_of(name, [run.parts(name) for run in self.runs if name not in run.without])

    def scores(self) -> pd.DataFrame:
        from raykd.results.statistics.scores import patient_class_scores

        return patient_class_scores(self.cases, self.clients, deployed_models(self.runs))

    @property
    def dictionary(self) -> pd.DataFrame:
        """What every column holds, those included that the runs' methods added; see `raykd.results.dictionary.dictionary`."""
        return dictionary({name: pa.unify_schemas([read_schema(run.path, name) for run in self.runs]) for name in TABLES})


def deployed_models(runs: Iterable[Run]) -> dict[str, str]:
    """Run_id to the model that sites deploy in the end, of the runs that say so."""
    return {run.run_id: str(run.manifest["deployed"]) for run in runs if "deployed" in run.manifest}


def _names(run: Run) -> list[str]:
    """The tables of a run that count."""
    return [name for name in TABLES if name not in run.without]


def open_run(path: str | Path | Iterable[str | Path]) -> Run:
    """Open a run directory, finished or not; of a URL a copy of it, without checkpoints and models.

    Args:
        path: one directory; a list of one will do.

    Raises:
        RaykdError: several are given, or `manifest.json` or `scenario.yaml` is missing or cannot be read.
    """
    places = each_path(path)
    if len(places) != 1:
        raise RaykdError(f"open_run opens one run, got {len(places)} directories; load_runs opens several")
    path = local_copy(places[0])
    manifest = _read_mapping(path / "manifest.json", json.loads)
    scenario = _read_mapping(path / "scenario.yaml", _parse_yaml)
    missing = {"run_id", "status"} - manifest.keys()
    if missing:
        raise RaykdError(f"{path / 'manifest.json'}: it must have {' and '.join(sorted(missing))}; run the scenario again")
    return Run(path, manifest, scenario)


def varied_in_study(run: Run) -> dict[str, Any] | None:
    """The values of a study's `vary` and `zip` in a run, by key path, as the study's record has them; None: it is in no study.

    A value that sites draw is told as its distribution there.
    """
    try:
        record = run.path.parent / STUDY_RECORD
        cell = _cells_of(record, record.stat().st_mtime_ns)[run.path.name]
        return dict(cell["varied"]) if cell["scenario_hash"] == run.manifest.get("scenario_hash") else None
    except (RaykdError, OSError, KeyError, TypeError, ValueError):
        return None


@functools.lru_cache(maxsize=16)
def _cells_of(record: Path, written_ns: int) -> dict[str, dict[str, Any]]:
    """The cells of a study's record by name; `written_ns` tells one state of the file from another."""
    return {cell["cell"]: cell for cell in _read_mapping(record, _parse_yaml)["cells"]}


def load_runs(paths: str | Path | Iterable[str | Path]) -> Tables:
    """Open every run in the given directories, each run once.

    A run whose `run_id` another one has, as a reproduction has that of its original, goes by its `run_id` and its directory's name.

    Args:
        paths: one directory or several: run directories, URLs of such, or study directories with run directories at most three
            folders below.

    Raises:
        RaykdError: a directory holds no run, or a run cannot be opened.
    """
    return Tables(told_apart(map(open_run, find_run_dirs(paths))))


def told_apart(runs: Iterable[Run]) -> tuple[Run, ...]:
    """The same runs, each with a `run_id` that no other has: from the second of a name on with the directory's name in brackets."""
    taken: dict[str, Run] = {}
    for run in runs:
        first = run.run_id
        placed = f"{first} ({run.path.resolve().name})"
        names = itertools.chain([first, placed], (f"{placed} ({number})" for number in itertools.count(2)))
        name = next(name for name in names if name not in taken)
        taken[name] = run if name == first else replace(run, own_id=name)
    return tuple(taken.values())


def each_path(paths: str | Path | Iterable[str | Path]) -> tuple[str | Path, ...]:
    """One path or several, as several. A text is one path, never its letters."""
    return (paths,) if isinstance(paths, str | Path) else tuple(paths)


def find_run_dirs(paths: str | Path | Iterable[str | Path]) -> tuple[Path, ...]:
    """The run directories in the given run or study directories, sorted within each, each once.

    Raises:
        RaykdError: no path is given, or a path is no directory, or holds no run.
    """
    found: dict[Path, Path] = {}
    places = each_path(paths)
    if not places:
        raise RaykdError("no directory was given; give that of a run or of a study")
    for path in map(local_copy, places):
        directories = sorted(_runs_below(path, STUDY_DEPTH)) if path.is_dir() else []
        if not directories:
            what = "no run was found in it (a run has manifest.json)" if path.is_dir() else "there is no such directory"
            raise RaykdError(f"{path}: {what}; give the directory that `raykd run` or `raykd study` printed last")
        for directory in directories:
            found.setdefault(directory.resolve(), directory)
    return tuple(found.values())


def _runs_below(path: Path, depth: int) -> Iterator[Path]:
    if any((path / name).exists() for name in ("manifest.json", "scenario.yaml", "tables")):
        yield path
    elif depth:
        for child in path.iterdir():
            if child.is_dir() and not child.name.startswith("."):
                yield from _runs_below(child, depth - 1)


def _parse_yaml(text: str) -> Any:
    """YAML by the parser in C where PyYAML was built with it: ten times faster, and a study has a file a run."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _read_mapping(path: Path, parse: Any) -> dict[str, Any]:
    if not path.is_file():
        raise RaykdError(f"{path.parent}: not a run directory, or a run that hardly started: it has no {path.name}")
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise RaykdError(f"{path}: the file is damaged ({str(error).splitlines()[0]}); run the scenario again") from None
    if not isinstance(content, dict):
        raise RaykdError(f"{path}: the file must hold keys and values, got {type(content).__name__}; run the scenario again")
    return content
