# %% [markdown]
# # Is it worth its money?
#
# `python analysis/economics.py runs/DIR [PRICES METHOD REFERENCE]`: what METHOD saves in annotation to do as well as REFERENCE,
# less what it costs more, at the prices of a file (`analysis/prices.yaml`, an example to change). Scores (as trainings and patients
# make likely) and prices are drawn ten thousand times, and every figure is computed in each draw, so that the intervals hold both
# kinds of doubt. With one training they hold nothing of what another would give, and there is no verdict.

# %%
from __future__ import annotations

import sys
from pathlib import Path

from raykd.results.questions import assumptions, running_costs, worth
from raykd.results.questions.script import given, needs_methods
from raykd.scenario.prices import load_prices

comparison = given("analysis/economics.py runs/DIR [PRICES METHOD REFERENCE]")
file = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).with_name("prices.yaml")
method, reference = sys.argv[3:] or ["dual_kd", "local"]
needs_methods(comparison, method, reference)
prices = load_prices(file)

# %% What is taken for granted
sys.stdout.write(
    assumptions(prices)[["assumption", "low", "likely", "high", "unit", "distribution"]].to_string(index=False) + "\n\n"
)

# %% What a federation costs, without its labels
costs = running_costs(comparison, prices)
shown = [
    "method",
    "condition",
    "gigabytes",
    "hours",
    "energy_kwh",
    "transfer",
    "compute",
    "energy",
    "repository",
    "joining",
    "total",
]
sys.stdout.write(f"in {prices.currency} a federation:\n{costs[shown].round(3).to_string(index=False)}\n\n")

# %% What is saved. `at most` bounds labels needed from above: more may be saved; `never`: the most labels tried were not enough.
table = worth(comparison, prices, method, reference)
for row in table.to_dict("records"):
    sys.stdout.write(
        f"{method} to do as well as {reference} with {row['reference_labels']:g} labelled cases {row['level']} {row['bound']}\n"
    )
    for name in (
        "labels_saved",
        "annotation_hours",
        "annotation",
        "repository",
        "joining",
        "net",
        "break_even_sites",
        "break_even_labels",
    ):
        sys.stdout.write(f"  {name:18} {row[name]:10.1f}  [{row[f'{name}_low']:.1f}, {row[f'{name}_high']:.1f}]\n")
    sys.stdout.write(f"  {row['verdict']} (seeds: {row['num_seeds']}): it pays in {row['share_pays']:.0%} of the draws\n")
