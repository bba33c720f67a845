# %% [markdown]
# # Who loses by thick slices, and how much does distillation give back?
#
# `python analysis/resolution_gap.py runs/DIR [METHOD REFERENCE]` over the runs of `scenarios/studies/resolution-gap.yaml` or
# `scanner-gap.yaml`: for every site how far it lags behind the best one under REFERENCE, what METHOD gains there, and the share of
# the lag that this makes up. A gain is `better` or `worse` where its 95 % interval over trainings and patients leaves
# out zero and p, adjusted after Holm over the table, is below 5 %; with one training there is no verdict.

# %%
from __future__ import annotations

import sys

import numpy as np

from raykd.results.questions import fairness, site_gains
from raykd.results.questions.script import given, needs, needs_methods

comparison = given("analysis/resolution_gap.py runs/DIR [METHOD REFERENCE]")
method, reference = sys.argv[2:] or ["dual_kd", "local"]
needs_methods(comparison, method, reference)

# %% Site by site, the thickest slices first
table = site_gains(comparison, method, reference)
needs(len(table) > 0, "test cases of both methods at the same sites, under the same condition")
table = table.sort_values(["condition", "slice_mm"], ascending=[True, False])
shown = [
    "condition",
    "client_name",
    "slice_mm",
    "reference_dsc",
    "dsc",
    "gain",
    "gain_low",
    "gain_high",
    "p_holm",
    "verdict",
    "lag",
    "lag_made_up",
]
sys.stdout.write(table[shown].round(3).to_string(index=False) + "\n\n")

# %% In one number a condition: does the gain grow with the slices? Millimetres are compared in logarithms; a description of these
# sites, without a test.
for condition, rows in table.groupby("condition"):
    if rows["slice_mm"].nunique() > 1:
        slope = np.polyfit(np.log2(rows["slice_mm"].astype(float)), rows["gain"].astype(float), 1)[0]
        sys.stdout.write(f"{condition or 'all'}: {slope:+.3f} DSC more gain with every doubling of the slices\n")

# %% The worst site, and the gap between the best and the worst
spread = fairness(comparison)[["method", "condition", "macro", "worst_site", "worst", "gap", "gap_low", "gap_high", "clients_are"]]
sys.stdout.write("\n" + spread.round(3).to_string(index=False) + "\n")
