"""Resolution and scanner gap: which sites lag behind, and how much of that is given back."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from raykd.report.blocks import Block, Drawing, Figures, Text
from raykd.report.charts import Delta, differences
from raykd.report.compared import intervals_are
from raykd.report.contenders import references
from raykd.report.material import Material
from raykd.report.tables import Column, table
from raykd.results.questions import site_gains
from raykd.results.statistics import Estimate

KEY = "gaps"
TITLE = "Thick slices and other scanners: who loses, who gets it back"
NEEDS = "two methods evaluated at two or more sites"
GAINS = (
    Column("Site", "client_name"),
    Column("Condition", "condition"),
    Column("Spacing, mm", "spacing_mm"),
    Column("Scanner", "scanner"),
    Column("Labels", "num_labelled", "count"),
    Column("DSC of the reference", "reference_dsc", "number"),
    Column("behind the best site by", "lag", "number"),
    Column("DSC of the method", "dsc", "number"),
    Column("Gain", "gain", "signed"),
    Column("Part of the lag made up", "lag_made_up", "share"),
    Column("p after Holm", "p_holm", "p"),
    Column("Verdict", "verdict"),
)
NUM_DRAWN = 24


def page(material: Material) -> list[Block]:
    """Gains of the best method over each reference, by site, thickest slices first."""
    method, others = references(material)
    blocks, seeds = list[Block](), set[float]()
    for other in others:
        gains = site_gains(material.comparison, method, other)
        if gains.empty or gains["client_id"].nunique() < 2:
            continue
        gains = gains.sort_values(["slice_mm", "client_name"], ascending=[False, True], kind="stable")
        seeds |= set(gains["num_seeds"])
        title = f"DSC of {method} minus {other}, thickest slices first"
        deltas = tuple(_deltas(material, method, gains))[:NUM_DRAWN]
        blocks.append(
            Figures((Drawing(title, differences(deltas, title, f"{method} is better"), gains.drop(columns="client_id")),))
        )
        blocks.append(table(material, f"{method} beside {other}, site by site", gains, GAINS))
    words = (
        f"The lag is that of a site behind the best one under the reference. {intervals_are(seeds)} p-values are adjusted after "
        "Holm over the sites and conditions of a table."
    )
    return [Text(words), *blocks] if blocks else []


def _deltas(material: Material, method: str, gains: pd.DataFrame) -> Iterator[Delta]:
    for row in gains.to_dict("records"):
        condition = str(row["condition"] or "")
        edge = "" if pd.isna(row["slice_mm"]) else f"{row['slice_mm']:.3g} mm"
        label = ", ".join(part for part in (str(row["client_name"]), edge, condition) if part)
        keys = {**material.keys(client_id=int(row["client_id"])), **({"condition": condition} if condition else {})}
        yield Delta(label, Estimate(row["gain"], row["gain_low"], row["gain_high"]), material.colour(method), keys)
