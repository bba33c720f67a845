"""The scenarios, studies and prices that come with raykd, in a wheel as in a checkout."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import raykd
from raykd.scenario.errors import RaykdError, did_you_mean

PRICES = "prices"
FOLDERS = ("gallery", "methods", "studies")
"""Of the scenarios, beside the few that lie at the top."""
_REFERENCE = re.compile(r"^(extends|base): *(\S+\.yaml) *$", re.MULTILINE)
_NAME = re.compile(r"^name: .*$", re.MULTILINE)
_EDITOR = re.compile(r"^# yaml-language-server: .*\n")


@dataclass(frozen=True)
class Shipped:
    """A file that comes with raykd.

    Attributes:
        name: what `raykd new --from` calls it.
        path: where it is.
    """

    name: str
    path: Path

    @property
    def text(self) -> str:
        """Its content."""
        return self.path.read_text(encoding="utf-8")

    @property
    def kind(self) -> str:
        """`study`, `scenario` or `prices`."""
        return PRICES if self.name == PRICES else "study" if re.search(r"^base:", self.text, re.MULTILINE) else "scenario"

    @property
    def summary(self) -> str:
        """Its description, or else the first sentence of its comment."""
        described = re.search(r"^description: *(.+?)(?: +#.*)?$", self.text, re.MULTILINE)
        if described:
            return described[1].strip("\"'")
        lines = _EDITOR.sub("", self.text).splitlines()
        comment = " ".join(line.lstrip("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), lines))
        return re.split(r"(?<=[.?]) ", comment, maxsplit=1)[0] or f"{self.path.stem} at its default settings"


def shipped() -> list[Shipped]:
    """Every scenario and study, those at the top first."""
    folder = _root() / "scenarios"
    paths = [*sorted(folder.glob("*.yaml")), *(path for name in FOLDERS for path in sorted((folder / name).glob("*.yaml")))]
    return [Shipped(path.relative_to(folder).with_suffix("").as_posix(), path) for path in paths]


def find(name: str) -> Shipped:
    """The scenario, study or list of prices of a name.

    Raises:
        RaykdError: there is none, with the nearest name.
    """
    known = {one.name: one for one in shipped()}
    known[PRICES] = Shipped(
        PRICES, next(path for path in (_root() / "analysis/prices.yaml", _root() / "prices.yaml") if path.is_file())
    )
    if name not in known:
        raise RaykdError(f"there is no shipped scenario {name!r} (`raykd list scenarios` shows all); {did_you_mean(name, known)}")
    return known[name]


def copies(one: Shipped, file: Path) -> dict[Path, str]:
    """Files to write so that a shipped one runs from another place: itself, and beside it all that it builds on.

    Args:
        one: of those that `find` knows.
        file: where it goes; a scenario is named after it.
    """
    texts: dict[Path, str] = {}
    text = _copy(one.path, file, file.stem, texts)
    if _NAME.search(text):
        text = _NAME.sub(f'name: "{file.stem}"', text, count=1)
    elif one.kind == "scenario":
        text = _REFERENCE.sub(lambda match: f'{match[0]}\nname: "{file.stem}"', text, count=1)
    return {**{path: content for path, content in texts.items() if path != file}, file: text}


def _copy(source: Path, target: Path, prefix: str, texts: dict[Path, str]) -> str:
    """Adds the text of a file and of those that it builds on, which lie beside the target and whose names begin with the prefix."""

    def here(match: re.Match[str]) -> str:
        below = (source.parent / match[2]).resolve()
        beside = target.with_name(f"{prefix}-{below.stem}{target.suffix}")
        _copy(below, beside, prefix, texts)
        return f"{match[1]}: {beside.name}"

    texts[target] = _REFERENCE.sub(here, _EDITOR.sub("", source.read_text(encoding="utf-8")))
    return texts[target]


def _root() -> Path:
    """The folder that holds scenarios/: in an installed package its own, in a checkout the checkout."""
    package = Path(raykd.__file__).parent
    return package / "_shipped" if (package / "_shipped").is_dir() else package.parent
