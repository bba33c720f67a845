"""The command that takes the tables of runs elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FORMATS = ("parquet", "csv")


def export(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The directory of a run or of a study.", show_default=False)],
    format_: Annotated[str, typer.Option("--format", metavar="|".join(FORMATS), help="Of the files.")] = "parquet",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to write; default: export/ in the directory.", show_default=False),
    ] = None,
) -> None:
    """Writes each table as one file, all rounds and runs below one another; the last line printed is their directory."""
    from raykd.results.export import export_tables
    from raykd.scenario.errors import RaykdError, did_you_mean
    from raykd.storage import url_of

    if format_ not in FORMATS:
        raise RaykdError(f"--format must be {' or '.join(FORMATS)}, got '{format_}'; {did_you_mean(format_, FORMATS)}")
    folder = out or (Path() if url_of(run_dir) else run_dir) / "export"
    for path, num_rows in export_tables(run_dir, folder, format_).items():
        typer.echo(f"{path.name}: {num_rows} row{'' if num_rows == 1 else 's'}", err=True)
    typer.echo(str(folder))
