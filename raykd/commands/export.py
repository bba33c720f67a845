"""The command that takes runs elsewhere: as files of their tables, to experiment trackers, to MONAI and to nnU-Net."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from raykd.exchange.curves import Point
    from raykd.exchange.trackers import Tracker
    from raykd.results.reader import Run

TABLES, FIGURES, MONAI, NNUNET = ("parquet", "csv"), "figures", "monai-bundle", "nnunet"
FORMATS = (*TABLES, FIGURES, MONAI, NNUNET)
SINKS = ("tensorboard", "mlflow", "wandb")
POLL_S = 2.0
"""How often a run is looked at that is followed."""


def export(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The directory of a run or of a study.", show_default=False)],
    format_: Annotated[str, typer.Option("--format", metavar="|".join(FORMATS), help="Of the files.")] = "parquet",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to write; default: export/ in the directory.", show_default=False),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="|".join(SINKS), help="Feeds an experiment tracker instead.", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="With --to: goes on feeding until the run ends.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="With monai-bundle: which; default: the one deployed.")
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(
            "--site", metavar="NAME", help="With monai-bundle: the site whose scans the model is for.", show_default=False
        ),
    ] = None,
) -> None:
    """Takes tables, curves, figures, scores or the model of runs elsewhere; the last line printed is where they are."""
    from raykd.scenario.errors import RaykdError, did_you_mean
    from raykd.storage import url_of

    if format_ not in FORMATS:
        raise RaykdError(f"--format must be one of {', '.join(FORMATS)}, got '{format_}'; {did_you_mean(format_, FORMATS)}")
    if to is not None and to not in SINKS:
        raise RaykdError(f"--to must be one of {', '.join(SINKS)}, got '{to}'; {did_you_mean(to, SINKS)}")
    if follow and to is None:
        raise RaykdError("--follow goes with --to tensorboard, mlflow or wandb")
    for option, value in (("--model", model), ("--site", site)):
        if value is not None and format_ != MONAI:
            raise RaykdError(f"{option} goes with --format {MONAI}, which writes one model")
    folder = out or (Path() if url_of(run_dir) else run_dir) / "export"
    if to is not None:
        folder = _feed(run_dir, out or folder / to, to, follow)
    elif format_ in TABLES:
        _write_tables(run_dir, folder, format_)
    elif format_ == FIGURES:
        folder = _write_figures(run_dir, out or folder / FIGURES)
    else:
        folder = _write_each(run_dir, out or folder / format_, format_, model, site)
    typer.echo(str(folder))


def _write_tables(run_dir: Path, folder: Path, format_: str) -> None:
    from raykd.results.export import export_tables

    for path, num_rows in export_tables(run_dir, folder, format_).items():
        typer.echo(f"{path.name}: {num_rows} row{'' if num_rows == 1 else 's'}", err=True)


def _write_figures(run_dir: Path, folder: Path) -> Path:
    from raykd.report.paper import write_figures
    from raykd.results.reader import load_runs

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        names = write_figures(load_runs(run_dir), folder)
    for name in names:
        typer.echo(name, err=True)
    if any("missing from font" in str(warning.message) for warning in caught):
        typer.echo(
            "no font that matplotlib finds has all characters of the names: the SVG files hold them, the PDF files show boxes;",
            err=True,
        )
        typer.echo("install one, as fonts-noto-cjk, and export again", err=True)
    return folder


def _write_each(run_dir: Path, folder: Path, format_: str, model: str | None, site: str | None) -> Path:
    """A bundle or a summary of the run, or one of each run of a study, in folders named after them."""
    from raykd.exchange.nnunet_summary import write_summary
    from raykd.results.reader import find_run_dirs, open_run

    directories = find_run_dirs([run_dir])
    for directory in directories:
        place = folder if directory == run_dir else folder / directory.relative_to(run_dir)
        if format_ == NNUNET:
            write_summary(open_run(directory), place)
        else:
            from raykd.exchange.monai_bundle import write_bundle

            write_bundle(open_run(directory), place, model, site)
        if place != folder:
            typer.echo(str(place), err=True)
    return folder


def _feed(run_dir: Path, folder: Path, to: str, follow: bool) -> Path:
    from raykd.exchange.curves import settings_of
    from raykd.exchange.trackers import TRACKERS
    from raykd.results.reader import find_run_dirs, open_run
    from raykd.scenario.errors import RaykdError

    directories = find_run_dirs([run_dir])
    if follow and len(directories) > 1:
        raise RaykdError(f"{run_dir}: holds {len(directories)} runs; --follow feeds one, say {directories[0]}")
    for directory in directories:
        run = open_run(directory)
        tracker = TRACKERS[to](folder, run.run_id, settings_of(run))
        num = _pass_on(run, tracker, follow)
        typer.echo(f"{run.run_id}: {num} points", err=True)
        place = tracker.place
    typer.echo(f"to look at them: {place}", err=True)
    return folder


def _pass_on(run: Run, tracker: Tracker, follow: bool) -> int:
    """Hands a tracker what it has not had yet, once or until nobody writes the run; gives the number of points."""
    from raykd.commands.run_state import state_of

    sent: set[tuple[str, int]] = set()
    while True:
        state = state_of(run.path)
        fresh = list(_not_sent(run, sent))
        tracker.add(fresh)
        sent |= {(point.tag, point.step) for point in fresh}
        if not (follow and state["is_written"]):
            tracker.end(str(state["status"]))
            return len(sent)
        time.sleep(POLL_S)


def _not_sent(run: Run, sent: set[tuple[str, int]]) -> Iterator[Point]:
    from raykd.exchange.curves import points_of

    return (point for point in points_of(run) if (point.tag, point.step) not in sent)
