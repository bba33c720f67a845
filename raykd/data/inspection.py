"""What lies in a source, case by case, and which cases lie in it twice or with two owners: the leaks that no score shows."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from raykd.data.case import Case
from raykd.data.content import CaseFacts, Classes, content_notes
from raykd.data.integrity import DamagedFile, digest
from raykd.data.sources._base import CaseKey, FileNote, Source
from raykd.scenario.errors import DataError


@dataclass(frozen=True)
class Inspection:
    """What reading all cases of some sources showed.

    Attributes:
        facts: of the cases that can be read.
        problems: what is refused, one sentence each.
        notes: what is allowed and rarely meant, one sentence each.
    """

    facts: list[CaseFacts] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def inspect_source(source: Source, load: Callable[[CaseKey], Case], classes: Classes | None) -> Inspection:
    """Reads every case of one source.

    Args:
        source: of files, or one that makes its cases.
        load: reads a case.
        classes: the values of each class in what `load` gives; None: every value is a class.
    """
    facts, problems, of_cases = list[CaseFacts](), list[str](), list[FileNote]()
    try:
        keys = source.keys()
        images = Counter(path for key in keys for path in source.files(key)[:1])
        for key in keys:
            try:
                case = load(key)
                # A file that holds several cases says nothing of one.
                own = [path for path in source.files(key)[:1] if images[path] == 1]
                facts.append(_facts(source.owner, key, case, own))
                of_cases += source.notes(key)
            except DataError as error:
                problems += str(error).splitlines()
    except DataError as error:
        problems = str(error).splitlines()
    notes = [*_grouped(of_cases), *content_notes(facts, classes, getattr(source.settings, "modality", ""))]
    # A check says all that is wrong with a case, where loading ends with the first.
    return Inspection(facts, (problems_of(source) or problems) if problems else [], notes)


def _grouped(notes: Iterable[FileNote]) -> list[str]:
    """One sentence for everything that is told of files, with the first of them."""
    by_what: dict[str, list[FileNote]] = {}
    for note in notes:
        by_what.setdefault(note.what, []).append(note)
    return [f"{own[0].path}: case {own[0].case_id!r}{_more(len(own) - 1)}: {what}: {own[0].got}" for what, own in by_what.items()]


def _more(num: int) -> str:
    return f" and {num} more file{'s' if num > 1 else ''}" if num else ""


def problems_of(source: Source) -> list[str]:
    """What the source's own check finds, one sentence each."""
    try:
        source.check()
    except DataError as error:
        return str(error).splitlines()
    return []


def reads_files(source: Source) -> bool:
    """Whether cases are read, not made."""
    try:
        return any(source.files(key) for key in source.keys())  # noqa: SIM118 (not a mapping)
    except DataError:
        return True


def _facts(owner: str, key: CaseKey, case: Case, own_files: Sequence[Path]) -> CaseFacts:
    voxels = None
    if case.label_IJK is not None:
        values, counts = torch.unique(case.label_IJK, return_counts=True)
        voxels = dict(zip(values.tolist(), counts.tolist(), strict=True))
    contents = (_voxel_digest(case), *_file_digests(own_files))
    of_case = owner, key.case_id, key.patient_id, case.shape, case.spacing_mm, contents, voxels
    return CaseFacts(*of_case, float(case.image_CIJK.min()), case.outlined, case.absent)


def _voxel_digest(case: Case) -> str:
    digest_of_voxels = hashlib.sha256(repr(tuple(case.image_CIJK.shape)).encode())
    digest_of_voxels.update(case.image_CIJK.contiguous().numpy().tobytes())
    return digest_of_voxels.hexdigest()


def _file_digests(paths: Iterable[Path]) -> list[str]:
    found = []
    for path in paths:
        try:
            found.append(digest(path).sha256)
        except DamagedFile:
            continue  # of a format that the source reads in its own way: its voxels are enough
    return found


def duplicates(facts: Iterable[CaseFacts]) -> list[str]:
    """A sentence for each image that is there again: under another name, with another owner, or both."""
    first: dict[str, CaseFacts] = {}
    problems = []
    for case in facts:
        known = next((first[content] for content in case.contents if content in first), None)
        for content in case.contents:
            first.setdefault(content, case)
        if known is not None:
            problems.append(
                f"{case.owner}: case {case.case_id!r}: images must differ, got the content of case {known.case_id!r} of "
                f"{known.owner}; keep one of the two, or the same person is trained and tested on"
            )
    return problems
