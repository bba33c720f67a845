"""How a script of analysis/ takes its runs, and what it says where these cannot answer its question."""

from __future__ import annotations

import sys
from typing import NoReturn

from raykd.results.questions.comparison import Comparison
from raykd.results.reader import load_runs
from raykd.scenario.errors import RaykdError

REFUSED = 2


def given(usage: str, *, num_arguments: int = 1) -> Comparison:
    """The runs in the directory that is a script's first argument.

    Args:
        usage: what to type, for those who typed less.
        num_arguments: that the script cannot do without.

    Raises:
        SystemExit: with code 2, after a sentence on stderr: an argument is missing, or no run is there.
    """
    if len(sys.argv) <= num_arguments:
        _end(f"usage: python {usage}")
    try:
        return Comparison.of(load_runs(sys.argv[1]))
    except RaykdError as error:
        _end(str(error))


def needs(is_there: bool, what: str) -> None:
    """Ends a script whose runs lack something.

    Args:
        is_there: whether they have it.
        what: they need.

    Raises:
        SystemExit: with code 2, after a sentence on stderr.
    """
    if not is_there:
        _end(f"{sys.argv[1]}: this question needs {what}")


def needs_methods(comparison: Comparison, *methods: str) -> None:
    """Ends a script whose runs are not of all these methods, naming those that there are."""
    missing = [name for name in methods if name not in comparison.methods]
    known = ", ".join(comparison.methods) or "no method with an evaluated test case"
    needs(
        not missing, f"runs of {' and '.join(methods)}, got {known}; name methods of these runs as further arguments, or run more"
    )


def _end(sentence: str) -> NoReturn:
    sys.stderr.write(f"{sentence}\n")
    raise SystemExit(REFUSED)
