"""Subjects and visits in the paths of the Osteoarthritis Initiative."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from raykd.data.sources._patterns import visible
from raykd.scenario.errors import DataError, Problem

BASELINE = "V00"


def _has_subject(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise PydanticCustomError("regex", "must be a regular expression: {reason}", {"reason": str(error)}) from None
    if "subject" not in groups:
        raise PydanticCustomError("regex", "must have a group (?P<subject>...), and (?P<visit>...) unless all are baseline")
    return pattern


PathPattern = Annotated[str, AfterValidator(_has_subject)]


def find_paths(folder: Path, pattern: str, wildcard: str) -> Mapping[tuple[str, str], list[Path]]:
    """The paths below a folder, sorted, by the subject and the visit (as V00) that a pattern finds in them.

    Args:
        folder: searched at any depth.
        pattern: regular expression with a group `subject` and, unless all are of the baseline, a group `visit`.
        wildcard: which files or, ending in /, folders to look at.
    """
    found: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in visible(folder, f"**/{wildcard}"):
        if match := re.search(pattern, path.relative_to(folder).as_posix()):
            visit = match.groupdict().get("visit") or BASELINE
            number = visit.removeprefix("V")
            found[match["subject"], f"V{int(number):02d}" if number.isdigit() else visit].append(path)
    return found


def read_mri_paths(path: Path) -> Mapping[str, str]:
    """The series of every subject, from lines as `9001104: 0.C.2/9001104/20050812/10466203`. Raises `DataError` with the line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(str(Problem("", "mri_paths must be a readable text file", str(error), str(path)))) from None
    found = {}
    for line, text in enumerate(lines, start=1):
        match = re.fullmatch(r"\s*(\d{7})\s*:\s*(\S+?)/?\s*", text)
        if match:
            found[match[1]] = f"/{match[2]}"
        elif text.strip():
            rule = "a line must be a subject, a colon and the path of a series"
            raise DataError(str(Problem("", rule, repr(text), str(path), line, 1)))
    return found
