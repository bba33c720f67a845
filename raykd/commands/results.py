"""Commands about finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Directories of runs or studies; URLs, too.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="The HTML file; default: report.html in the first directory, here where that is a URL."
        ),
    ] = None,
) -> None:
    """Writes one self-contained HTML page about runs; the last line printed is its path."""
    from raykd.report import build_report
    from raykd.storage import url_of

    folder = Path() if url_of(directories[0]) else directories[0]
    typer.echo(str(build_report(directories, out or folder / "report.html")))
