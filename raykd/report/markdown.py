"""The report as Markdown: the same pages without pictures, for a repository or a mail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import TYPE_CHECKING

from markupsafe import Markup

from raykd import __version__
from raykd.report.blocks import Block, Choice, Drawing, Facts, Figures, Heading, Table, Text
from raykd.report.wording import plural

if TYPE_CHECKING:
    from raykd.report.build import Report

SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def render_markdown(report: Report) -> str:
    """The report as text."""
    return "\n\n".join(_parts(report)) + "\n"


def _parts(report: Report) -> Iterator[str]:
    evidence = report.material.evidence
    yield f"# {escape(str(evidence.scenario.get('name') or 'Report'))}"
    if evidence.scenario.get("description"):
        yield escape(str(evidence.scenario["description"]))
    yield from (f"> {escape(note)}" for note in evidence.notes)
    yield from _answer(report)
    for page in report.pages:
        yield f"## {escape(page.title)}"
        for block in page.blocks:
            yield from _block(block)
    if report.absent:
        yield "## What these runs do not answer"
        yield "\n".join(f"- {escape(absent.title)}: needs {escape(absent.needs)}." for absent in report.absent)
    yield f"Written by raykd {__version__} from the tables of {plural(len(evidence.runs), 'run')} alone."


def _answer(report: Report) -> Iterator[str]:
    answer = report.answer
    yield f"**{escape(_words(answer.lead))}**"
    for question in answer.questions:
        yield f"### {escape(question.title)}"
        yield "\n".join(f"- {escape(_words(sentence))}" for sentence in question.sentences)
    yield "\n".join(f"- {escape(caveat)}" for caveat in answer.caveats)


def _block(block: Block) -> Iterator[str]:
    match block:
        case Text(words):
            yield escape(_words(words))
        case Heading(words=words):
            yield f"### {escape(words)}"
        case Facts(pairs=pairs):
            yield "\n".join(f"- {escape(heading)}: {escape(words)}" for heading, words in pairs)
        case Table():
            yield _table(block)
        case Figures(drawings=drawings):
            yield "\n".join(f"- {escape(_said(drawing))}" for drawing in drawings)
        case Choice(sets=sets):
            for name, figures in sets.items():
                yield f"### {escape(name)}"
                yield from _block(figures)


def _said(drawing: Drawing) -> str:
    """What a screen reader says of a figure."""
    found = re.search(r'aria-label="([^"]*)"', drawing.svg)
    return unescape(found.group(1)) if found else drawing.title


def _table(table: Table) -> str:
    lines = [" | ".join(map(escape, table.headings)), " | ".join("---" for _ in table.headings)]
    lines += [
        " | ".join(escape(f"{cell.words} ({cell.detail})" if cell.detail else cell.words) for cell in row.cells)
        for row in table.rows
    ]
    return f"{escape(table.caption)}:\n\n" + "\n".join(f"| {line} |" for line in lines)


def _words(words: str | Markup) -> str:
    return str(words.striptags()) if isinstance(words, Markup) else words


def escape(words: str) -> str:
    """Words that Markdown prints as they are, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(words.split()))
