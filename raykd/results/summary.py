"""What a run directory holds, in a few words: for the `repr` of runs and of tables."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

WIDTH = 100
"""Columns of the text."""


def parts_of(run_dir: Path, name: str) -> list[Path]:
    """The files of one table of a run, in the order in which they were written."""
    return sorted((run_dir / "tables" / name).glob("[!.]*.parquet"))


def headline(scenario: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """A run in a line: scenario, method, seed and status."""
    method = manifest.get("method") or (scenario.get("method") or {}).get("name", "?")
    words = [scenario.get("name", "?"), method, f"seed {scenario.get('seed', '?')}"]
    return f"{', '.join(map(str, words))}: {manifest['status']}"


def tables_text(folders: Iterable[tuple[Path, Iterable[str]]]) -> str:
    """The tables that have rows, and how many; "?" where a file cannot be read.

    Args:
        folders: run directories, each with the names of its tables that count.
    """
    counts: dict[str, list[int | None]] = {}
    for run_dir, names in folders:
        for name in names:
            counts.setdefault(name, []).append(_num_rows(run_dir, name))
    texts = {name: "?" if None in rows else f"{sum(row or 0 for row in rows):,}" for name, rows in counts.items()}
    words = [f"{name} {text}" for name, text in texts.items() if text != "0"]
    return textwrap.fill(f"tables: {', '.join(words) or 'none has rows'}", WIDTH, initial_indent="  ", subsequent_indent="    ")


def _num_rows(run_dir: Path, name: str) -> int | None:
    """From the footers of the files; None where one is damaged."""
    try:
        return sum(pq.read_metadata(path).num_rows for path in parts_of(run_dir, name))
    except (pa.ArrowException, OSError):
        return None
