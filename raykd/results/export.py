"""The tables of runs as one file each, for programs that know neither runs nor parts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from raykd.results.reader import load_runs
from raykd.results.schema import TABLES
from raykd.scenario.errors import RaykdError


def export_tables(path: Path, out: Path, format_: str) -> dict[Path, int]:
    """Write every table that has rows.

    Args:
        path: the directory of a run, or of a study with runs below.
        out: a directory; made where there is none. Files of the same name are replaced only once all tables have been read.
        format_: `parquet`, or `csv`, which leaves out columns of bytes.

    Returns:
        The files written, with their number of rows.

    Raises:
        RaykdError: there is no run, a file of one is damaged, or nothing can be written in `out`.
    """
    runs = load_runs([path]).runs
    tables = {name: pa.concat_tables([run.parts(name) for run in runs], promote_options="default") for name in TABLES}
    written = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            if table.num_rows:
                file = out / f"{name}.{format_}"
                _write(table, file, format_)
                written[file] = table.num_rows
    except OSError as error:
        raise RaykdError(f"{out}: the tables cannot be written there ({error.strerror}); give another place with --out") from None
    return written


def _write(table: pa.Table, file: Path, format_: str) -> None:
    if format_ == "parquet":
        pq.write_table(table, file, compression="zstd")
    else:
        words = [field.name for field in table.schema if not pa.types.is_binary(field.type)]
        pa_csv.write_csv(table.select(words), file)
