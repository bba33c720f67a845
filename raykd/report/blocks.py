"""What pages are made of: blocks that know nothing of HTML or Markdown, so that every format prints the same report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pandas as pd
from markupsafe import Markup

Keys = Mapping[str, str]
"""What a row, mark or picture is about: `method`, `condition`, `site`, `structure`, those that it has. Readers filter by them."""
FACETS = ("method", "condition", "site", "structure")


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    words: str | Markup


@dataclass(frozen=True)
class Heading:
    """A heading within a page."""

    kind: ClassVar[str] = "heading"
    words: str
    keys: Keys = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """Words by heading."""

    kind: ClassVar[str] = "facts"
    pairs: tuple[tuple[str, str], ...]
    keys: Keys = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """A cell: what it shows, the number by which its column is sorted (None: by its words), a smaller line beneath, and the id of
    the place on the page that it leads to ("": none)."""

    words: str
    value: float | None = None
    detail: str = ""
    leads_to: str = ""


@dataclass(frozen=True)
class Row:
    """Cells, and what they are about."""

    cells: tuple[Cell, ...]
    keys: Keys = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: what it is.
        headings: one a column.
        rows: its rows.
        is_sortable: whether headings sort it.
        summary: the line under which it is folded away; "": it lies open.
    """

    kind: ClassVar[str] = "table"
    caption: str
    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    is_sortable: bool = True
    summary: str = ""


@dataclass(frozen=True)
class Drawing:
    """A figure under a heading, with the numbers that it draws."""

    title: str
    svg: Markup
    data: pd.DataFrame
    keys: Keys = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """Drawings side by side.

    Attributes:
        drawings: at least one.
        legend: "methods", the names of the pieces of bars, or "".
    """

    kind: ClassVar[str] = "figures"
    drawings: tuple[Drawing, ...]
    legend: str | tuple[str, ...] = ""


@dataclass(frozen=True)
class Choice:
    """Figures of which one set is shown at a time.

    Attributes:
        name: unique among the choices of a report.
        sets: what a reader picks, and what that shows.
    """

    kind: ClassVar[str] = "choice"
    name: str
    sets: Mapping[str, Figures]


@dataclass(frozen=True)
class Panel:
    """A picture and the line beneath it."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Pictures:
    """Pictures of one case side by side."""

    kind: ClassVar[str] = "pictures"
    title: str
    panels: tuple[Panel, ...]
    keys: Keys = field(default_factory=dict)


@dataclass(frozen=True)
class Viewer:
    """Slices of one case to scroll through.

    Attributes:
        key: its id.
        title: the site, the plane and the case.
        svg: all slices, each a group of which one is shown.
        places: where each slice lies.
        start: the slice shown first.
        labels: methods of whose models a prediction of the case was kept.
        scores: what each of them scores on the case, in words.
        client_id, case_id: whose case it is.
    """

    kind: ClassVar[str] = "viewer"
    key: str
    title: str
    svg: Markup
    places: tuple[str, ...]
    start: int
    labels: tuple[str, ...]
    scores: tuple[tuple[str, str], ...]
    client_id: int
    case_id: str
    keys: Keys = field(default_factory=dict)


@dataclass(frozen=True)
class Outlines:
    """The switches of what viewers outline, the choice of whose model, and of another one beside it.

    Attributes:
        labels: methods whose outlines there are.
        structures: the names of the classes 1, 2, ...
    """

    kind: ClassVar[str] = "outlines"
    labels: tuple[str, ...]
    structures: tuple[str, ...]


Block = Text | Heading | Facts | Table | Figures | Choice | Pictures | Viewer | Outlines


@dataclass(frozen=True)
class Page:
    """One question and its answer.

    Attributes:
        key: its place in the contents, unique, a word.
        title: its heading.
        blocks: what it says, in order.
    """

    key: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Absent:
    """A page that the runs cannot fill, and what would be needed."""

    title: str
    needs: str
