"""Tables as people write them: CSV, TSV and JSON lists of objects, with rows by line and columns by name."""

from __future__ import annotations

import csv
import io
import json
import math
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raykd.scenario.errors import DataError, Problem

LEGACY_ENCODINGS = {"cp932": "Shift-JIS", "cp1252": "Western European"}
"""What tables are often written in that are not in UTF-8, by the name that Python gives it."""

LISTS = ("outlined", "absent")
"""Columns whose value may be a list in JSON."""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        line: where it begins, from 1; for JSON its position in the list.
        values: by column; columns without a value are left out.
        flaw: what is wrong with it, so that its values are not to be had; None: nothing.
    """

    line: int
    values: Mapping[str, Any]
    flaw: DataError | None = None


def table_problem(path: Path, line: int, rule: str, got: str, hint: str = "") -> DataError:
    """The refusal of a table, or of one of its rows; line 0: of the whole."""
    is_json = path.suffix.lower() == ".json"
    place = f"row {line}" if is_json and line else ""
    return DataError(str(Problem(path=place, rule=rule, got=got, file=str(path), line=0 if is_json else line, column=1, hint=hint)))


def read_table(path: Path, known: Collection[str], delimiter: str = ",") -> list[Row]:
    """The rows of a table that are not empty.

    Args:
        path: a .json file with a list of objects, or text with a line of column names.
        known: columns that may be written in any case.
        delimiter: between fields.

    Raises:
        DataError: the file cannot be read, is in another encoding than UTF-8 or separated by something else, or names a column
            twice.
    """
    if path.suffix.lower() == ".json":
        return _json_rows(path, known)
    return list(_text_rows(path, known, delimiter))


def column_name(written: str, known: Collection[str]) -> str:
    """A column's name without blanks around it; a known one in lower case."""
    name = unicodedata.normalize("NFC", " ".join(str(written).split()))
    return name.casefold() if name.casefold() in known else name


def text_of(value: Any) -> str:
    """A value as text without blanks around it: 1 and 1.0 are both `1`, null and NaN are empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return str(value).strip()


def _text_rows(path: Path, known: Collection[str], delimiter: str) -> Iterator[Row]:
    # BIDS has no quotes: a quotation mark is a character as any other.
    text = io.StringIO(_text(path), newline="")
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    reader = csv.reader(text, delimiter=delimiter, quoting=quoting, strict=True)
    columns: list[str] = []
    start = 1
    try:
        for fields in reader:
            line, start = start, reader.line_num + 1
            if not any(field.strip() for field in fields):
                continue
            if not columns:
                columns = _columns(path, line, fields, known, delimiter)
                continue
            flaw = _flaw(columns, fields)
            if flaw:
                yield Row(line, {}, table_problem(path, line, *flaw))
                continue
            yield Row(line, {name: field for name, field in zip(columns, fields, strict=False) if name and field.strip()})
    except csv.Error as error:
        raise table_problem(path, start, "a row must be well-formed CSV", str(error), "close every quotation mark") from None


def _flaw(columns: Sequence[str], fields: Sequence[str]) -> tuple[str, str] | None:
    """What is wrong with the fields of a row; empty ones beyond the columns are what spreadsheets leave behind."""
    if len(fields) < len(columns) or any(field.strip() for field in fields[len(columns) :]):
        return "a row must have as many fields as the first line", f"{len(fields)} instead of {len(columns)}"
    nameless = [field for name, field in zip(columns, fields, strict=False) if not name and field.strip()]
    return ("a value must stand in a column with a name", repr(nameless[0])) if nameless else None


def _columns(path: Path, line: int, fields: Sequence[str], known: Collection[str], delimiter: str) -> list[str]:
    for other in (";", "\t", "|", ","):
        if len(fields) == 1 and other != delimiter and other in fields[0]:
            rule = f"fields must be separated by {_named(delimiter)}"
            raise table_problem(path, line, rule, f"{_named(other)} in the first line", f"save it with {_named(delimiter)}")
    _refuse_twice(path, line, fields)
    return [column_name(field, known) for field in fields]


def _named(delimiter: str) -> str:
    return {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}[delimiter]


def _refuse_twice(path: Path, line: int, names: Sequence[str]) -> None:
    counts = Counter(_bare(name) for name in names)
    twice = ", ".join(repr(name.strip()) for name in names if _bare(name) and counts[_bare(name)] > 1)
    if twice:
        hint = "remove or rename all but one; upper and lower case do not count"
        raise table_problem(path, line, "a column must be there once", twice, hint)


def _bare(name: str) -> str:
    return column_name(name, ()).casefold()


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise table_problem(path, 0, "a table must be a readable CSV or JSON file", str(error)) from None
    hint = "save it as UTF-8, in Excel as 'CSV UTF-8'"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise table_problem(path, 1, "a table must be text in UTF-8", "UTF-16", hint)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        fitting = [f"{name} ({words})" for name, words in LEGACY_ENCODINGS.items() if _fits(content, name)]
        got = f"byte 0x{content[error.start]:02x}" + (f"; it may be in {' or '.join(fitting)}" if fitting else "")
        raise table_problem(path, line, "a table must be text in UTF-8", got, hint) from None
    if "\0" in text:
        raise table_problem(path, text[: text.index("\0")].count("\n") + 1, "a table must be text in UTF-8", "a NUL byte", hint)
    return text


def _fits(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _json_rows(path: Path, known: Collection[str]) -> list[Row]:
    def of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _refuse_twice(path, 0, [key for key, _ in pairs])
        return {column_name(key, known): value for key, value in pairs}

    try:
        rows = json.loads(_text(path), object_pairs_hook=of_pairs)
    except json.JSONDecodeError as error:
        rule, got = "a table must be a readable CSV or JSON file", str(error)
        raise DataError(str(Problem("", rule, got, str(path), error.lineno, error.colno))) from None
    except RecursionError:
        raise table_problem(path, 0, "a JSON manifest must be a list of objects", "brackets in brackets without end") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise table_problem(path, 0, "a JSON manifest must be a list of objects", type(rows).__name__)
    for line, row in enumerate(rows, start=1):
        for name, value in row.items():
            if isinstance(value, dict) or (isinstance(value, list) and name not in LISTS):
                raise table_problem(path, line, "a value must be text or a number", f"{value!r} in {name!r}")
    return [Row(line, {name: value for name, value in row.items() if text_of(value)}) for line, row in enumerate(rows, start=1)]
