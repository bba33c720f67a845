"""What goes over each line, and where the time of each site goes: by kind of message and by stage of a round."""

from __future__ import annotations

import pandas as pd

from raykd.results.questions.comparison import Comparison
from raykd.results.questions.costs import cost_to_target
from raykd.results.statistics import Metric

STAGES = ("hand_out_s", "download_s", "work_s", "upload_s", "wait_s")


def traffic(comparison: Comparison) -> pd.DataFrame:
    """What crosses the links, by kind of message.

    Returns:
        One row a cell, `stage` (before the rounds, in the rounds), direction, kind and codec: `num_messages`, `num_bytes` (of one
        run, over all sites), `bytes_per_message`, and `bytes_per_site_round`: over the sites and rounds that there were.
    """
    rows = comparison.with_cells(comparison.table("transfers"))
    rows = rows[rows["client_id"] >= 0]
    if rows.empty:
        return pd.DataFrame()
    rows = rows.assign(
        condition=rows["cell"].map(comparison.cells["condition"]),
        stage=(rows["round"] < 0).map({True: "before the rounds", False: "in the rounds"}),
        codec=rows["codec"].astype(object).fillna("none").astype(str),
        direction=rows["direction"].astype(str),
        kind=rows["kind"].astype(str),
        num_bytes=rows["num_bytes"].astype(float),
    )
    keys = ["cell", "method", "condition", "stage", "direction", "kind", "codec"]
    table = rows.groupby(keys, observed=True)["num_bytes"].agg(num_messages="count", num_bytes="sum").reset_index()
    runs, turns = _runs(comparison), _site_rounds(comparison)
    table["bytes_per_message"] = table["num_bytes"] / table["num_messages"]
    table["bytes_per_site_round"] = table["num_bytes"] / table["cell"].map(turns)
    for column in ("num_messages", "num_bytes"):
        table[column] = table[column] / table["cell"].map(runs)
    table.loc[table["stage"] == "before the rounds", "bytes_per_site_round"] = float("nan")
    return table.drop(columns="cell")


def stages(comparison: Comparison) -> pd.DataFrame:
    """Where the simulated time of each site goes. All seconds are simulated; they hold measured compute where the scenario gives no
    `clock.step_s`.

    Returns:
        One row a cell and client, means over its runs: `hand_out_s` (before the first round), `download_s`, `work_s`, `upload_s`
        (sums over the rounds), `wait_s` (for other sites and the server: what is left of the rounds), `num_updates` (that counted
        or not), `num_late` (of them, after a deadline), and `mean_staleness` (NaN: rounds in step).
    """
    keys = ["run_id", "client_id"]
    table = _clients(comparison)
    transfers = comparison.table("transfers").astype({"run_id": str})
    in_rounds = transfers[transfers["round"] >= 0]
    ways = {"download_s": in_rounds[in_rounds["direction"] == "down"], "upload_s": in_rounds[in_rounds["direction"] == "up"]}
    for name, rows in {"hand_out_s": transfers[transfers["round"] < 0], **ways}.items():
        table[name] = rows.groupby(keys)["simulated_s"].sum().reindex(table.index, fill_value=0.0)
    training = comparison.table("training").astype({"run_id": str})
    own = training.groupby(keys)
    table["work_s"] = own["simulated_s"].sum(min_count=1).reindex(table.index)
    table["num_updates"] = own.size().reindex(table.index, fill_value=0)
    table["mean_staleness"] = own["staleness"].mean().astype(float).reindex(table.index)
    events = comparison.table("events").astype({"run_id": str})
    late = events[events["kind"] == "straggler"].groupby(keys).size()
    table["num_late"] = late.reindex(table.index, fill_value=0)
    rounds = comparison.table("rounds").astype({"run_id": str}).groupby("run_id")["simulated_s"].sum(min_count=1)
    all_s = rounds.reindex(table.index.get_level_values("run_id")).to_numpy(float)
    table["wait_s"] = (all_s - table["download_s"] - table["work_s"].fillna(0.0) - table["upload_s"]).clip(lower=0.0)
    cells = comparison.with_cells(table.reset_index())
    cells["condition"] = cells["cell"].map(comparison.cells["condition"])
    columns = [*STAGES, "num_updates", "num_late", "mean_staleness"]
    means = cells.groupby(["cell", "method", "condition", "client_id", "client_name"], sort=False)[columns].mean()
    return means.reset_index().drop(columns="cell")


def to_target(comparison: Comparison, target: float | None = None, metric: Metric = "dsc") -> pd.DataFrame:
    """What each cell spends until it first reaches a level of quality, in every currency at once; see `cost_to_target`.

    Returns:
        One row a cell with a learning curve: `target`, `rounds`, `share_reached`, and `num_bytes`, `simulated_s` and `measured_s`
        with their intervals over trainings and patients (infinite: never), and `num_seeds` (1: over patients alone).
    """
    keys = ["method", "condition", "target", "rounds", "share_reached", "num_seeds"]
    one, *others = (cost_to_target(comparison, cost, target, metric) for cost in ("num_bytes", "simulated_s", "measured_s"))
    for other in others:
        one = one if other.empty else one.merge(other, on=keys, how="left")
    return one


def _runs(comparison: Comparison) -> pd.Series:
    """Runs by cell."""
    return comparison.settings.groupby("cell").size()


def _site_rounds(comparison: Comparison) -> pd.Series:
    """By cell, the number of sites times rounds, over all its runs."""
    sites = comparison.table("clients").astype({"run_id": str}).groupby("run_id")["client_id"].nunique()
    rounds = comparison.table("rounds").astype({"run_id": str}).groupby("run_id")["round"].nunique()
    turns = (sites * rounds.reindex(sites.index)).rename("turns").rename_axis("run_id").reset_index()
    return comparison.with_cells(turns).groupby("cell")["turns"].sum()


def _clients(comparison: Comparison) -> pd.DataFrame:
    """A row with its name for each client of each run, by run and client."""
    clients = comparison.table("clients").astype({"run_id": str})
    named = clients[["run_id", "client_id"]].assign(client_name=clients["client_id"].map(comparison.names))
    return named.drop_duplicates(["run_id", "client_id"]).set_index(["run_id", "client_id"])
