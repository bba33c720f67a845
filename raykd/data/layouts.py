"""Which source reads a directory: its layout, told from the names in it, as the block that a scenario would hold."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from raykd.data.volume_io import READABLE
from raykd.scenario.errors import DataError, did_you_mean

Block = dict[str, Any]
LABEL_WORD = re.compile(
    r"(^|[^a-z])(seg|segs|segmentations?|labels?|labelstr|masks?|lbl|gt|groundtruth|annotations?)($|[^a-z])", re.I
)
MAX_DEPTH = 3
"""Folders below the directory in which volumes are looked for."""


def guess_layout(folder: Path, layout: str | None = None) -> Block:
    """The `source` block that reads a directory, without labels where none are found.

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
            return {"name": name, **found}
    looked_for = "; ".join(f"{name}: {MARKS[name]}" for name in (LAYOUTS if layout is None else [layout]))
    raise DataError(f"{folder}: must look like a known layout, got none of these ({looked_for}); say what it is with --images")


def _nnunet(folder: Path) -> Block | None:
    description = _dataset_json(folder)
    return {"folder": str(folder)} if "channel_names" in description and (folder / "imagesTr").is_dir() else None


def _decathlon(folder: Path) -> Block | None:
    description = _dataset_json(folder)
    return {"task": folder.resolve().name, "folder": str(folder / "..")} if isinstance(description.get("training"), list) else None


def _dataset_json(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _bids(folder: Path) -> Block | None:
    """Images of the most frequent suffix, with the labels of the derivative that has most of them."""
    images = Counter(_bids_suffix(path) for path in folder.glob("sub-*/**/*.nii*"))
    if not images:
        return None
    block: Block = {"folder": str(folder), "suffix": images.most_common(1)[0][0]}
    labels = Counter(
        (path.relative_to(folder / "derivatives").parts[0], _bids_suffix(path))
        for path in folder.glob("derivatives/*/**/*.nii*")
        if _bids_suffix(path) in ("dseg", "mask", "probseg", "seg")
    )
    if labels:
        derivative, suffix = labels.most_common(1)[0][0]
        block |= {"derivative": derivative, "label_suffix": suffix}
    return block


def _bids_suffix(path: Path) -> str:
    return path.name.split(".")[0].rpartition("_")[2]


def _oai(folder: Path) -> Block | None:
    """Outlines not far below the directory, in which the series are then looked for as well."""
    names = {"zib": "*.segmentation_masks.mhd", "imorphics": "[0-9]*/V[0-9][0-9]/*.mat"}
    for collection, name in names.items():
        if any(True for depth in range(MAX_DEPTH) for _ in folder.glob("*/" * depth + name)):
            return {"collection": collection, "images": str(folder), "masks": str(folder)}
    return None


def _manifest(folder: Path) -> Block | None:
    """A table with a column `image`."""
    for path in sorted([*folder.glob("*.csv"), *folder.glob("*.json")]):
        if "image" in _columns(path):
            return {"manifest": str(path)}
    return None


def _columns(path: Path) -> Iterable[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            return next(csv.reader(text.splitlines()), [])
        rows = json.loads(text)
        return rows[0].keys() if isinstance(rows, list) and rows and isinstance(rows[0], dict) else []
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, csv.Error):
        return []


def _dicom(folder: Path) -> Block | None:
    """A folder of slices for each case, in the directory or one below it."""
    patterns = Counter(_starred(path.parent, folder) for path in folder.glob("*/**/*.dcm"))
    if not patterns:
        return None
    block: Block = {"images": patterns.most_common(1)[0][0]}
    labels = [pattern for pattern in _patterns(folder) if LABEL_WORD.search(pattern)]
    return block | ({"labels": labels[0]} if labels else {})


def _starred(series: Path, folder: Path) -> str:
    """The path of a series with the first folder below `folder` as the case's name."""
    first, *rest = series.relative_to(folder).parts
    return "/".join([str(folder), "*", *rest]) if first else str(series)


def _npz(folder: Path) -> Block | None:
    archives = list(folder.glob("*.npz"))
    return {"file": str(archives[0])} if len(archives) == 1 else None


def _folder(folder: Path) -> Block | None:
    if (listed := _manifest(folder)) is not None:
        return listed
    patterns = _patterns(folder)
    labels = [pattern for pattern in patterns if LABEL_WORD.search(pattern.removeprefix(str(folder)))]
    images = [pattern for pattern in patterns if pattern not in labels]
    if not images:
        return None
    return {"images": images[0]} | ({"labels": labels[0]} if labels else {})


def _patterns(folder: Path) -> list[str]:
    """The patterns with one wildcard that volumes follow, the most frequent first. What tells cases apart is either the beginning
    of a file's name or the folder it lies in, whichever more files agree with.
    """
    volumes = [path for depth in range(MAX_DEPTH) for path in folder.glob("*/" * depth + "*") if path.name.endswith(READABLE)]
    words = Counter((path.parent, _last_word(path)) for path in volumes)
    with_labels = {parent for parent, word in words if LABEL_WORD.search(word)}
    by_name, by_folder = dict[Path, str](), dict[Path, str]()
    for path in volumes:
        word = _last_word(path)
        is_kind = words[path.parent, word] > 1 or path.parent in with_labels
        by_name[path] = f"{path.parent}/*{word if is_kind else ''}{_format(path)}"
        if path.parent != folder:
            by_folder[path] = f"{path.parent.parent}/*/{path.name}"
    counts = Counter([*by_name.values(), *by_folder.values()])
    chosen = Counter(
        by_folder[path] if path in by_folder and counts[by_folder[path]] > counts[by_name[path]] else by_name[path]
        for path in volumes
    )
    return [pattern for pattern, _ in sorted(chosen.items(), key=lambda item: (-item[1], item[0]))]


def _format(path: Path) -> str:
    return next(ending for ending in sorted(READABLE, key=len, reverse=True) if path.name.endswith(ending))


def _last_word(path: Path) -> str:
    """`_t1` of `007_t1.nii.gz`: the last word of a name that is no number, with what sets it off."""
    found = re.search(r"[_.-][A-Za-z][A-Za-z0-9]*$", path.name.removesuffix(_format(path)))
    return found[0] if found else ""


LAYOUTS: dict[str, Callable[[Path], Block | None]] = {
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
