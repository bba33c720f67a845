"""What did thick slices do to the reference? The site's against that of its source, on the source's finer grid."""

from __future__ import annotations

import pandas as pd

from raykd.results.questions.comparison import Comparison

PLACE = ["cell", "client_id", "class_name"]
VOLUMES, SCORES = ["volume_ref_mm3", "volume_native_mm3"], ["dsc", "dsc_native"]


def native_references(comparison: Comparison) -> pd.DataFrame:
    """One row a method, condition, site and class that a finer reference of the source holds; none without such a reference.

    `volume_ref_mm3` and `volume_native_mm3` are means over the test cases whose finer reference holds the class, `share` is the
    first over the second; `dsc` and `dsc_native` are means over the test cases scored on both grids, NaN where there are none.
    """
    cases = comparison.deployed.reindex(columns=[*PLACE, *VOLUMES, *SCORES])
    held, scored = cases[cases["volume_native_mm3"] > 0], cases.dropna(subset=SCORES)
    volumes = held.groupby(PLACE, observed=True, sort=False)[VOLUMES].mean()
    scores = scored.groupby(PLACE, observed=True, sort=False)[SCORES].mean()
    table = volumes.join(scores).reset_index()
    table["share"] = table["volume_ref_mm3"] / table["volume_native_mm3"]
    cells = comparison.cells.loc[table["cell"].astype(int)]
    table.insert(0, "method", cells["method"].to_numpy())
    table.insert(1, "condition", cells["condition"].to_numpy())
    table.insert(2, "client_name", [comparison.names.get(int(client), str(client)) for client in table["client_id"]])
    return table.drop(columns=["cell", "client_id"])
