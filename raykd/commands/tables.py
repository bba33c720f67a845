"""Numbers and tables as plain text, for terminals and pipes alike.

Widths are those of a terminal, in which a Chinese or Japanese character takes two columns and a combining mark none.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterator, Sequence

GAP = "  "
"""Between columns."""
MIN_WIDTH = 40
"""Columns below which nothing is fitted."""


def terminal_width() -> int | None:
    """Columns of the terminal that is written to, or of `COLUMNS`; None where the output goes to a file or a pipe."""
    if not (sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()):
        return None
    return max(shutil.get_terminal_size().columns, MIN_WIDTH)


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (), *, num_keys: int = 1, width: int | None = None) -> str:
    """Rows in columns two spaces apart, to the right but for those named `left`.

    A table that is too wide goes on below itself, each part with the key columns. Where these alone take more than half of the
    width, they stand on a line of their own and the others below it.

    Args:
        rows: texts, the heads first.
        left: the columns that begin at their left edge.
        num_keys: how many of the first columns say what a row is about.
        width: columns to fit into; None: those of the terminal, and any number in a file or a pipe.
    """
    limit = width or terminal_width()
    columns = [_padded(column, is_left=index in left) for index, column in enumerate(zip(*rows, strict=True))]
    if limit is None or _total(columns) <= limit:
        return "\n".join(_lines(columns))
    keys, others = columns[:num_keys], columns[num_keys:]
    if _total(keys) <= limit / 2:
        return "\n\n".join("\n".join(_lines([*keys, *part])) for part in _parts(others, limit - _total(keys) - len(GAP)))
    stacked = [_lines(keys), *([GAP + line for line in _lines(part)] for part in _parts(others, limit - len(GAP)))]
    return "\n".join("\n".join(lines) for lines in zip(*stacked, strict=True))


def display_width(text: str) -> int:
    """Columns that a text takes in a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, width: int, *, is_left: bool = True) -> str:
    """The text with spaces up to a width, on its right or else on its left."""
    spaces = " " * (width - display_width(text))
    return text + spaces if is_left else spaces + text


def wrapped(text: str, indent: str = "") -> str:
    """Prose in lines of the terminal's width, the later ones indented; unchanged in a file or a pipe."""
    width = terminal_width()
    if width is None:
        return text
    return "\n".join(textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False) for line in text.splitlines())


def _padded(column: Sequence[str], *, is_left: bool) -> list[str]:
    width = max(map(display_width, column))
    return [padded(cell, width, is_left=is_left) for cell in column]


def _lines(columns: Sequence[Sequence[str]]) -> list[str]:
    return [GAP.join(cells).rstrip() for cells in zip(*columns, strict=True)]


def _total(columns: Sequence[Sequence[str]]) -> int:
    return sum(display_width(column[0]) for column in columns) + len(GAP) * (len(columns) - 1)


def _parts(columns: Sequence[list[str]], width: int) -> Iterator[list[list[str]]]:
    """The columns in order, as many at once as fit; one that is too wide by itself stands alone."""
    part: list[list[str]] = []
    for column in columns:
        if part and _total([*part, column]) > width:
            yield part
            part = []
        part.append(column)
    if part:
        yield part


def bytes_text(num_bytes: float) -> str:
    """Bytes in the largest decimal unit that gives at least 1, with three digits: 1.28 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB" if num_bytes < 999.5 else f"{num_bytes:.0f} TB"


def seconds_text(seconds: float) -> str:
    """A span of time in the units that people use for its size."""
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
