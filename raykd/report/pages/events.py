"""What happened on the way: lost workers, clients that dropped out, joined or left."""

from __future__ import annotations

import pandas as pd

from raykd.report.blocks import Block, Cell, Row, Table
from raykd.report.material import Material
from raykd.report.wording import plural, readable

KEY = "events"
TITLE = "What happened on the way"
NEEDS = "an event. Nothing out of the ordinary was recorded"
NUM_EVENTS = 40
FEW = 12


def page(material: Material) -> list[Block]:
    """The first events, one row each; many are folded away."""
    every = material.evidence.tables["events"]
    events = every.sort_values(["method", "seed", "round"], kind="stable").head(NUM_EVENTS)
    if events.empty:
        return []
    rows = [
        Row(
            (Cell(str(label)), Cell(str(seed), float(seed)), Cell("before" if index < 0 else str(index + 1), float(index)),
             Cell(material.evidence.name(client_id)), Cell(readable(str(kind))), Cell("" if pd.isna(detail) else str(detail))),
            material.keys(str(label), int(client_id)),
        )
        for label, seed, index, client_id, kind, detail in events[
            ["method", "seed", "round", "client_id", "kind", "detail"]
        ].itertuples(index=False)
    ]  # fmt: skip
    rest = f", the first {len(rows)} shown" if len(every) > len(rows) else ""
    summary = f"{plural(len(every), 'event')}{rest}" if len(every) > FEW else ""
    return [Table("Events", ("Method", "Seed", "Round", "Site", "What", "Detail"), tuple(rows), is_sortable=False, summary=summary)]
