"""Every site and structure: how far its test scans spread under every method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pandas as pd

from raykd.report import figures
from raykd.report.blocks import Block, Cell, Choice, Drawing, Figures, Row, Table, Text
from raykd.report.material import DRAWN, Material
from raykd.report.tables import METRICS, Column, digits_of, table
from raykd.report.wording import number, plural, readable
from raykd.results.questions import native_references

KEY = "sites"
TITLE = "Every site and structure"
NEEDS = "an evaluated test case"
NATIVE = (
    Column("Method", "method"),
    Column("Condition", "condition"),
    Column("Site", "client_name"),
    Column("Structure", "class_name", "class"),
    Column("Site's reference, mm³", "volume_ref_mm3", "count"),
    Column("Source's, mm³", "volume_native_mm3", "count"),
    Column("Share", "share", "number"),
    Column("DSC at the site", "dsc", "number", digits=3),
    Column("DSC on the source's grid", "dsc_native", "number", digits=3),
)


def page(material: Material) -> list[Block]:
    """A figure a site and metric, and all the numbers."""
    metrics = [metric for metric in DRAWN if len(material.scores[metric])]
    if not metrics:
        return []
    num_hidden = max(0, material.evidence.deployed["client_id"].nunique() - len(material.sites))
    words = "Thin line: all test scans. Thick line: the middle half. Mark: the mean."
    if num_hidden:
        words += f" {plural(num_hidden, 'site')} where the best method does better are left out of the drawings, not of the table."
    sets = {METRICS[metric]: Figures(_spreads(material, metric), legend="methods") for metric in metrics}
    return [Text(words), Choice("metric", sets), _class_table(material, metrics), *_native(material)]


def _native(material: Material) -> list[Block]:
    """How much of each structure a site's thicker slices leave in its reference; nothing where no source is finer."""
    found = native_references(material.comparison)
    if found.empty:
        return []
    least = found.sort_values("share").iloc[0]
    share, where = number(float(least["share"]), 2), f"{readable(str(least['class_name']))} at {least['client_name']}"
    words = (
        "Some sites have thicker slices than their source. Scores are against the site's own reference, which loses thin "
        f"structures: that of {where} has {share} of the volume that the source's has."
    )
    columns = NATIVE if found["dsc_native"].notna().any() else [one for one in NATIVE if one.name not in ("dsc", "dsc_native")]
    caption = "The site's reference and its source's"
    return [Text(words), table(material, caption, found, columns, summary=caption)]


def _spreads(material: Material, metric: str) -> tuple[Drawing, ...]:
    evidence, sites = material.evidence, material.sites
    cases = evidence.deployed[evidence.deployed["client_id"].isin(sites)].dropna(subset=[metric])
    cases = cases.groupby(["method", "client_id", "class_name", "case_id"], observed=True)[metric].mean().reset_index()
    values, drawings = cases[metric].tolist(), []
    for client_id in sites:
        rows, name = cases[cases["client_id"] == client_id], evidence.name(client_id)
        if len(rows):
            svg = figures.spread(rows, metric, values, material, name)
            drawings.append(Drawing(name, svg, rows.drop(columns="client_id"), material.keys(client_id=client_id)))
    return tuple(drawings)


def _class_table(material: Material, metrics: Sequence[str]) -> Table:
    rows = []
    for key, group in material.evidence.deployed.groupby(["client_id", "class_name", "method"], observed=True, sort=True):
        client_id, name, label = cast(tuple[int, str, str], key)
        cells = [Cell(material.evidence.name(client_id)), Cell(readable(name)), Cell(label)]
        cells += [_mean_cell(group, metric) for metric in metrics]
        rows.append(Row(tuple(cells), material.keys(label, client_id, name)))
    headings = ("Site", "Structure", "Method", *(METRICS[metric] for metric in metrics))
    return Table(
        "Every site, structure and method", headings, tuple(rows), summary="The numbers: mean ± standard deviation over scans"
    )


def _mean_cell(group: pd.DataFrame, metric: str) -> Cell:
    values = group.groupby("case_id", observed=True)[metric].mean().dropna()
    mean = number(float(values.mean()), digits_of(metric))
    return Cell(f"{mean} ± {number(values.std(), digits_of(metric))}", float(values.mean())) if len(values) > 1 else Cell(mean)
