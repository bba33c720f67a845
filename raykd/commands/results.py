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
            "--out",
            metavar="FILE",
            help="The file to write; default: report.FORMAT in the first directory, here where that is a URL.",
        ),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="html, md (no pictures) or pdf (printed by Chromium).")
    ] = "html",
    economics: Annotated[
        Path | None,
        typer.Option(
            "--economics",
            metavar="PRICES",
            help="A YAML file of prices, as `raykd new --from prices` writes: adds what it is worth.",
        ),
    ] = None,
) -> None:
    """Writes one self-contained page about runs; the last line printed is its path."""
    from raykd.report import build_report
    from raykd.report.material import Options
    from raykd.scenario.prices import load_prices

    options = Options(prices=load_prices(economics) if economics else None)
    typer.echo(str(build_report(directories, out, format_, options)))
