"""What did uploads give away, and what was spent to hide it?"""

from __future__ import annotations

import pandas as pd

from raykd.results.questions.comparison import Comparison

WARNINGS = {
    "gradient_inversion": "an image made from the update resembles a training patch",
    "prototype_inversion": "an image made from the prototypes resembles a training patch: features tell shape",
    "membership_loss": "the model's loss tells training cases from others",
    "membership_calibrated": "the update tells training cases from others",
}


def leaks_found(comparison: Comparison) -> pd.DataFrame:
    """The attacks that `raykd leaks` made on the uploads of runs.

    Returns:
        One row a run, client, attack and metric: method, condition, seed, client_name, attack, knows, metric, `value` with `low`
        and `high` (NaN: none), `blind` (reached without the upload), `unseen` (reached against cases that were never used),
        num_members, num_others, `verdict` (`leaks`, `nothing found`, `too few cases`) and `warning`, "" where nothing was found.
        Empty where no run was attacked.
    """
    rows = comparison.with_cells(comparison.table("leaks"))
    is_leaking = rows["is_leaking"].astype(object)
    verdict = is_leaking.map({True: "leaks", False: "nothing found"}).fillna("too few cases").astype(str)
    attacks = rows["attack"].astype(str)
    names = [comparison.names.get(int(i), "all clients" if i == -2 else str(i)) for i in rows["client_id"]]
    return rows.assign(
        method=comparison.cells.loc[rows["cell"], "method"].to_numpy(),
        condition=comparison.cells.loc[rows["cell"], "condition"].to_numpy(),
        client_name=names,
        verdict=verdict,
        warning=attacks.map(WARNINGS).where(verdict == "leaks", ""),
    )[
        ["method", "condition", "seed", "client_name", "attack", "knows", "metric", "value", "low", "high", "blind", "unseen",
         "num_members", "num_others", "verdict", "warning"]
    ].reset_index(drop=True)  # fmt: skip


def privacy_spent(comparison: Comparison) -> pd.DataFrame:
    """What differential privacy has cost by the end of every run.

    Returns:
        One row a run, mechanism and client: method, condition, seed, client_name, mechanism, unit, noise_multiplier, clip_norm,
        sample_rate, num_releases, `epsilon` (NaN: unbounded, no noise was added) and delta; `neighbours`, the runs whose difference
        epsilon bounds (add_or_remove: a unit is there or not; replace_one: it is another), with epsilon_add_or_remove and
        epsilon_replace_one (NaN in runs of an earlier raykd, which reckoned the former alone). Empty where no run has privacy.
    """
    rows = comparison.with_cells(comparison.table("privacy")).sort_values("round", kind="stable")
    last = rows.groupby(["run_id", "mechanism", "client_id"], observed=True, sort=False).tail(1)
    last = last.sort_values(["cell", "seed", "mechanism", "client_id"], kind="stable")
    return last.assign(
        method=comparison.cells.loc[last["cell"], "method"].to_numpy(),
        condition=comparison.cells.loc[last["cell"], "condition"].to_numpy(),
        client_name=[comparison.names.get(int(i), str(i)) for i in last["client_id"]],
        neighbours=last["neighbours"].astype(object).fillna("add_or_remove").astype(str),
    )[
        ["method", "condition", "seed", "client_name", "mechanism", "unit", "noise_multiplier", "clip_norm", "sample_rate",
         "num_releases", "neighbours", "epsilon", "delta", "epsilon_add_or_remove", "epsilon_replace_one"]
    ].reset_index(drop=True)  # fmt: skip
