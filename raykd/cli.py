"""The `raykd` command: what a user types, what is printed, and with which exit code it ends."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from raykd.commands import (
    audit,
    cache,
    data,
    doctor,
    drivers,
    export,
    leaks,
    live,
    plan,
    reproduce,
    results,
    runs,
    starter,
    studies,
    verify,
    words,
)
from raykd.commands.options import FAILED, REFUSED

app = typer.Typer(
    name="raykd",
    help="Design, stress and judge federations of hospitals with few labels and unlike scanners, simulated on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> NoReturn:
    """The entry point: refusals are sentences on stderr, never tracebacks."""
    from raykd.scenario.errors import RaykdError, RunFailed

    _print_anything()
    try:
        _refuse_removed_directory()
        app()
    except RaykdError as error:
        _end(str(error), REFUSED)
    except RunFailed as error:
        _end(f"the run failed: {error}", FAILED)
    except OSError as error:
        _end(_of_the_system(error), REFUSED)
    sys.exit(0)


def _refuse_removed_directory() -> None:
    """Raises `RaykdError` where the current directory, from which relative paths start, is not there any more."""
    from raykd.scenario.errors import RaykdError

    try:
        Path.cwd()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RaykdError(f"the current directory cannot be used ({reason}); change to one that is there") from None


def _print_anything() -> None:
    """Lets names that the terminal's encoding does not have be printed, with escapes in their place."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _of_the_system(error: OSError) -> str:
    """What the operating system refused, as a sentence: the file, the reason, what to do."""
    place = "raykd" if error.filename is None else os.fsdecode(error.filename)
    return f"{place}: {(error.strerror or str(error)).lower()}; {_HINTS.get(error.errno or 0, 'give another path')}"


_HINTS = {
    errno.EACCES: "change its permissions, or give another path",
    errno.EPERM: "change its permissions, or give another path",
    errno.EROFS: "give a path on a file system that can be written",
    errno.ENOSPC: "free some room, or give a path on another disk",
    errno.EDQUOT: "free some room, or give a path on another disk",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOENT: "see that it is there",
    errno.EMFILE: "raise the limit with ulimit -n",
}


def _end(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    sys.exit(code)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Prints the version.")] = False) -> None:
    if version:
        import raykd

        typer.echo(raykd.__version__)
        raise typer.Exit


app.command()(runs.run)
app.command()(runs.resume)
app.command()(verify.verify)
app.command()(audit.audit)
app.command()(reproduce.reproduce)
app.command()(studies.study)
app.command()(drivers.status)
app.command()(drivers.attach)
app.command()(drivers.stop)
app.command()(live.watch)
app.command()(words.check)
app.command()(results.report)
app.command()(export.export)
app.command()(leaks.leaks)
app.command("list")(words.list_)
app.command()(words.schema)
app.add_typer(data.app, name="data")
app.command()(starter.new)
app.command()(plan.plan)
app.command()(doctor.doctor)
app.add_typer(cache.app, name="cache")


if __name__ == "__main__":
    main()
