# %% [markdown]
# # What does each part add?
#
# `python analysis/ablation.py runs/DIR FULL` over the runs of `scenarios/studies/paper_ablation-*.yaml`: every other method less
# FULL, patient by patient, under each condition. A part is worth something where leaving it out is `worse`: the 95 % interval
# leaves out zero and p, adjusted after Holm over the table, is below 5 %. Trainings (seeds) are the outer clusters; with one, there
# is no p-value and no verdict. `not worse`: a loss of the margin of 0.01 DSC is left out.

# %%
from __future__ import annotations

import sys

from raykd.results.questions import ablation
from raykd.results.questions.script import given, needs, needs_methods

comparison = given("analysis/ablation.py runs/DIR FULL")
full = sys.argv[2] if len(sys.argv) > 2 else "dual_kd"
needs_methods(comparison, full)
needs(len(comparison.methods) > 1, f"runs of {full} and of others to compare it with, got {full} alone")

# %% Over all classes
shown = [
    "condition",
    "method",
    "difference",
    "difference_low",
    "difference_high",
    "p_holm",
    "rank_biserial",
    "num_patients",
    "num_seeds",
    "verdict",
]
table = ablation(comparison, full)
sys.stdout.write(f"Less than {full}:\n{table[shown].round(3).to_string(index=False)}\n\n")

# %% Class by class: a family of its own, so that p-values are adjusted over more comparisons
by_class = ablation(comparison, full, by_class=True)
sys.stdout.write(by_class[[*shown[:2], "class_name", *shown[2:]]].round(3).to_string(index=False) + "\n\n")

# %% The parts in the order of what they are worth, over conditions
worth = (-table.groupby("method")["difference"].mean()).sort_values(ascending=False)
sys.stdout.write("".join(f"without what {method} lacks: {loss:+.3f} DSC lost on average\n" for method, loss in worth.items()))
