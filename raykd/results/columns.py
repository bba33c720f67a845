"""What a column and a table are: type, unit, meaning, and whether two runs of one scenario agree in it."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 1
"""Raised when a column changes its meaning, its unit or its type, or goes; a new column that may be null leaves it as it is.
Written into every file. A reader takes every version up to its own, and refuses a later one."""

VERSION_KEY = b"raykd_schema_version"
MEANING_KEY, UNIT_KEY, MEASURED_KEY = b"meaning", b"unit", b"is_measured"
"""In the metadata of every field of a file: what the column holds, in which unit, and whether a clock decided it."""
ADDED = "as the method that adds it says"

INTEGER, NUMBER, TEXT, TRUTH, BYTES = pa.int64(), pa.float64(), pa.string(), pa.bool_(), pa.binary()


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: as in the file; the unit comes last.
        type: pyarrow type.
        meaning: one phrase.
        unit: `mm`, `s`, `bytes`, ...; "" for names, counts and ratios.
        is_required: a row without it is refused; the others are null where absent.
        is_deterministic: False for what derives from a clock or from memory in use.
        is_repeated: a text with few different values, read as a pandas categorical.
    """

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""
    is_required: bool = False
    is_deterministic: bool = True
    is_repeated: bool = True

    def field(self) -> pa.Field:
        """The column as pyarrow writes it, with its meaning and unit beside it."""
        words = {MEANING_KEY: self.meaning, UNIT_KEY: self.unit, MEASURED_KEY: str(not self.is_deterministic).lower()}
        told = {key: word.encode() for key, word in words.items() if word}
        return pa.field(self.name, self.type, nullable=not self.is_required, metadata=told)


@dataclass(frozen=True)
class TableSchema:
    """One table.

    Attributes:
        name: the folder under `tables/`.
        row: what one row is.
        columns: the declared columns, the common ones first.
        open_prefixes: beginnings of further float columns that a method may add.
        is_of_run: False for what is found out about a run afterwards.
    """

    name: str
    row: str
    columns: tuple[Column, ...]
    open_prefixes: tuple[str, ...] = ()
    is_of_run: bool = True

    def column(self, name: str) -> Column | None:
        """The column of this name, declared or allowed by its beginning; None: the table does not have it."""
        for column in self.columns:
            if column.name == name:
                return column
        is_open = any(name.startswith(prefix) and len(name) > len(prefix) for prefix in self.open_prefixes)
        return Column(name, NUMBER, ADDED) if is_open else None

    def arrow(self, extra: tuple[str, ...] = ()) -> pa.Schema:
        """The pyarrow schema of the declared columns and of `extra`, the version in its metadata, meanings in its fields'."""
        fields = [column.field() for column in (*self.columns, *(Column(name, NUMBER, ADDED) for name in extra))]
        return pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()})
