"""What does a method cost in bytes and seconds, and what until it reaches a level of quality?"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raykd.results.questions.comparison import Comparison
from raykd.results.statistics import (
    HIGHER_IS_BETTER,
    Estimate,
    Metric,
    columns_of,
    percentiles,
    resampling_rng,
)

Cost = Literal["num_bytes", "simulated_s", "measured_s"]
"""Bytes over all sites and both directions; seconds at the sites' links and machines, which contain measured compute; seconds of
the simulation. The last two are never added up."""


def communication(comparison: Comparison, metric: Metric = "dsc") -> pd.DataFrame:
    """Quality beside bytes.

    Returns:
        One row a cell: the macro mean `{metric}` with its interval, `bytes_down_per_site` and `bytes_up_per_site` (mean over the
        sites, all rounds and the hand-out before them), `steps_per_site` and `flops_per_site` (see `work_of`), `num_bytes` (all
        sites, both directions), `simulated_s`, `measured_s` (the rounds; NaN: not recorded), `num_seeds`, and `is_efficient`: no
        other cell of the condition has so high a mean with fewer bytes, whatever the intervals say.
    """
    rows = []
    totals = {cost: _final_costs(comparison, cost) for cost in ("num_bytes", "simulated_s", "measured_s")}
    transfers = comparison.with_cells(comparison.table("transfers"))
    training = comparison.with_cells(comparison.table("training"))
    num_runs = comparison.settings.groupby("cell").size()
    for number, (_, cell) in zip(comparison.cells.index.astype(int).tolist(), comparison.cells.iterrows(), strict=True):
        sample = comparison.sample([number], metric)
        if not sample.clients:
            continue
        own = transfers[(transfers["cell"] == number) & (transfers["client_id"] >= 0)]
        per_site = own.groupby("direction", observed=True)["num_bytes"].sum() / num_runs[number] / len(sample.clients)
        work = work_of(training[training["cell"] == number])
        rows.append(
            {
                "method": cell["method"],
                "condition": cell["condition"],
                **columns_of(metric, sample.macro()[0]),
                **{f"bytes_{way}_per_site": float(per_site.get(way, 0.0)) for way in ("down", "up")},
                **{f"{name}_per_site": total / num_runs[number] / len(sample.clients) for name, total in work.items()},
                **{cost: float(values.get(number, 0.0 if cost == "num_bytes" else np.nan)) for cost, values in totals.items()},
                "num_seeds": sample.num_seeds,
            }
        )
    table = pd.DataFrame(rows)
    if len(table):
        sign = 1 if HIGHER_IS_BETTER[metric] else -1
        table["is_efficient"] = [_is_efficient(table, row, metric, sign) for _, row in table.iterrows()]
    return table


def work_of(training: pd.DataFrame) -> dict[str, float]:
    """Optimiser steps over all sites and rounds, a teacher's at a site among them, and their floating-point operations.

    Args:
        training: rows of the table.

    Returns:
        `steps` and `flops`; NaN where a row does not tell, 0 where nothing was trained.
    """
    steps = training["num_steps_taken"].fillna(training["num_steps"])
    return {
        name: float(values.astype(float).sum(skipna=False)) for name, values in (("steps", steps), ("flops", training["flops"]))
    }


def _is_efficient(table: pd.DataFrame, row: pd.Series, metric: Metric, sign: int) -> bool:
    others = table[table["condition"] == row["condition"]]
    is_better = (sign * others[metric] >= sign * row[metric]) & (others["num_bytes"] <= row["num_bytes"])
    is_strict = (sign * others[metric] > sign * row[metric]) | (others["num_bytes"] < row["num_bytes"])
    return not bool((is_better & is_strict).any())


def cost_to_target(
    comparison: Comparison, cost: Cost = "num_bytes", target: float | None = None, metric: Metric = "dsc"
) -> pd.DataFrame:
    """What each cell spends until it first reaches a level of quality, at the rounds that were evaluated.

    Args:
        comparison: the runs.
        cost: what is counted.
        target: macro mean to reach; None: in each condition the most that all its cells reach in the end.
        metric: dsc or nsd, where evaluated during the rounds.

    Returns:
        One row a cell with a learning curve: `target`, `rounds` (done until then; 0: the start was enough), `{cost}` with its
        interval over trainings and patients (infinite: never), `share_reached`: the share of draws that reach it, and `num_seeds`
        (1: over patients alone).
    """
    curves = {int(cell): comparison.curve(int(cell), metric) for cell in comparison.cells.index}
    spent = _cumulated(comparison, cost)
    rows = []
    for condition, cells in comparison.conditions():
        with_curve = {method: cell for method, cell in cells.items() if len(curves[cell].conditions) >= 2 and cell in spent}
        ends = [float(curves[cell].macro_V[-1]) for cell in with_curve.values()]
        for method, cell in with_curve.items():
            level = min(ends) if target is None else target
            rounds = np.asarray(curves[cell].conditions, np.float64)
            costs = np.array([_spent_by(spent[cell], last) for last in rounds])
            at = _first(curves[cell].macro_V[None], level)[0]
            draws_BV = curves[cell].macro_draws_BV(resampling_rng())
            at_B, is_known = _first(draws_BV, level), not np.isnan(draws_BV).any()
            padded = np.append(costs, np.inf)
            interval = percentiles(padded[at_B]) if is_known and not np.isnan(costs).all() else (np.nan, np.nan)
            rows.append(
                {
                    "method": method, "condition": condition, "target": level,
                    "rounds": float(np.append(rounds + 1, np.inf)[at]), **columns_of(cost, Estimate(float(padded[at]), *interval)),
                    "share_reached": float((at_B < len(costs)).mean()) if is_known else np.nan, "num_seeds": curves[cell].num_seeds,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _first(curves_BR: NDArray[np.float64], level: float) -> NDArray[np.intp]:
    """The first round that reaches the level; one past the last where none does."""
    reaches = curves_BR >= level - 1e-12
    return np.where(reaches.any(axis=1), reaches.argmax(axis=1), curves_BR.shape[1])


def _cumulated(comparison: Comparison, cost: Cost) -> dict[int, pd.Series]:
    """For every cell, what it had spent by the end of each round: the mean over its runs. What precedes round 0 is at round -1."""
    if cost == "num_bytes":
        table, column = comparison.table("transfers"), "num_bytes"
        table = table[table["client_id"] >= 0]
        sending = set(table["run_id"].astype(str))
        silent = [run.run_id for run in comparison.runs if run.run_id not in sending]
        empty = pd.DataFrame({"run_id": silent, "round": -1, "num_bytes": 0})
        table = pd.concat([table[["run_id", "round", column]].astype({"run_id": str}), empty])
    else:
        column = "simulated_s" if cost == "simulated_s" else "wall_s"
        table = comparison.table("rounds").dropna(subset=[column])[["run_id", "round", column]].astype({"run_id": str})
        if cost == "simulated_s":
            table = pd.concat([table, _hand_outs(comparison)])
    rows = comparison.with_cells(table)
    by_round = rows.groupby(["cell", "round"])[column].sum().astype(float)
    runs = rows.groupby("cell")["run_id"].nunique()
    return {int(cell): by_round[cell].sort_index().cumsum() / runs[cell] for cell in runs.index}


def _hand_outs(comparison: Comparison) -> pd.DataFrame:
    """The simulated seconds before the first round: of the site that takes longest to get what is handed out."""
    transfers = comparison.table("transfers")
    before = transfers[(transfers["round"] < 0) & (transfers["client_id"] >= 0)].astype({"run_id": str})
    slowest = before.groupby(["run_id", "client_id"])["simulated_s"].sum().groupby("run_id").max()
    return slowest.reset_index().assign(round=-1)


def _spent_by(cumulated: pd.Series, last: float) -> float:
    done = cumulated[cumulated.index.astype(float) <= last]
    return float(done.iloc[-1]) if len(done) else 0.0


def _final_costs(comparison: Comparison, cost: Cost) -> dict[int, float]:
    return {cell: float(values.iloc[-1]) for cell, values in _cumulated(comparison, cost).items()}
