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
from raykd.commands.grouped import MAX_WIDTH, Grouped
from raykd.commands.options import FAILED, REFUSED

app = typer.Typer(
    name="raykd",
    cls=Grouped,
    help="Design, stress and judge federations of hospitals with few labels and unlike scanners, simulated on Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": MAX_WIDTH},
)


def main() -> NoReturn:
    """The entry point: refusals are sentences on stderr, never tracebacks."""
    from raykd.scenario.errors import RaykdError, RunFailed

    _print_anything()
    try:
        _refuse_places()
        app(prog_name="raykd")
    except RaykdError as error:
        _end(str(error), REFUSED)
    except RunFailed as error:
        _end(f"the run failed: {error}", FAILED)
    except OSError as error:
        _end(_of_the_system(error), REFUSED)
    sys.exit(0)


def _refuse_places() -> None:
    """Raises `RaykdError` where the current directory, from which relative paths start, is not there any more, and where it, an
    argument or the cache has a name that is no text: tables and JSON could not hold it.
    """
    from raykd.scenario.errors import RaykdError

    try:
        here = str(Path.cwd())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RaykdError(f"the current directory cannot be used ({reason}); change to one that is there") from None
    for name in (*sys.argv[1:], here, os.environ.get("RAYKD_CACHE", "")):
        if not _is_text(name):
            raise RaykdError(f"names of files and directories must be text in UTF-8, got {name!r}; rename it, or give another path")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


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


BEGIN, RUN, FOLLOW, RESULTS, MACHINE = "Begin", "Run", "Follow", "Results", "Machine"

app.command(rich_help_panel=BEGIN)(starter.new)
app.command("list", rich_help_panel=BEGIN)(words.list_)
app.add_typer(data.app, name="data", rich_help_panel=BEGIN)
app.command(rich_help_panel=BEGIN)(words.check)
app.command(rich_help_panel=BEGIN)(words.schema)
app.command(rich_help_panel=RUN)(plan.plan)
app.command(rich_help_panel=RUN)(runs.run)
app.command(rich_help_panel=RUN)(studies.study)
app.command(rich_help_panel=RUN)(runs.resume)
app.command(rich_help_panel=RUN)(reproduce.reproduce)
app.command(rich_help_panel=FOLLOW)(drivers.status)
app.command(rich_help_panel=FOLLOW)(live.watch)
app.command(rich_help_panel=FOLLOW)(drivers.attach)
app.command(rich_help_panel=FOLLOW)(drivers.stop)
app.command(rich_help_panel=RESULTS)(results.report)
app.command(rich_help_panel=RESULTS)(export.export)
app.command(rich_help_panel=RESULTS)(audit.audit)
app.command(rich_help_panel=RESULTS)(leaks.leaks)
app.command(rich_help_panel=RESULTS)(verify.verify)
app.command(rich_help_panel=MACHINE)(doctor.doctor)
app.add_typer(cache.app, name="cache", rich_help_panel=MACHINE)


if __name__ == "__main__":
    main()
