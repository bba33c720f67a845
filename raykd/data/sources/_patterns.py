"""Files found by a pattern with a wildcard, images and labels paired by what it stands for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from raykd.data.volume_io import refusal
from raykd.scenario.errors import DataError
from raykd.scenario.labels import normal


def _one_wildcard(pattern: str) -> str:
    if [part.count("*") for part in pattern.split("/") if "*" in part][:1] != [1]:
        raise PydanticCustomError(
            "wildcard", "must hold exactly one '*', the part of a name that tells cases apart, in the first name that has one"
        )
    return pattern


def _one_group(pattern: str) -> str:
    try:
        num_groups = re.compile(pattern).groups
    except re.error as error:
        raise PydanticCustomError("regex", "must be a regular expression: {reason}", {"reason": str(error)}) from None
    if num_groups != 1:
        raise PydanticCustomError("regex", "must have exactly one group, the patient, got {num}", {"num": num_groups})
    return pattern


Pattern = Annotated[str, AfterValidator(_one_wildcard)]
PatientPattern = Annotated[str, AfterValidator(_one_group)]


def visible(folder: Path, pattern: str) -> list[Path]:
    """What a glob finds below a folder, sorted, without what is hidden or lies in a hidden folder, as `._1.nii.gz` of macOS."""
    found = sorted(folder.glob(pattern))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts if part != "..")]


def folder_of(root: Path, pattern: str) -> Path:
    """The folder in which the wildcard of a pattern is looked for."""
    return as_stored(root / pattern.split("*")[0].rpartition("/")[0])


def matches(root: Path, pattern: str, is_wanted: Callable[[Path], bool] = Path.is_file) -> Iterator[tuple[str, Path]]:
    """The paths that a pattern names, by what its first `*` stands for; further ones stand for the same, as in `*/*_t1.nii.gz`, and
    every other character means itself, however its accents are encoded. Hidden files are none of a pattern that does not begin with
    a dot. A link to nothing is one of its paths, so that no case is lost without a word.
    """
    before, _, after = normal(pattern).partition("*")
    prefix = before.rpartition("/")[2]
    suffix, _, tail = after.partition("/")
    folder = folder_of(root, pattern)
    for name, entry in _by_name(folder.iterdir() if folder.is_dir() else ()).items():
        case_id = name[len(prefix) : len(name) - len(suffix)]
        path = as_stored(entry / tail.replace("*", case_id)) if tail else entry
        is_hidden = name.startswith(".") and not prefix.startswith(".")
        is_there = is_wanted(path) or (path.is_symlink() and not path.exists())
        if case_id and not is_hidden and name == f"{prefix}{case_id}{suffix}" and is_there:
            yield case_id, path


def by_case(paths: Iterable[Path], ending: str) -> dict[str, Path]:
    """Files by their names without an ending, however the accents of these are encoded."""
    return {name.removesuffix(ending): path for name, path in _by_name(paths).items()}


def _by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Paths in order, by their names with accents composed, or as they are where that would make two names one."""
    ordered = sorted(paths)
    num = Counter(normal(path.name) for path in ordered)
    return {normal(path.name) if num[normal(path.name)] == 1 else path.name: path for path in ordered}


def as_stored(path: Path) -> Path:
    """A path as the file system writes it, where that differs in how accents are encoded; else the path."""
    if path.exists() or path == path.parent:
        return path
    above = as_stored(path.parent)
    there = above.iterdir() if above.is_dir() else ()
    return next((other for other in there if normal(other.name) == normal(path.name)), above / path.name)


def misspelt(root: Path, pattern: str, known: Collection[Path]) -> Iterator[DataError]:
    """The refusal of each file that a pattern would name if upper and lower case did not count, and that no pattern names."""
    before, _, after = pattern.partition("*")
    prefix, (suffix, _, tail) = before.rpartition("/")[2], after.partition("/")
    folder = folder_of(root, pattern)
    for entry in sorted(folder.iterdir()) if folder.is_dir() and not tail else ():
        name = entry.name.lower()
        is_alike = (
            name[0] != "."
            and name.startswith(prefix.lower())
            and name.endswith(suffix.lower())
            and len(name) > len(prefix) + len(suffix)
        )
        if is_alike and entry not in known and not (entry.name.startswith(prefix) and entry.name.endswith(suffix)):
            yield almost(entry, pattern)


def almost(path: Path, pattern: str) -> DataError:
    """The refusal of a file that would be left out because of an upper-case or lower-case letter."""
    rule = f"a file must be written as {pattern!r}, which counts upper and lower case"
    return refusal(rule, path=path, case_id=path.name, got=path.name, hint="rename it, or move it elsewhere")


def patient_in(name: str, pattern: str | None, *, case_id: str, path: Path) -> str:
    """The patient that a pattern finds in a name; without a pattern every case is a patient.

    Raises:
        DataError: the pattern finds nothing.
    """
    if pattern is None:
        return case_id
    match = re.search(pattern, name)
    if not match or not match[1]:
        rule = f"patient_pattern {pattern!r} must find a patient in the name"
        raise refusal(rule, path=path, case_id=case_id, got=name, hint="correct the pattern")
    return match[1]


def no_label(case_id: str, path: Path) -> DataError:
    """The refusal of a case whose label file is missing."""
    hint = "add it, or set allow_unlabelled: true"
    return refusal("a case must have its label file", path=path, case_id=case_id, got="no such file", hint=hint)


def no_image(case_id: str, label: Path, expected: str) -> DataError:
    """The refusal of a label whose image is missing."""
    return refusal("a label must have an image", path=label, case_id=case_id, got=f"no {expected}", hint="add or move one")
