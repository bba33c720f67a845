"""What every column of every table holds, as a frame."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import pyarrow as pa

from raykd.results.columns import ADDED, MEANING_KEY, MEASURED_KEY, UNIT_KEY
from raykd.results.schema import TABLES


def dictionary(schemas: Mapping[str, pa.Schema] | None = None) -> pd.DataFrame:
    """What every column holds: `table`, `column`, `type`, `unit`, `meaning`, `is_measured`, `is_required`; of files with these
    `schemas`, by table, their further columns, too, and their own words where they have some."""
    rows = []
    for name, table in TABLES.items():
        written = {field.name: field for field in (schemas or {}).get(name, [])}
        declared = {column.name: column.field() for column in table.columns}
        for field in ({**declared, **written}).values():
            told = {**(declared[field.name].metadata if field.name in declared else {}), **(field.metadata or {})}
            row = {"table": name, "column": field.name, "type": str(field.type), "unit": told.get(UNIT_KEY, b"").decode()}
            row |= {"meaning": told.get(MEANING_KEY, ADDED.encode()).decode(), "is_measured": told.get(MEASURED_KEY) == b"true"}
            rows.append({**row, "is_required": not field.nullable})
    return pd.DataFrame(rows)
