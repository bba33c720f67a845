"""The cases that a layout lists, and what of them is wrong before any file is opened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from raykd.data.remote import is_fetched
from raykd.data.volume_io import refusal
from raykd.scenario.errors import DataError


@dataclass(frozen=True)
class CaseFiles:
    """Which files make a case.

    Attributes:
        case_id: unique in the source.
        patient_id: whose it is.
        image: a file, or the folder of a series.
        label: absent where nobody annotated the case.
        traits: what else the layout tells of it, as `site`.
        has_patient: whether the patient was given, by a column, a subject, a tag or a pattern, and is not just the case's name.
        issuer: who gave the patient's id; "": unknown.
        outlined: the classes that whoever made the label looked for, by number, ascending; None: all that the files can mark.
        absent: those of them that are known not to be in the image.
    """

    case_id: str
    patient_id: str
    image: Path
    label: Path | None = None
    traits: Mapping[str, str | float] = field(default_factory=dict)
    has_patient: bool = False
    issuer: str = ""
    outlined: tuple[int, ...] | None = None
    absent: tuple[int, ...] = ()


def check_listing(
    found: Iterable[CaseFiles], root: Path, problems: list[DataError], *, allow_outside: bool, is_archive: bool
) -> dict[str, CaseFiles]:
    """Every case by its name, in the order of names.

    Args:
        found: as the layout lists them.
        root: the folder of the scenario.
        problems: gets what is wrong: a name that cannot be written, a name, image or label of two cases, a file elsewhere.
        allow_outside: whether files may lie outside `root`.
        is_archive: whether one file holds all cases.
    """
    cases: dict[str, CaseFiles] = {}
    owners: tuple[dict[Path, str], dict[Path, str]] = {}, {}
    for files in sorted(found, key=lambda files: files.case_id):
        if unwritable := _unwritable(files):
            problems.append(unwritable)
            continue
        if files.case_id in cases:
            got = f"a second one beside {cases[files.case_id].image}"
            hint = "rename one of them, or give a manifest a column 'case'"
            problems.append(refusal("a case's name must be its own", path=files.image, case_id=files.case_id, got=got, hint=hint))
        for path, holders, what in ((files.image, owners[0], "an image"), (files.label, owners[1], "a label")):
            if path is not None:
                real = path.resolve()
                problems += _outside(path, real, files, root) if not allow_outside else []
                problems += [] if is_archive else _taken(path, holders.setdefault(real, files.case_id), files, what)
        cases.setdefault(files.case_id, files)
    return cases


def printable(text: str) -> str:
    """Text with bytes that are none written as `\\udcfc`, so that it can be printed."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _unwritable(files: CaseFiles) -> DataError | None:
    """The refusal of a case with a name, a path or a trait that is no text: tables and reports could not hold it."""
    texts = [files.case_id, files.patient_id, files.issuer, str(files.image), str(files.label or ""), *files.traits]
    texts += [value for value in files.traits.values() if isinstance(value, str)]
    for text in texts:
        if printable(text) != text or "\0" in text:
            return refusal(
                "names of files, patients and traits must be text in UTF-8",
                path=Path(printable(str(files.image)).replace("\0", "\\0")),
                case_id=printable(files.case_id),
                got=repr(text),
                hint="rename it, or correct the encoding that the file declares",
            )
    return None


def _taken(path: Path, holder: str, files: CaseFiles, what: str) -> Iterator[DataError]:
    if holder != files.case_id:
        got = f"that of case {holder!r} too"
        yield refusal(f"{what} must belong to one case", path=path, case_id=files.case_id, got=got, hint="give each its own file")


def _outside(path: Path, real: Path, files: CaseFiles, root: Path) -> Iterator[DataError]:
    if not (is_fetched(path) or real.is_relative_to(root.resolve())):
        rule, hint = "a file must lie in the folder of the scenario", "move it there, or set allow_outside: true"
        yield refusal(rule, path=path, case_id=files.case_id, got=str(real), hint=hint)
