"""The command that says whether runs are still what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raykd.commands.options import FAILED, AsJson

if TYPE_CHECKING:
    from raykd.results.checksums import Finding

WHAT_TO_DO = {
    "checkpoints": "`raykd resume` passes it over for the checkpoint before; in a run that is done nothing needs it",
    "run.log": "nothing reads it but people; restore it from a copy, or leave it",
    "checksums.sha256": "restore it from a copy; without it nothing says which other files are sound",
}
RESTORE = "restore it from a copy, or run the scenario again into another directory"
REMOVE = "the run did not write it, but readers would take it for its own; move it away"
FOREIGN = "not the run's own, and does no harm"


def verify(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR...", help="Directories of runs, or of studies; URLs, too.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Compares every file of runs with the checksum it was written with; exit code 3 where one is damaged, missing or too many."""
    from raykd.commands.run_state import refuse_remote_written_now
    from raykd.execution import refuse_written_now
    from raykd.results.checksums import findings
    from raykd.results.reader import find_run_dirs
    from raykd.storage import local_copy, url_of

    found = {}
    for place in run_dirs:
        if url := url_of(place):
            refuse_remote_written_now(url)
        path = local_copy(place, is_whole=True)
        for folder in [path] if _is_run(path) else find_run_dirs([path]):
            refuse_written_now(folder)
            found[_shown(folder, path, url or str(place))] = findings(folder)
    if as_json:
        typer.echo(json.dumps([_row(folder, finding) for folder in found for finding in found[folder]], indent=2))
    else:
        for name in found:
            _print(name, found[name])
    if any(_is_wrong(finding) for told in found.values() for finding in told):
        raise typer.Exit(FAILED)


def _shown(folder: Path, copy: Path, place: str) -> str:
    """A run's directory as the user has it."""
    below = folder.relative_to(copy).as_posix()
    return place if below == "." else f"{place}/{below}"


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in ("manifest.json", "checksums.sha256"))


def _is_wrong(finding: Finding) -> bool:
    return finding.state != "foreign"


def _row(folder: str, finding: Finding) -> dict[str, str]:
    return {"run": folder, "path": finding.path, "state": finding.state, "what_to_do": _what_to_do(finding)}


def _print(folder: str, told: list[Finding]) -> None:
    wrong = sum(map(_is_wrong, told))
    for finding in told:
        typer.echo(f"{folder}/{finding.path}: {finding.state}; {_what_to_do(finding)}")
    typer.echo(f"{folder}: {f'{wrong} of its files not as written' if wrong else 'sound, every file is as it was written'}")


def _what_to_do(finding: Finding) -> str:
    if finding.state == "foreign":
        return FOREIGN
    if finding.state == "unexpected":
        return REMOVE
    return WHAT_TO_DO.get(finding.path.split("/")[0], RESTORE)
