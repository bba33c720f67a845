"""The command that attacks what a run's clients uploaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raykd.commands.options import AsJson, Quiet

if TYPE_CHECKING:
    import pandas as pd


def leaks(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The directory of a run that is done.", show_default=False)],
    steps: Annotated[int, typer.Option("--steps", metavar="NUMBER", help="Steps that an inversion takes.", min=1)] = 200,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Attacks the uploads of a run's last round: images made from them, and training cases told from others."""
    from raykd.execution import only_writer
    from raykd.leaks.check import find_leaks
    from raykd.numerics.inversion import Effort
    from raykd.results.questions import Comparison, leaks_found
    from raykd.results.reader import Tables, open_run
    from raykd.results.writer import RunWriter

    run = open_run(run_dir)
    common = {name: run.manifest[name] for name in ("run_id",)}
    scenario = {"scenario": run.scenario["name"], "method": run.manifest["method"], "seed": run.scenario["seed"]}
    with only_writer(run_dir):
        round_index, rows = find_leaks(run_dir, Effort(num_steps=steps), (lambda text: None) if quiet else _note)
        RunWriter(run_dir, {**common, **scenario}).add("leaks", rows, f"round-{round_index:05d}")
    found = leaks_found(Comparison.of(Tables((open_run(run_dir),))))
    if as_json:
        typer.echo(json.dumps(json.loads(found.to_json(orient="records")), indent=2))
    else:
        _print(found, round_index, run_dir)


def _note(text: str) -> None:
    typer.echo(text, err=True)


def _print(found: pd.DataFrame, round_index: int, run_dir: Path) -> None:
    for row in found.to_dict("records"):
        typer.echo(_line(row))
    num_leaks = int((found["verdict"] == "leaks").sum())
    typer.echo(
        f"{run_dir}: {num_leaks} of {len(found)} attacks on the uploads of round {round_index + 1} got beyond what is known anyway"
    )


def _line(row: Mapping[Any, Any]) -> str:
    interval = "" if row["low"] is None or row["low"] != row["low"] else f" [{row['low']:.2f}, {row['high']:.2f}]"
    unseen = "" if row["unseen"] is None or row["unseen"] != row["unseen"] else f", held-out cases {row['unseen']:.2f}"
    reach = f"{row['metric']} {row['value']:.2f}{interval} (blind {row['blind']:.2f}{unseen})"
    return f"{row['client_name']:<16}  {row['attack']:<22}  {reach}: {row['verdict']}{_needed(row)}"


def _needed(row: Mapping[Any, Any]) -> str:
    """How many held-out cases a verdict asks for, where there are too few."""
    few = row["verdict"] == "too few cases" and str(row["metric"]).startswith("tpr_at_fpr_")
    return f" (a false positive rate of {row['blind']:.0%} asks for {round(1 / row['blind'])} held-out cases a site)" if few else ""
