"""The report: what runs have shown, on one page for whoever has to decide.

The package can be called: `raykd.report("runs/mine")` is `build_report("runs/mine")`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from raykd.report.build import build_report
from raykd.report.material import Options

__all__ = ["Options", "build_report"]


class _Report(ModuleType):
    """A package that builds a report when it is called, because its name is that of the public function."""

    def __call__(
        self,
        paths: str | Path | Iterable[str | Path],
        out: str | Path | None = None,
        format_: str = "html",
        options: Options | None = None,
    ) -> Path:
        return build_report(paths, out, format_, options)


sys.modules[__name__].__class__ = _Report
