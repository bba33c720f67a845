"""Which source reads a directory: its layout, told from the names in it, as the block that a scenario would hold."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raykd.data.naming import LABEL_WORD, Naming, naming_of, volumes_below
from raykd.data.sources._patterns import visible
from raykd.data.volume_io import READABLE
from raykd.scenario.errors import DataError, did_you_mean

Block = dict[str, Any]
LABEL_SUFFIXES = {"dseg", "mask", "probseg", "seg"}
"""Of BIDS."""
MAX_DEPTH = 5
"""Folders below the directory in which volumes are looked for."""


@dataclass(frozen=True)
class Guess:
    """What a directory looks like.

    Attributes:
        block: the `source` block that reads it.
        others: what else is there and not read, as it would be named, with numbers of files.
        num_left: files beside all of these.
        options: of `raykd data check`, that say what was guessed.
        choice: the options with which one of the others is chosen.
    """

    block: Block
    others: tuple[tuple[str, int], ...] = ()
    num_left: int = 0
    options: str = ""
    choice: str = ""

    def __str__(self) -> str:
        """One line: what is read, what is not, and how to choose otherwise."""
        left = [f"{name} ({num} {'files' if num > 1 else 'file'})" for name, num in self.others]
        left += [f"{self.num_left} more files"] if self.num_left else []
        not_read = f"; not read: {', '.join(left)}, to be chosen with {self.choice}" if left else ""
        return f"guessed: {self.options or '--layout ' + self.block['name']}{not_read}"


def guess_layout(folder: Path, layout: str | None = None) -> Guess:
    """What reads a directory, without labels where none are found.

    Args:
        folder: the directory, as paths in the block begin.
        layout: the source's name where it is known; absent: the first whose marks are there.

    Raises:
        DataError: it is no directory, or does not look like any layout, or not like the one asked for.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: must be a directory, got {'a file' if folder.exists() else 'nothing there'}")
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"--layout: must be a known layout, got {layout!r}; {did_you_mean(layout, LAYOUTS)}")
    for name in LAYOUTS if layout is None else [layout]:
        if (found := LAYOUTS[name](folder)) is not None:
            return replace(found, block={"name": name, **found.block})
    looked_for = "; ".join(f"{name}: {MARKS[name]}" for name in (LAYOUTS if layout is None else [layout]))
    raise DataError(f"{folder}: must look like a known layout, got none of these ({looked_for}); say what it is with --images")


def _nnunet(folder: Path) -> Guess | None:
    names = _dataset_json(folder).get("channel_names")
    if names is None or not (folder / "imagesTr").is_dir():
        return None
    channels = [str(name) for name in names.values()] if isinstance(names, dict) else []
    counts = [(name, len(visible(folder / "imagesTr", f"*_{index:04d}.*"))) for index, name in enumerate(channels)]
    return Guess({"folder": str(folder)}, tuple(counts[1:]), choice="--set channel=NAME")


def _decathlon(folder: Path) -> Guess | None:
    if not isinstance(_dataset_json(folder).get("training"), list):
        return None
    return Guess({"task": folder.resolve().name, "folder": str(folder / "..")})


def _dataset_json(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "dataset.json").read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _bids(folder: Path) -> Guess | None:
    """Images of the most frequent suffix, those of T1w first, with the labels of the derivative that has most of them."""
    images = Counter(_bids_suffix(path) for path in visible(folder, "sub-*/**/*.nii*"))
    suffixes = sorted(set(images) - LABEL_SUFFIXES, key=lambda suffix: (-images[suffix], suffix != "T1w", suffix))
    if not suffixes:
        return None
    block: Block = {"folder": str(folder), "suffix": suffixes[0]}
    labels = Counter(
        (path.relative_to(folder / "derivatives").parts[0], _bids_suffix(path))
        for path in visible(folder, "derivatives/*/**/*.nii*")
        if _bids_suffix(path) in LABEL_SUFFIXES
    )
    ranked = sorted(labels, key=lambda found: (-labels[found], found))
    if ranked:
        block |= {"derivative": ranked[0][0], "label_suffix": ranked[0][1]}
    others = [(f"suffix={suffix}", images[suffix]) for suffix in suffixes[1:]]
    others += [(f"derivative={name}, label_suffix={suffix}", labels[name, suffix]) for name, suffix in ranked[1:]]
    settings = " ".join(f"--set {key}={value}" for key, value in block.items() if key != "folder")
    return Guess(block, tuple(others), options=f"--layout bids {settings}", choice="--set KEY=VALUE")


