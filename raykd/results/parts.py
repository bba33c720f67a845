"""The files of one table of a run, as one table of today's form."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raykd.results.columns import SCHEMA_VERSION, VERSION_KEY
from raykd.results.schema import TABLES
from raykd.results.summary import parts_of
from raykd.scenario.errors import RaykdError, did_you_mean

SCORES = ("dsc", "nsd", "hd95_mm", "assd_mm")
"""Columns of `cases` without a value where the reference is empty."""
PANDAS_TYPES = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}


def read_parts(run_dir: Path, name: str) -> pa.Table:
    """All parts of one table of a run, in the order of their names, checksums verified.

    Raises:
        RaykdError: there is no such table, a part is damaged, or it was written by a later raykd.
    """
    if name not in TABLES:
        raise RaykdError(f"there is no table '{name}'; {did_you_mean(name, TABLES)}")
    parts = [TABLES[name].arrow().empty_table()]
    for path in parts_of(run_dir, name):
        try:
            part = pq.ParquetFile(path, page_checksum_verification=True).read()
        except (pa.ArrowException, OSError) as error:
            raise RaykdError(f"{path}: the file is damaged ({str(error).splitlines()[0]}); run the scenario again") from None
        written = int((part.schema.metadata or {}).get(VERSION_KEY, b"0"))
        if written > SCHEMA_VERSION:
            raise RaykdError(f"{path}: has table schema {written}, this raykd reads up to {SCHEMA_VERSION}; install a later one")
        parts.append(_as_now(name, part, written))
    try:
        return pa.concat_tables(parts, promote_options="default")
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise RaykdError(
            f"{run_dir / 'tables' / name}: its columns are not those of raykd ({reason}); run the scenario again"
        ) from None


def _as_now(name: str, part: pa.Table, written: int) -> pa.Table:
    """A part as this raykd would have written it: before version 2 an empty reference was scored 1 or 0, now it has no score."""
    if name != "cases" or written >= 2 or "is_ref_empty" not in part.column_names:
        return part
    is_empty = pc.fill_null(part["is_ref_empty"], False)
    for column in SCORES:
        if column in part.column_names:
            index, scores = part.column_names.index(column), part[column]
            nulled = pc.if_else(is_empty, pa.scalar(None, scores.type), scores)
            part = part.set_column(index, part.schema.field(index), nulled)
    return part


def named(rows: pa.Table, run_id: str) -> pa.Table:
    """The same rows as those of a run of this name."""
    index = rows.schema.get_field_index("run_id")
    field = rows.schema.field(index)
    return rows.set_column(index, field, pa.repeat(pa.scalar(run_id, field.type), rows.num_rows))


def read_schema(run_dir: Path, name: str) -> pa.Schema:
    """The columns of one table of a run, declared and added, with the words that its files have for them."""
    return read_parts(run_dir, name).schema


def frame_of(name: str, parts: list[pa.Table]) -> pd.DataFrame:
    """Parts of one table as a frame with nullable types and categoricals for repeated texts."""
    schema = TABLES[name]
    content = pa.concat_tables([schema.arrow().empty_table(), *parts], promote_options="default")
    repeated = [c.name for c in schema.columns if pa.types.is_string(c.type) and c.is_repeated]
    return content.to_pandas(categories=repeated, types_mapper=PANDAS_TYPES.get)
