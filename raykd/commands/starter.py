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
        str, typer.Argument(metavar="NAME|FILE", help="What to call it: a name, or a file that ends in .yaml.")
    ] = "my-federation",
    study: Annotated[bool, typer.Option("--study", help="Writes a study, and the scenario that it starts from.")] = False,
) -> None:
    """Writes a commented scenario that runs as it is; the lines printed are the files written."""
    from raykd.scenario.errors import RaykdError

    file = Path(target) if target.endswith(_SUFFIXES) else Path(f"{target}.yaml")
    texts = {file: _scenario(file.stem)}
    if study:
        base = file.with_name(f"{file.stem}-base{file.suffix}")
        text = (STARTERS / "study.yaml").read_text(encoding="utf-8")
        texts = {base: _scenario(base.stem), file: text.replace("base: my-base.yaml", f"base: {base.name}")}
    taken = [str(path) for path in texts if path.exists()]
    if taken:
        raise RaykdError(f"{', '.join(taken)}: there already, and nothing is overwritten; give another name")
    for path, text in texts.items():
        _write(path, text)
        typer.echo(str(path))


def _scenario(name: str) -> str:
    from raykd.scenario.errors import RaykdError

    if not _SAFE.fullmatch(name):
        rule = "must be 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or a digit"
        raise RaykdError(f"the name of a scenario {rule}, got {name!r}")
    text = (STARTERS / "scenario.yaml").read_text(encoding="utf-8")
    return text.replace("name: my-federation\n", f'name: "{name}"\n')


def _write(path: Path, text: str) -> None:
    """Writes a file that is not there yet, its folder too. Raises `RaykdError` where that cannot be done."""
    from raykd.scenario.errors import RaykdError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise RaykdError(f"{path}: cannot be written ({error.strerror})") from None
