"""The command that writes a first scenario or study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

STARTERS = Path(__file__).with_name("starters")
_SUFFIXES = (".yaml", ".yml")
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def new(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|FILE", help="What to call it: a name, or a file that ends in .yaml.", show_default="my-federation"
        ),
    ] = None,
    study: Annotated[bool, typer.Option("--study", help="Writes a study, and the scenario that it starts from.")] = False,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="SHIPPED", help="Copies one that comes with raykd, as quickstart or gallery/one-shot, or prices."
        ),
    ] = None,
) -> None:
    """Writes a commented scenario that runs as it is; the lines printed are the files written."""
    from raykd.commands.shipped import copies, find
    from raykd.scenario.errors import RaykdError

    if from_ and study:
        raise RaykdError("--study writes a first study, --from one that comes with raykd; leave one of them out")
    source = find(from_) if from_ else None
    if target is None:
        target = source.path.stem if source else "my-federation"
    file = Path(target) if target.endswith(_SUFFIXES) else Path(f"{target}.yaml")
    _refuse_unsafe(file.stem)
    texts = copies(source, file) if source else _starters(file, study)
    taken = [str(path) for path in texts if path.exists()]
    if taken:
        raise RaykdError(f"{', '.join(taken)}: there already, and nothing is overwritten; give another name")
    for path, text in texts.items():
        _write(path, text)
        typer.echo(str(path))


def _starters(file: Path, study: bool) -> dict[Path, str]:
    """A first scenario; or a first study, and the scenario that it starts from."""
    if not study:
        return {file: _scenario(file.stem)}
    base = file.with_name(f"{file.stem}-base{file.suffix}")
    text = (STARTERS / "study.yaml").read_text(encoding="utf-8")
    return {base: _scenario(base.stem), file: text.replace("base: my-base.yaml", f"base: {base.name}")}


def _scenario(name: str) -> str:
    _refuse_unsafe(name)
    text = (STARTERS / "scenario.yaml").read_text(encoding="utf-8")
    return text.replace("name: my-federation\n", f'name: "{name}"\n')


def _refuse_unsafe(name: str) -> None:
    from raykd.scenario.errors import RaykdError

    if not _SAFE.fullmatch(name):
        rule = "must be 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or a digit"
        raise RaykdError(f"the name of a scenario {rule}, got {name!r}")


def _write(path: Path, text: str) -> None:
    """Writes a file that is not there yet, its folder too. Raises `RaykdError` where that cannot be done."""
    from raykd.scenario.errors import RaykdError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise RaykdError(f"{path}: cannot be written ({error.strerror})") from None
