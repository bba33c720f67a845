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
from pathlib import Path

from raykd.results.questions import Comparison, label_area, label_curve, labels_saved
from raykd.results.reader import load_runs

folder, method, reference = Path(sys.argv[1]), *(sys.argv[2:] or ["dual_kd", "local"])
comparison = Comparison.of(load_runs([folder]))

# %% The curves, and one number for each of them
for table in (label_curve(comparison), label_area(comparison)):
    sys.stdout.write(table.round(3).to_string(index=False) + "\n\n")

# %% Labels saved, over all sites. `at most`: the fewest labels tried were enough; `never`: the most were not.
sys.stdout.write(labels_saved(comparison, method, reference).round(3).to_string(index=False) + "\n")
