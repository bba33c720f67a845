"""Writes docs/tables.md from the schema: `python docs/make_tables.py`. A test keeps the two equal."""

from __future__ import annotations

from pathlib import Path

from raykd.results.columns import Column, TableSchema
from raykd.results.schema import COMMON, TABLES

HEAD = """# The tables of a run

Every table is long and tidy: Parquet parts under `tables/NAME/`, one part a round. Every row carries `run_id`, `scenario`,
`method` and `seed`. Round 0 is the first; -1 marks what happens before it. Two runs of one scenario and seed agree in every column
that is not marked *measured*.

The same words are in the files themselves: each field of a Parquet file carries `meaning` and `unit` (and `is_measured`) in its
metadata, and the file carries `raykd_schema_version`. `raykd.load_runs(...).dictionary` is this page as a frame, with the columns
that methods add. The version is raised when a column changes its meaning, unit or type, or goes; a column that is new, and may be
null, does not raise it. Every raykd reads every earlier version, for ever: a run of version 1 is among its tests. A later one is
refused.
"""


def rows(table: TableSchema) -> list[str]:
    """One line of Markdown a column, the common ones left out."""
    common = {column.name for column in COMMON}
    return [row(column) for column in table.columns if column.name not in common]


def row(column: Column) -> str:
    """Name, type, unit and meaning."""
    measured = "" if column.is_deterministic else " *(measured)*"
    return f"| `{column.name}` | {column.type} | {column.unit} | {column.meaning}{measured} |"


def markdown() -> str:
    """The whole page."""
    parts = [HEAD]
    for table in TABLES.values():
        parts.append(f"\n## {table.name}\n\nA row is {table.row}.\n\n| column | type | unit | meaning |\n|---|---|---|---|")
        parts += rows(table)
        if table.open_prefixes:
            parts.append(f"\nMethods may add float columns that begin with {', '.join(f'`{p}`' for p in table.open_prefixes)}.")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("tables.md").write_text(markdown(), encoding="utf-8")
