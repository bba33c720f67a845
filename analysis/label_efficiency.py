# %% [markdown]
# # How many labels does a method save?
#
# `python analysis/label_efficiency.py runs/DIR [METHOD REFERENCE]` over the runs of `scenarios/studies/label-efficiency.yaml`: DSC
# over the label budget, the area under each curve in log labels, and the labels that METHOD needs to do as well as REFERENCE does
# with each of its budgets. 95 % intervals are over trainings (seeds) and patients, drawn for both curves together; with one
# training, `num_seeds` 1, over its patients alone.

# %%
from __future__ import annotations

import sys

from raykd.results.questions import label_area, label_curve, labels_saved
from raykd.results.questions.script import given, needs, needs_methods

comparison = given("analysis/label_efficiency.py runs/DIR [METHOD REFERENCE]")
method, reference = sys.argv[2:] or ["dual_kd", "local"]
needs_methods(comparison, method, reference)

# %% The curves, and one number for each of them
curve = label_curve(comparison)
budgets = sorted(curve["num_labels"].unique()) if len(curve) else []
needs(len(budgets) > 1, f"runs with two label budgets or more, as studies/label-efficiency.yaml makes them, got {len(budgets)}")
for table in (curve, label_area(comparison)):
    sys.stdout.write(table.round(3).to_string(index=False) + "\n\n")

# %% Labels saved, over all sites. `at most`: the fewest labels tried were enough; `never`: the most were not.
sys.stdout.write(labels_saved(comparison, method, reference).round(3).to_string(index=False) + "\n")
