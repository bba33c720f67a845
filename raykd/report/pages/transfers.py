"""What travelled: bytes to and from a site by kind of payload."""

from __future__ import annotations

import pandas as pd

from raykd.report import figures, wording
from raykd.report.blocks import Block, Cell, Drawing, Figures, Row, Table, Text
from raykd.report.material import Material
from raykd.report.tables import Column, table
from raykd.results.questions import traffic

KEY = "travelled"
TITLE = "What travelled"
NEEDS = "a recorded transfer: nothing travelled, or the runs ended before"

MESSAGES = (
    Column("Method", "method"),
    Column("Condition", "condition"),
    Column("When", "stage"),
    Column("Direction", "direction"),
    Column("What", "kind"),
    Column("Written as", "codec"),
    Column("Messages of a run", "num_messages", "count"),
    Column("Size of one", "bytes_per_message", "size"),
    Column("A site and round", "bytes_per_site_round", "size"),
)


def page(material: Material) -> list[Block]:
    """Bars and numbers by direction and kind."""
    kinds = material.kinds
    if not kinds:
        return []
    never = "" if material.evidence.pooling_methods else " Scans and label maps never leave a site."
    return [
        Text(f"Mean over sites, all rounds and the hand-out before them.{never}"),
        Figures(
            tuple(_bars(material, title, way) for title, way in (("Received by a site", "down"), ("Sent by a site", "up"))), kinds
        ),
        _table(material),
        table(
            material,
            "Messages by kind and codec",
            traffic(material.comparison),
            MESSAGES,
            summary="The numbers: message by message",
        ),
    ]


def _bars(material: Material, title: str, way: str) -> Drawing:
    rows, numbers = [], []
    for label, cost in material.costs.items():
        sizes = cost.down if way == "down" else cost.up
        pieces = [(kind, sizes[kind], wording.data_size(sizes[kind])) for kind in material.kinds if kind in sizes]
        rows.append(figures.Bar(label, pieces, wording.data_size(sum(sizes.values())), material.keys(label)))
        numbers += [{"method": label, "kind": kind, "num_bytes": size} for kind, size, _ in pieces]
    svg = figures.bars(rows, material.kinds, title, palette="k")
    return Drawing(title, svg, pd.DataFrame(numbers, columns=["method", "kind", "num_bytes"]))


def _table(material: Material) -> Table:
    rows = []
    for label, cost in material.costs.items():
        for direction, sizes in (("received", cost.down), ("sent", cost.up)):
            cells = [Cell(wording.data_size(sizes.get(kind, 0.0)), sizes.get(kind, 0.0)) for kind in material.kinds]
            rows.append(Row((Cell(label), Cell(direction), *cells), material.keys(label)))
    headings = ("Method", "Direction", *material.kinds)
    summary = "The numbers: what each method sent and received"
    return Table("Bytes of a site by direction and kind", headings, tuple(rows), summary=summary)
