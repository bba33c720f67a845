"""Cases listed row by row in a CSV or JSON file."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raykd.data.sources._columns import COLUMNS, look_alikes, meant_in_row
from raykd.data.sources._labels import listed_classes
from raykd.data.sources._listing import CaseFiles
from raykd.data.sources._persons import canonical
from raykd.data.sources._tables import Row, read_table, table_problem, text_of
from raykd.scenario.errors import DataError, did_you_mean

NO_ID = ("nan", "na", "n/a", "none", "null", "<na>", "nat", "-", "?", "#n/a")
"""What programs and people write where there is no id, in lower case."""
NO_TRAIT = ("nan", "<na>", "nat", "null", "n/a", "#n/a")
"""What programs write where a table has no value; words that may be a value, as `none`, are not among them."""


def read_manifest(
    path: Path, allow_unlabelled: bool, problems: list[DataError], classes: Sequence[str] = ()
) -> Iterator[CaseFiles]:
    """The cases that a manifest lists, with paths from its folder.

    Args:
        path: a .csv file with a line of column names, or a .json file with a list of objects.
        allow_unlabelled: whether some rows may lack a label while others have one; a manifest without any label is fine.
        problems: gets what is wrong with single rows, each with its line.
        classes: of the scenario, which the columns `outlined` and `absent` name; empty: these columns are not read.

    Raises:
        DataError: the file is missing, no CSV or JSON of this form, has no column `image`, or a column that looks like a known one
            which is missing.
    """
    rows = read_table(path, COLUMNS)
    if not rows:
        raise table_problem(path, 0, "a manifest must list a case in a row below its column names", "no row")
    _check_columns(path, rows)
    shared = {column for row in rows for column in ("label", "patient") if column in row.values}
    patients: dict[str, tuple[str, int]] = {}
    for row in rows:
        if row.flaw is not None:
            problems.append(row.flaw)
            continue
        found = list(_row_problems(path, row, shared - ({"label"} if allow_unlabelled else set())))
        patient = id_text(row.values.get("patient"))
        known, first = patients.setdefault(canonical(patient), (patient, row.line))
        if patient != known:
            got = f"{patient!r} here and {known!r} in line {first}"
            rule, hint = "a patient must be written one way", "write both alike, or tell them apart by more than that"
            found.append(table_problem(path, row.line, rule, got, hint))
        outlined, absent = (_classes(path, row, column, classes, found) for column in ("outlined", "absent"))
        problems += found
        files = _files_of(path, row)
        if "image" in files and all(file.is_file() for file in files.values()):
            looked_for = tuple(sorted({*outlined, *absent})) if outlined else None
            yield replace(_case(row, files, patient), outlined=looked_for, absent=tuple(absent))


def _classes(path: Path, row: Row, column: str, classes: Sequence[str], problems: list[DataError]) -> list[int]:
    """The classes that a field names, by their numbers; a word that is no class is added to `problems`."""
    named, others = listed_classes(row.values.get(column), classes) if classes else ([], [])
    rule = f"column {column!r} must name classes of the scenario"
    problems += [table_problem(path, row.line, rule, repr(word), did_you_mean(word, classes)) for word in others]
    return named


def _check_columns(path: Path, rows: Sequence[Row]) -> None:
    """Raises `DataError` where a known column is missing and another one looks like it."""
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    is_json = path.suffix.lower() == ".json"
    found = [
        str(
            table_problem(
                path,
                0 if is_json else 1,
                f"a column that looks like {column!r} must be called so",
                repr(name),
                f"rename {name!r} to {column!r}" + ("" if column == "image" else ", or otherwise where it is a trait"),
            )
        )
        for column, name in look_alikes(names).items()
    ]
    if names and "image" not in names and not any("'image'" in line for line in found):
        got = ", ".join(map(repr, names))
        found.append(str(table_problem(path, 0 if is_json else 1, "a manifest must have a column 'image' with paths in it", got)))
    if found:
        raise DataError("\n".join(found))


def _row_problems(path: Path, row: Row, needed: set[str]) -> Iterator[DataError]:
    """What is wrong with a row, given the columns that it needs because others have them."""
    line, values = row.line, row.values
    for column in ("image", "label", "patient"):
        other = meant_in_row(values, column)
        if column == "image" and column not in values:
            hint = f"rename {other!r} to 'image'" if other else ""
            yield table_problem(path, line, "a row must name an image", f"columns {', '.join(map(repr, values))}", hint)
        elif other:
            rule, hint = f"a row must name its {column} in column {column!r}", f"move it from {other!r} to {column!r}"
            yield table_problem(path, line, rule, f"{values[other]!r} in column {other!r}", hint)
        elif column in needed and column not in values:
            hint = "add it, or set allow_unlabelled: true" if column == "label" else "write one in every row, or in none"
            yield table_problem(path, line, f"a row must name a {column} where others do", "none", hint)
    for column in ("case", "patient"):
        if text_of(values.get(column)).casefold() in NO_ID:
            hint = "leave the column out where no patient is known" if column == "patient" else "leave it empty"
            yield table_problem(path, line, f"a {column} must be an id", repr(text_of(values[column])), hint)
    files = _files_of(path, row)
    for file in files.values():
        if not file.is_file():
            yield table_problem(path, line, "a file must exist", str(file), _near(file))
    if len(files) == 2 and files["image"] == files["label"]:
        yield table_problem(path, line, "a label must be another file than its image", str(files["label"]))


def _near(file: Path) -> str:
    """The hint at a file whose name differs only in case or in how its accents are encoded, or at a path of Windows."""
    if "\\" in file.name:
        return "write / between folders"
    wanted = unicodedata.normalize("NFC", file.name).casefold()
    there = sorted(file.parent.iterdir()) if file.parent.is_dir() else []
    near = [other.name for other in there if unicodedata.normalize("NFC", other.name).casefold() == wanted]
    return f"did you mean {near[0]!r}?" if near else ""


def _files_of(path: Path, row: Row) -> dict[str, Path]:
    return {column: path.parent / text_of(row.values[column]) for column in ("image", "label") if column in row.values}


def _case(row: Row, files: dict[str, Path], patient: str) -> CaseFiles:
    case_id = text_of(row.values.get("case")) or _stem(files["image"].name)
    others = {name: value for name, value in row.values.items() if name not in COLUMNS}
    traits = {name: trait(value) for name, value in others.items() if text_of(value).casefold() not in NO_TRAIT}
    return CaseFiles(case_id, patient or case_id, files["image"], files.get("label"), traits, has_patient=bool(patient))


def id_text(value: Any) -> str:
    """An id as text: `1`, 1.0 and "1.0 ", as spreadsheets write one number, are all `1`."""
    text = unicodedata.normalize("NFC", " ".join(text_of(value).split()))
    return re.sub(r"^(\d+)\.0+$", r"\1", text)


def _stem(name: str) -> str:
    """A file's name without the endings that only say its format."""
    return re.sub(r"\.gz$", "", name, flags=re.IGNORECASE).rpartition(".")[0]


def trait(value: Any) -> str | float:
    """A trait from text: a number where it is written as numbers are, so that `01`, a code, stays text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) and text in (repr(number), f"{number:.0f}") else text
