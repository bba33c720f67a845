# %% [markdown]
# # Which method is better, by how much, and what did it cost?
#
# `python analysis/compare_methods.py runs/DIR [BASELINE]` over the runs of a study. Trainings (seeds) are the outer
# clusters, patients within sites those within them; up to six sites are fixed strata. With one seed, 95 % intervals are over its
# patients alone and there is no p-value. P-values are adjusted after Holm over all methods less the baseline, one family. A row
# is a method under one condition; settings that a method does not read are no condition of it.

# %%
from __future__ import annotations

import math
import sys

import pandas as pd

from raykd.results.questions import differences, work_of
from raykd.results.questions.script import given, needs_methods
from raykd.results.reader import deployed_models
from raykd.results.statistics import Estimate, score_methods

comparison = given("analysis/compare_methods.py runs/DIR [BASELINE]")
baseline = sys.argv[2] if len(sys.argv) > 2 else "local"
needs_methods(comparison, baseline)
labels = pd.Series(comparison.short_labels)
of_runs = comparison.settings["cell"].map(labels)
scores = comparison.scores()
scores = scores.assign(method=scores["method"].map(labels))
deployed = {of_runs[run_id]: model for run_id, model in deployed_models(comparison.runs).items()}


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
            "deployed": deployed.get(score.method, "-"),
            "DSC, mean of sites": told(score.macro),
            "DSC, worst site": f"{told(score.worst)} {comparison.names.get(score.worst_client, score.worst_client)}",
            "SD over seeds": f"{by_seed.std(ddof=1):.3f}" if len(by_seed) > 1 else "-",
            "seeds": len(by_seed),
        }
    )
quality = pd.DataFrame(rows).set_index("method")

# %% Cost of a run: what crossed the links, how long the rounds took, and the optimiser steps and operations of all sites.
num_runs = of_runs.value_counts()


def per_run(table: str, column: str) -> pd.Series:
    """The sum of a column over a run; 0 where a method has no row."""
    frame = comparison.table(table)
    sums = frame.groupby(frame["run_id"].astype(str).map(of_runs))[column].sum()
    return sums.astype(float).reindex(quality.index, fill_value=0.0) / num_runs


training = comparison.table("training")
work = {label: work_of(training[training["run_id"].astype(str).map(of_runs) == label]) for label in quality.index}
quality["MB a run"] = per_run("transfers", "num_bytes").div(1e6).round(1)
quality["rounds, s a run"] = per_run("rounds", "wall_s").round(0)
quality["steps a run"] = [f"{work[label]['steps'] / num_runs[label]:.0f}" for label in quality.index]
quality["TFLOP a run"] = [f"{work[label]['flops'] / num_runs[label] / 1e12:.3g}" for label in quality.index]

# %% Differences to the baseline, patient by patient in the same seed, under the condition of both
told_of, family = {}, ""
if baseline in comparison.methods:
    pairs = [(method, baseline) for method in comparison.methods if method != baseline]
    cells = {(str(row["method"]), str(row["condition"])): number for number, row in comparison.cells.iterrows()}
    for row in differences(comparison, pairs, margin=0.0).to_dict("records"):
        difference = Estimate(row["difference"], row["difference_low"], row["difference_high"])
        tested = row["verdict"] if row["num_seeds"] < 2 else f"p {row['p_holm']:.2g}, {row['verdict']}"
        words = f"{told(difference)}, {tested}, n {row['num_patients']} in {row['num_seeds']}"
        told_of.setdefault(labels[cells[row["method"], row["condition"]]], words)
        family = row["family"]
quality[f"minus {baseline}"] = pd.Series(told_of, dtype=object).reindex(quality.index).fillna("")

# %%
lines = [["method", *quality.columns], ["---"] * (1 + len(quality.columns))]
lines += [[str(method), *(str(value) for value in row)] for method, row in zip(quality.index, quality.to_numpy(), strict=True)]
sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))
sys.stdout.write("".join(f"\n{note}\n" for note in comparison.notes))
if family:
    sys.stdout.write(
        f"\np after Holm, one family ({family}); n: patients in trainings. Intervals of one training are over its patients alone.\n"
    )
