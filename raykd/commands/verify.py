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
        list[Path], typer.Argument(metavar="RUN_DIR...", help="Directories of runs, or of studies.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Compares every file of runs with the checksum it was written with; exit code 3 where one is damaged, missing or too many."""
    from raykd.execution import refuse_written_now
    from raykd.results.checksums import findings
    from raykd.results.reader import find_run_dirs

    folders = [folder for path in run_dirs for folder in ([path] if _is_run(path) else find_run_dirs([path]))]
    found = {}
    for folder in folders:
        refuse_written_now(folder)
        found[folder] = findings(folder)
    if as_json:
        typer.echo(json.dumps([_row(folder, finding) for folder in found for finding in found[folder]], indent=2))
    else:
        for folder in found:
            _print(folder, found[folder])
    if any(_is_wrong(finding) for told in found.values() for finding in told):
        raise typer.Exit(FAILED)


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in ("manifest.json", "checksums.sha256"))


def _is_wrong(finding: Finding) -> bool:
    return finding.state != "foreign"


def _row(folder: Path, finding: Finding) -> dict[str, str]:
    return {"run": str(folder), "path": finding.path, "state": finding.state, "what_to_do": _what_to_do(finding)}


def _print(folder: Path, told: list[Finding]) -> None:
    wrong = sum(map(_is_wrong, told))
    for finding in told:
        typer.echo(f"{folder / finding.path}: {finding.state}; {_what_to_do(finding)}")
    typer.echo(f"{folder}: {f'{wrong} of its files not as written' if wrong else 'sound, every file is as it was written'}")


def _what_to_do(finding: Finding) -> str:
    if finding.state == "foreign":
        return FOREIGN
    if finding.state == "unexpected":
        return REMOVE
    return WHAT_TO_DO.get(finding.path.split("/")[0], RESTORE)