def _bids_suffix(path: Path) -> str:
    return path.name.split(".")[0].rpartition("_")[2]


def _oai(folder: Path) -> Guess | None:
    """Outlines not far below the directory, in which the series are then looked for as well."""
    names = {"zib": "*.segmentation_masks.mhd", "imorphics": "[0-9]*/V[0-9][0-9]/*.mat"}
    for collection, name in names.items():
        if any(visible(folder, "*/" * depth + name) for depth in range(MAX_DEPTH)):
            return Guess({"collection": collection, "images": str(folder), "masks": str(folder)})
    return None


def _manifest(folder: Path) -> Guess | None:
    """A table with a column `image`, whatever its encoding and its separator: the source says what is wrong with them."""
    tables = [path for ending in ("csv", "json") for path in visible(folder, f"*.{ending}") if "image" in _columns(path)]
    others = tuple((path.name, 1) for path in tables[1:])
    return (
        Guess({"manifest": str(tables[0])}, others, 0, f"--manifest {shlex.quote(tables[0].name)}", "--manifest")
        if tables
        else None
    )


def _columns(path: Path) -> Iterable[str]:
    try:
        content = path.read_bytes()
        encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
        text = content.decode(encoding, "replace")
        rows = json.loads(text) if path.suffix == ".json" else []
    except (OSError, json.JSONDecodeError, RecursionError):
        return []
    if path.suffix == ".csv":
        line = next(filter(str.strip, text.splitlines()), "")
        return [name.strip().strip('"').casefold() for name in re.split(r"[,;\t|]", line)]
    return [name.casefold() for name in rows[0]] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else []


def _dicom(folder: Path) -> Guess | None:
    """A folder of slices for each case, at any depth."""
    files = visible(folder, "*/**/*.dcm")
    slices = Counter(path.parent for path in files)
    lone = [path for path in files if slices[path.parent] == 1 and LABEL_WORD.search(path.relative_to(folder).as_posix())]
    series = slices.keys() - {path.parent for path in lone}  # a DICOM-SEG is a file
    return _guess(folder, naming_of(folder, sorted(series), [*volumes_below(folder, MAX_DEPTH), *lone]), "--layout dicom ")


def _npz(folder: Path) -> Guess | None:
    archives = visible(folder, "*.npz")
    return Guess({"file": str(archives[0])}) if len(archives) == 1 else None


def _folder(folder: Path) -> Guess | None:
    return _manifest(folder) or _guess(folder, naming_of(folder, volumes_below(folder, MAX_DEPTH)))


def _guess(folder: Path, naming: Naming, layout: str = "") -> Guess | None:
    """The block of a source whose files follow patterns."""
    if naming.images is None:
        return None
    patterns = {"images": naming.images} | ({"labels": naming.labels} if naming.labels else {})
    options = layout + " ".join(f"--{key} {shlex.quote(pattern)}" for key, pattern in patterns.items())
    block = {key: str(folder / pattern) for key, pattern in patterns.items()}
    return Guess(block, naming.others, naming.num_left, options, f"{layout}--images and --labels")


LAYOUTS: dict[str, Callable[[Path], Guess | None]] = {
    "nnunet": _nnunet,
    "decathlon": _decathlon,
    "bids": _bids,
    "oai": _oai,
    "dicom": _dicom,
    "npz": _npz,
    "folder": _folder,
}
"""In the order in which they are tried: the most telling marks first."""
MARKS = {
    "nnunet": "dataset.json with channel_names, beside imagesTr",
    "decathlon": "dataset.json with a list training",
    "bids": "sub-*/",
    "oai": "outlines SUBJECT.segmentation_masks.mhd (OAI-ZIB) or SUBJECT/VISIT/*.mat (iMorphics)",
    "dicom": "a folder of .dcm files for each case",
    "npz": "one .npz file",
    "folder": f"a table with a column image, or {', '.join(READABLE)} files",
}
