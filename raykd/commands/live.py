"""The command that looks at a run or a study while it goes on: everything it shows is read from the tables on disk."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer

from raykd.commands.options import AsJson
from raykd.commands.tables import aligned, bytes_text, seconds_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from raykd.commands.looks import Look
    from raykd.commands.study_looks import StudyLook

L = TypeVar("L", "Look", "StudyLook")
RunDir = Annotated[Path, typer.Argument(metavar="DIR", help="The directory of a run or of a study.", show_default=False)]
Every = Annotated[float, typer.Option("--every", metavar="SECONDS", min=0.2, help="How often to look.")]
NUM_CLIENTS = 20


def watch(
    run_dir: RunDir,
    once: Annotated[bool, typer.Option("--once", help="Looks once and ends.")] = False,
    every: Every = 2.0,
    as_json: AsJson = False,
) -> None:
    """Shows how a run or a study is doing, live on a terminal and line by line elsewhere, until it ends; Ctrl-C ends the watching
    alone."""
    from raykd.commands.study_looks import is_study_dir

    seen_as: Shown[Any] = _shown_study() if is_study_dir(run_dir) else _shown_run()
    try:
        looks = iter([seen_as.look(run_dir)]) if once else _looks(run_dir, every, seen_as)
        if as_json:
            for seen in looks:
                typer.echo(json.dumps(asdict(seen)))
        elif once:
            typer.echo(seen_as.text(next(looks)))
        elif sys.stdout.isatty():
            _show(looks, seen_as)
        else:
            _print_lines(looks, seen_as)
    except KeyboardInterrupt:
        raise typer.Exit from None


@dataclass(frozen=True)
class Shown(Generic[L]):
    """How a run, or a study, is looked at and shown.

    Attributes:
        look: what there is to see in a directory.
        changing: what has changed where there is something new to show.
        line: the look in a line.
        text: the look as plain text, the line first.
        drawn: the look on a terminal.
    """

    look: Callable[[Path], L]
    changing: Callable[[L], Any]
    line: Callable[[L], str]
    text: Callable[[L], str]
    drawn: Callable[[L], RenderableType]


def _shown_run() -> Shown[Look]:
    from raykd.commands.looks import look

    return Shown(look, lambda seen: (seen.state, seen.last_word), headline, text_of, _drawn)


def _shown_study() -> Shown[StudyLook]:
    from raykd.commands import study_looks

    def about_run(seen: StudyLook) -> str:
        return headline(seen.running) if seen.running else ""

    def line(seen: StudyLook) -> str:
        return "; now ".join(part for part in (study_looks.headline(seen), about_run(seen)) if part)

    def text(seen: StudyLook) -> str:
        return study_looks.text_of(seen, about_run(seen))

    def drawn(seen: StudyLook) -> RenderableType:
        from rich.text import Text

        return Text(text(seen))

    return Shown(study_looks.look_at_study, lambda seen: (seen.cells, line(seen)), line, text, drawn)


def _looks(folder: Path, every: float, seen_as: Shown[L]) -> Iterator[L]:
    """A look whenever the directory has changed, the last once nobody writes it."""
    before: Any = None
    while True:
        seen = seen_as.look(folder)
        if (now := seen_as.changing(seen)) != before:
            yield seen
            before = now
        if seen.is_over:
            return
        time.sleep(every)


def headline(seen: Look) -> str:
    """The run in a line."""
    state = seen.state
    words = [f"{state['name']}, {seen.method}: {state['status']}", f"round {state['rounds_done']} of {state['rounds'] or '?'}"]
    if seen.left_s is not None:
        words.append(f"about {seconds_text(seen.left_s)} left")
    elif not state["rounds_done"] and seen.last_word:
        words.append(seen.last_word)
    return ", ".join(words)


def tables_of(seen: Look) -> Iterator[tuple[str, list[list[str]]]]:
    """What is shown below the headline: titles with rows of words, heads first."""
    if seen.rounds:
        rows = [
            [str(r["round"]), f"{r['num_completed']} of {r['num_selected']}", *_measures(r), _said(r["seconds"], seconds_text)]
            for r in seen.rounds
        ]
        yield "rounds", [["round", "clients", "loss", "DSC", "bytes", "took"], *rows]
    if seen.clients:
        rows = [[c["client"], str(c["round"] or "-"), *_measures(c)] for c in seen.clients[:NUM_CLIENTS]]
        more = len(seen.clients) - len(rows)
        title = f"clients ({more} more are not shown)" if more else "clients"
        yield title, [["client", "last round", "loss", "DSC", "bytes"], *rows]
    if seen.events:
        counts = ", ".join(f"{count} {kind}" for kind, count in seen.num_events.items())
        rows = [[str(e["round"] + 1), e["client"], e["kind"], str(e["detail"] or "")] for e in seen.events]
        yield f"events: {counts}; the last:", [["round", "client", "kind", "detail"], *rows]


def _measures(row: dict[str, Any]) -> list[str]:
    return [_said(row["loss"], "{:.3f}".format), _said(row["dsc"], "{:.3f}".format), _said(row["num_bytes"], bytes_text)]


def _said(value: float | None, words: Any) -> str:
    return "-" if value is None else str(words(value))


def text_of(seen: Look) -> str:
    """A look as plain text."""
    parts = [headline(seen)]
    for title, rows in tables_of(seen):
        parts.append(f"\n{title}\n{aligned(rows, left=(0, *range(2, len(rows[0]))) if title.startswith('events') else (0,))}")
    if hint := _hint(seen):
        parts.append(f"\n{hint}")
    return "\n".join(parts)


def _hint(seen: Look) -> str:
    state = seen.state
    if state["status"] == "died":
        return f"its process ended without a word; go on: raykd resume {state['run_dir']}"
    return str(state["reason"] or "")


def _show(looks: Iterator[L], seen_as: Shown[L]) -> None:
    """On a terminal: a screen that changes, and the last look left standing."""
    from rich.live import Live

    with Live(refresh_per_second=4, vertical_overflow="visible") as live:
        for seen in looks:
            live.update(seen_as.drawn(seen))


def _drawn(seen: Look) -> RenderableType:
    from rich.console import Group
    from rich.padding import Padding
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    state = seen.state
    parts: list[RenderableType] = [Text(headline(seen), style="bold")]
    if state["rounds"]:
        parts.append(Padding(ProgressBar(total=state["rounds"], completed=state["rounds_done"], width=60), (0, 0, 1, 0)))
    for title, (heads, *rows) in tables_of(seen):
        table = Table(*heads, title=title, title_justify="left", box=None, header_style="dim")
        for row in rows:
            table.add_row(*map(Text, row))
        parts.append(table)
    if hint := _hint(seen):
        parts.append(Text(hint, style="yellow"))
    return Group(*parts)


def _print_lines(looks: Iterator[L], seen_as: Shown[L]) -> None:
    """Elsewhere: a line whenever it changes, and an account at the end."""
    seen, said = None, ""
    for seen in looks:
        if (line := seen_as.line(seen)) != said:
            typer.echo(line)
            said = line
    if seen is not None:
        typer.echo(seen_as.text(seen).partition("\n")[2])
