"""The command that runs a run again and compares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from raykd.commands.options import FAILED, Address, BackendName, Out, Quiet, new_directory

Cache = Annotated[
    bool, typer.Option("--with-cache", help="Reads prepared cases and trained teachers from the cache; default: makes them anew.")
]


def reproduce(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The directory of a run that is done.", show_default=False)],
    out: Out = None,
    with_cache: Cache = False,
    backend: BackendName = "ray",
    address: Address = None,
    quiet: Quiet = False,
) -> None:
    """Runs a run again and says IDENTICAL, WITHIN TOLERANCE or DIFFERENT; exit code 3 where it is different."""
    import tempfile

    from raykd.commands.runs import carry_out
    from raykd.reproduction import circumstances, differences, reproduction_plan
    from raykd.results.comparison import DIFFERENT, verdict
    from raykd.results.reader import open_run
    from raykd.scenario.errors import RaykdError
    from raykd.storage import local_copy, url_of

    if out is not None and url_of(out):
        raise RaykdError(f"{url_of(out)}: a reproduction is written to a directory of this machine; give one with --out")

    run_dir = local_copy(run_dir, is_whole=True)
    folder = out or new_directory(f"{run_dir.resolve().name}-reproduced")
    plan = reproduction_plan(run_dir, folder)
    with tempfile.TemporaryDirectory(prefix="raykd-cache-") as fresh:
        before = os.environ.get("RAYKD_CACHE")
        if not with_cache:
            os.environ["RAYKD_CACHE"] = fresh
        try:
            carry_out([plan], backend, address, quiet)
        finally:
            _restore(before)
    one, other = open_run(run_dir), open_run(folder)
    for clause in circumstances(one.manifest, other.manifest):
        typer.echo(f"note: {clause}")
    found = differences(one, other)
    for difference in found:
        typer.echo(str(difference))
    typer.echo(f"{(said := verdict(found))}: all but measured times and memory was compared, table by table and model by model")
    typer.echo(str(folder))
    if said == DIFFERENT:
        raise typer.Exit(FAILED)


def _restore(cache: str | None) -> None:
    if cache is None:
        os.environ.pop("RAYKD_CACHE", None)
    else:
        os.environ["RAYKD_CACHE"] = cache
