"""The command that shows what crossed the boundary of a run: every message's tensors, their types, shapes and sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raykd.commands.options import FAILED, AsJson
from raykd.commands.tables import aligned, bytes_text

if TYPE_CHECKING:
    import pandas as pd

WEIGHTS = ("params", "teacher")
NUM_AXES = 3
"""A tensor of values by voxel has so many axes at least."""


def audit(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The directory of a run.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Shows what crossed between server and clients, by direction and kind, and which tensors are maps over voxels; exit code 3
    where it does not add up to the bytes that the run counted on its links.
    """
    from raykd.results.reader import open_run

    run = open_run(run_dir)
    crossings, transfers = run.table("crossings"), run.table("transfers")
    rows = crossed(crossings, transfers)
    maps = maps_over_voxels(crossings)
    if as_json:
        typer.echo(json.dumps({"crossed": rows, "maps_over_voxels": maps}, indent=2))
    else:
        typer.echo(_text(rows, maps))
    whole = transfers[~_cut_off(transfers, run.table("events"))]
    told, noted = int(whole["num_bytes"].sum()), sum(row["num_bytes"] for row in rows)
    if told != noted:
        typer.echo(f"{run_dir}: {noted} bytes were noted at the boundary, but {told} were counted on links", err=True)
        raise typer.Exit(FAILED)


def crossed(crossings: pd.DataFrame, transfers: pd.DataFrame) -> list[dict[str, Any]]:
    """For each stage, direction and kind: codecs, messages, tensors in one, largest tensor, types of numbers, and bytes in all."""
    rows = []
    for (stage, direction, kind), own in _by_stage(crossings):
        tensors = own[own["dtype"] != "JSON"]
        largest = tensors.loc[tensors["num_bytes"].idxmax()]
        of_kind = transfers[_is_in(transfers, stage) & (transfers["direction"] == direction) & (transfers["kind"] == kind)]
        rows.append(
            {
                "stage": stage,
                "direction": direction,
                "kind": kind,
                "codecs": sorted(of_kind["codec"].unique().tolist()),
                "num_messages": len(of_kind),
                "num_tensors": int(tensors["name"].nunique()),
                "largest": f"{largest['name']} {largest['shape']}",
                "dtypes": sorted(tensors["dtype"].unique().tolist()),
                "num_bytes": int((own["num_bytes"] * own["num_messages"]).sum()),
            }
        )
    return rows


def maps_over_voxels(crossings: pd.DataFrame) -> list[str]:
    """The tensors besides weights that have three axes or more: what says something of places, and deserves a look."""
    others = crossings[~crossings["kind"].isin(WEIGHTS) & (crossings["shape"].str.count("x") >= NUM_AXES - 1)]
    told = others[["direction", "name", "shape", "dtype"]].drop_duplicates()
    return [f"{row.name} ({row.direction}, {row.shape}, {row.dtype})" for row in told.itertuples(index=False)]


def _by_stage(crossings: pd.DataFrame) -> Any:
    stage = crossings["round"].map(lambda number: "before the first round" if number < 0 else "in the rounds")
    keys = [stage.rename("stage"), crossings["direction"].astype(str), crossings["kind"].astype(str)]
    return crossings.groupby(keys, observed=True)


def _is_in(transfers: pd.DataFrame, stage: str) -> Any:
    return (transfers["round"] < 0) == (stage == "before the first round")


def _cut_off(transfers: pd.DataFrame, events: pd.DataFrame) -> Any:
    """Which rows are of uploads that a deadline cut off: their bytes crossed and were never read."""
    import pandas as pd

    late = events[events["kind"].astype(str) == "straggler"]
    keys = set(zip(late["round"], late["client_id"], strict=True))
    is_late = [key in keys for key in zip(transfers["round"], transfers["client_id"], strict=True)]
    return (transfers["direction"].astype(str) == "up") & pd.Series(is_late, index=transfers.index, dtype=bool)


def _text(rows: list[dict[str, Any]], maps: list[str]) -> str:
    if not rows:
        return "nothing crossed a link"
    header = ["crossed", "", "kind", "codecs", "messages", "tensors in one", "largest", "types", "in all"]
    lines = [
        [
            row["stage"],
            row["direction"],
            row["kind"],
            ", ".join(row["codecs"]),
            str(row["num_messages"]),
            str(row["num_tensors"]),
            row["largest"],
            ", ".join(row["dtypes"]),
            bytes_text(row["num_bytes"]),
        ]
        for row in rows
    ]
    told = "; ".join(maps) if maps else "none"
    return f"{aligned([header, *lines], left=(0, 1, 2, 3, 6, 7), num_keys=3)}\n\nMaps over voxels: {told}"
