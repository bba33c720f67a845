"""From run directories to one file that tells what they showed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from raykd.report.answer import Answer, answer
from raykd.report.blocks import Absent, Page
from raykd.report.evidence import collect
from raykd.report.html import render_html
from raykd.report.markdown import render_markdown
from raykd.report.material import Material, Options
from raykd.report.pages import pages_of
from raykd.report.pdf import write_pdf
from raykd.results.reader import each_path
from raykd.scenario.errors import RaykdError, did_you_mean
from raykd.storage import url_of

FORMATS = ("html", "md", "pdf")


@dataclass(frozen=True)
class Report:
    """What every format prints.

    Attributes:
        material: the runs.
        answer: the first screen.
        pages: what the runs can answer.
        absent: what they cannot.
    """

    material: Material
    answer: Answer
    pages: Sequence[Page]
    absent: Sequence[Absent]


def build_report(
    paths: str | Path | Iterable[str | Path],
    out: str | Path | None = None,
    format_: str = "html",
    options: Options | None = None,
) -> Path:
    """Write the report on all runs below `paths` as one self-contained file.

    Args:
        paths: one directory or several, of runs or of studies that hold some; URLs, too.
        out: the file to write, or an existing directory to put `report.html` (`.md`, `.pdf`) into; None: into the first of
            `paths`, or the current directory where that is a URL.
        format_: html, md (without pictures) or pdf (the HTML as Chromium prints it).
        options: what is asked for beside the runs.

    Returns:
        The file written.

    Raises:
        RaykdError: a path holds no run, no run can be read, the format is unknown, Chromium is needed and missing, or the file
            cannot be written.
    """
    if format_ not in FORMATS:
        raise RaykdError(f"there is no report format '{format_}'; {did_you_mean(format_, FORMATS)}")
    places = each_path(paths)
    report = compose(places, options or Options())
    place = Path(out) if out is not None else Path() if url_of(places[0]) else Path(places[0])
    file = place / f"report.{format_}" if place.is_dir() else place
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if format_ == "pdf":
            write_pdf(render_html(report), file)
        else:
            file.write_text(render_html(report) if format_ == "html" else render_markdown(report), encoding="utf-8")
    except OSError as error:
        raise RaykdError(f"{file}: the report cannot be written ({error.strerror}); give another place") from None
    return file


def compose(paths: Iterable[str | Path], options: Options) -> Report:
    """The report before it takes a format."""
    material = Material(collect(paths), options)
    pages, absent = pages_of(material)
    return Report(material, answer(material), pages, absent)
