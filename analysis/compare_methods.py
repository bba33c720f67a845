# %% [markdown]
# # Which method is better, by how much, and what did it cost?
#
# `python analysis/compare_methods.py runs/DIR [BASELINE]` over the runs of a study. Patients are the unit; sites are fixed strata;
# intervals are 95 % bootstrap intervals over patients within sites. The spread over seeds is shown apart.

# %%
from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from raykd.results.questions.script import given, needs_methods
from raykd.results.reader import load_runs
from raykd.results.statistics import Estimate, case_scores, deployed_cases, paired_difference, score_methods

# %% Which model a site deploys is written in each run's manifest.
comparison = given("analysis/compare_methods.py runs/DIR [BASELINE]")
baseline = sys.argv[2] if len(sys.argv) > 2 else "local"
needs_methods(comparison, baseline)
tables = load_runs(sys.argv[1])
runs = tables.runs
deployed = {run.manifest["method"]: run.manifest["deployed"] for run in runs}
scores = case_scores(deployed_cases(tables.cases, deployed))
names = dict(zip(tables.clients["client_id"], tables.clients["client_name"].astype(str), strict=True))


def told(estimate: Estimate) -> str:
    """A mean with its interval."""
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


# %% Quality
rows = []
for score in score_methods(scores, np.random.default_rng(0)):
    mine = scores[scores["method"].astype(str) == score.method]
    by_seed = mine.groupby(["seed", "client_id"])["score"].mean().groupby("seed").mean()
    rows.append(
        {
            "method": score.method,
            "deployed": deployed[score.method],
            "DSC, mean of sites": told(score.macro),
            "DSC, worst site": f"{told(score.worst)} {names[score.worst_client]}",
            "SD over seeds": f"{by_seed.std(ddof=1):.3f}" if len(by_seed) > 1 else "-",
            "seeds": len(by_seed),
        }
    )
quality = pd.DataFrame(rows).set_index("method")

# %% Cost: what crossed the links and how long the rounds took, a run.
num_runs = tables.rounds.groupby("method", observed=True)["run_id"].nunique()
num_bytes = tables.transfers.groupby("method", observed=True)["num_bytes"].sum()
quality["MB a run"] = (num_bytes / num_runs / 1e6).round(1)
quality["rounds, s a run"] = (tables.rounds.groupby("method", observed=True)["wall_s"].sum() / num_runs).round(0)

# %% Differences to the baseline, patient by patient
differences = {}
for method in quality.index:
    if method != baseline and baseline in quality.index:
        mine, other = (scores[scores["method"].astype(str) == name] for name in (method, baseline))
        difference = paired_difference(mine, other, np.random.default_rng(0))
        differences[method] = f"{told(difference.macro)}, p {difference.p_value:.1g}, n {difference.num_patients}"
quality[f"minus {baseline}"] = pd.Series(differences, dtype=object).reindex(quality.index).fillna("")

# %%
lines = [["method", *quality.columns], ["---"] * (1 + len(quality.columns))]
lines += [[str(method), *(str(value) for value in row)] for method, row in zip(quality.index, quality.to_numpy(), strict=True)]
sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))
