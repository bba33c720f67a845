"""Cases listed row by row in a CSV or JSON file."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raykd.data.sources._files import CaseFiles
from raykd.data.sources._labels import listed_classes
from raykd.scenario.errors import DataError, Problem, did_you_mean

COLUMNS = ("image", "label", "case", "patient", "outlined", "absent")
Row = Mapping[str, Any]


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
        DataError: the file is missing, no CSV or JSON of this form, or has no column `image`.
    """
    rows = list(_rows(path))
    if not rows:
        raise _problem(path, 0, "a manifest must list a case", "no row")
    has_labels = any(_text(row, "label") for _, row in rows)
    for line, row in rows:
        if path.suffix != ".json" and (None in row or None in row.values()):
            problems.append(_problem(path, line, "a row must have as many fields as the first line", "more or fewer"))
            continue
        image, label = _text(row, "image"), _text(row, "label")
        if not image:
            problems.append(_problem(path, line, "a row must name an image", f"columns {', '.join(row)}", _near(row)))
            continue
        files = [path.parent / name for name in (image, label) if name]
        missing = [_problem(path, line, "a file must exist", str(file)) for file in files if not file.is_file()]
        problems += missing
        if missing:
            continue
        if has_labels and not label and not allow_unlabelled:
            problems.append(_problem(path, line, "a row must name a label", "none", "add it, or set allow_unlabelled: true"))
        case_id = _text(row, "case") or _stem(image)
        traits = {key: trait(value) for key, value in row.items() if key not in COLUMNS and value != ""}
        outlined, absent = (_classes(path, line, row, column, classes, problems) for column in ("outlined", "absent"))
        patient, looked_for = _text(row, "patient") or case_id, tuple(sorted({*outlined, *absent})) if outlined else None
        yield CaseFiles(case_id, patient, files[0], files[1] if label else None, traits, looked_for, tuple(absent))


def _classes(path: Path, line: int, row: Row, column: str, classes: Sequence[str], problems: list[DataError]) -> list[int]:
    """The classes that a field names, by their numbers; a word that is no class is added to `problems`."""
    named, others = listed_classes(row.get(column), classes) if classes else ([], [])
    rule = f"column {column!r} must name classes of the scenario"
    problems += [_problem(path, line, rule, repr(word), did_you_mean(word, classes)) for word in others]
    return named


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Line (for JSON the position in the list) and fields of every row."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            rows = json.loads(text)
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise _problem(path, 0, "a JSON manifest must be a list of objects", type(rows).__name__)
            yield from enumerate(rows, start=1)
            return
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _problem(path, getattr(error, "lineno", 0), "a manifest must be a readable CSV or JSON file", str(error)) from None
    reader = csv.DictReader(text.splitlines())
    columns = reader.fieldnames or ()
    if "image" not in columns:
        raise _problem(path, 1, "a manifest must have a column 'image'", ", ".join(columns), _near(columns))
    for row in reader:
        yield reader.line_num, row


def _problem(path: Path, line: int, rule: str, got: str, hint: str = "") -> DataError:
    is_json = path.suffix == ".json" and not rule.startswith("a manifest must be")
    place = f"row {line}" if is_json and line else ""
    return DataError(str(Problem(path=place, rule=rule, got=got, file=str(path), line=0 if is_json else line, column=1, hint=hint)))


def _near(columns: Any) -> str:
    return did_you_mean("image", [str(column) for column in columns or ()])


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    return "" if value is None else str(value).strip()


def _stem(name: str) -> str:
    """A file's name without the endings that only say its format."""
    return Path(name).name.removesuffix(".gz").rpartition(".")[0]


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
