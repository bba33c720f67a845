# %% [markdown]
# # Which method is better, by how much, and what did it cost?
#
# `python analysis/compare_methods.py runs/DIR [BASELINE]` over the runs of a study. Trainings (seeds) are the outer
# clusters, patients within sites those within them; up to six sites are fixed strata. With one seed, 95 % intervals are over its
# patients alone and there is no p-value. P-values are adjusted after Holm over all methods less the baseline, one family.

# %%
from __future__ import annotations

import math
import sys
from pathlib import Path

import pandas as pd

from raykd.results.reader import find_run_dirs, load_runs, open_run
from raykd.results.statistics import Estimate, case_scores, deployed_cases, judge, paired_difference, score_methods

# %% Which model a site deploys is written in each run's manifest.
folder, baseline = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "local"
tables = load_runs([folder])
runs = [open_run(path) for path in find_run_dirs([folder])]
deployed = {run.manifest["method"]: run.manifest["deployed"] for run in runs}
scores = case_scores(deployed_cases(tables.cases, deployed))
names = dict(zip(tables.clients["client_id"], tables.clients["client_name"].astype(str), strict=True))


def told(estimate: Estimate) -> str:
    """A mean with its interval, where there is one."""
    if math.isnan(estimate.low):
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


# %% Quality
rows = []
for score in score_methods(scores):
    mine = scores[scores["method"].astype(str) == score.method]
    by_patient = mine.groupby(["seed", "client_id", "patient_id"])["score"].mean()
    by_seed = by_patient.groupby(["seed", "client_id"]).mean().groupby("seed").mean()
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

# %% Differences to the baseline, patient by patient in the same seed
of_method = {str(name): rows for name, rows in scores.groupby(scores["method"].astype(str))}
others = [method for method in quality.index if method != baseline and baseline in quality.index]
found = [paired_difference(of_method[method], of_method[baseline]) for method in others]
judged, differences = judge(found, f"DSC, methods less {baseline}", 0.0), {}
for method, difference, p_holm, verdict in zip(others, found, judged["p_holm"], judged["verdict"], strict=True):
    tested = verdict if difference.num_seeds < 2 else f"p {p_holm:.2g}, {verdict}"
    differences[method] = f"{told(difference.macro)}, {tested}, n {difference.num_patients} in {difference.num_seeds}"
quality[f"minus {baseline}"] = pd.Series(differences, dtype=object).reindex(quality.index).fillna("")

# %%
lines = [["method", *quality.columns], ["---"] * (1 + len(quality.columns))]
lines += [[str(method), *(str(value) for value in row)] for method, row in zip(quality.index, quality.to_numpy(), strict=True)]
sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))
if found:
    sys.stdout.write(
        f"\np after Holm, one family ({judged['family'].iloc[0]}); n: patients in trainings. Intervals of one training are over "
        "its patients alone.\n"
    )
