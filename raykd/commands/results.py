"""Commands about finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Directories of runs or studies.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The HTML file; default: report.html in the first directory.")
    ] = None,
) -> None:
    """Writes one self-contained HTML page about runs; the last line printed is its path."""
    from raykd.report import build_report

    typer.echo(str(build_report(directories, out or directories[0] / "report.html")))
