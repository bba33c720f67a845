"""What raykd says when it refuses: every refusal names the rule, what was got, where, and what to do."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from dataclasses import dataclass


class RaykdError(Exception):
    """The user's input was refused and nothing was started (exit code 2)."""


class DataError(RaykdError):
    """A case cannot be used: a missing file, a mismatch of geometry, a label out of range."""


class ResourceError(RaykdError):
    """The machines at hand cannot hold what the scenario asks for."""


class RunFailed(Exception):
    """A run that had started could not be finished (exit code 3).

    Attributes:
        details: a traceback for the run's log, or "".
    """

    details = ""

    @classmethod
    def unforeseen(cls, what: str, error: BaseException, details: str) -> RunFailed:
        """What nobody has foreseen, a mistake in a plug-in as a rule: a sentence that says where, and its traceback."""
        said = str(error).strip().splitlines()
        failure = cls(f"{what} failed: {type(error).__name__}: {said[0] if said else 'it says no more'}{_place(error)}")
        failure.details = details
        return failure


def _place(error: BaseException) -> str:
    """Where an error was raised, as far as it knows."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a YAML file.

    Attributes:
        path: the key path, as `clients[1].labels.num_shots`; empty for the document.
        rule: what was expected, as a sentence without its full stop.
        got: the offending value as written, or "" where there is none.
        file, line, column: where it stands (1-based); 0 where it stands nowhere.
        hint: what to do about it, or "".
    """

    path: str
    rule: str
    got: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else (f"{self.file}: " if self.file else "")
        where = f"{self.path}: " if self.path else ""
        got = f", got {self.got}" if self.got else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{place}{where}{self.rule}{got}{hint}"


class ScenarioError(RaykdError):
    """A scenario or study was refused; `problems` holds every reason found, not only the first."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The hint `did you mean 'x'?` for the nearest known word, or the list of known words, or ""."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(known)}" if known else ""
