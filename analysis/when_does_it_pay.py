# %% [markdown]
# # When does distillation pay?
#
# `python analysis/when_does_it_pay.py runs/DIR` over the runs of `scenarios/studies/when_does_it_pay-*.yaml`: in every cell of the
# grid (labels, unlabelled cases, students' width, repository), what `dual_kd` wins or loses against each control from the same
# start. A win or a harm is a 95 % interval over trainings (seeds) and patients that leaves out zero, with p below 5 % after Holm
# over the whole map; the rest are open, which is no sign that two methods are alike. With one training there is no verdict.

# %%
from __future__ import annotations

import sys

from raykd.results.questions import when_does_it_pay
from raykd.results.questions.script import given, needs

PAIRS = [
    ("dual_kd-warm", "finetune"),
    ("dual_kd-warm", "fed_semi-warm"),
    ("dual_kd-warm", "fed_mean_teacher-warm"),
    ("dual_kd-cold", "fedavg"),
    ("dual_kd-cold", "fed_semi"),
    ("dual_kd-cold", "fed_mean_teacher"),
]

# %% One row a condition and pair.
comparison = given("analysis/when_does_it_pay.py runs/DIR")
table = when_does_it_pay(comparison, PAIRS)
pairs = ", ".join(f"{a} and {b}" for a, b in PAIRS)
needs(len(table) > 0, f"runs of a pair of methods, one of {pairs}, got {', '.join(comparison.methods)}")

# %% The map: conditions down, pairs across.
words = {"wins": "**wins**", "harms": "**harms**"}
table["pair"] = table["method"] + " - " + table["baseline"]
bounds = zip(table["outcome"], table["difference"], table["difference_low"], table["difference_high"], strict=True)
table["said"] = [
    f"{words.get(word, word)} {value:+.3f}" + (f" [{low:+.3f}, {high:+.3f}]" if low < high else "")
    for word, value, low, high in bounds
]
pairs = [f"{a} - {b}" for a, b in PAIRS if f"{a} - {b}" in set(table["pair"])]
known = table.fillna(dict.fromkeys(comparison.varied, ""))
grid = known.pivot(index=["condition", *comparison.varied], columns="pair", values="said")
grid = grid[pairs].fillna("").reset_index().drop(columns="condition")
lines = [list(grid.columns), ["---"] * len(grid.columns), *grid.astype(str).to_numpy().tolist()]
sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n")

# %% How often
sys.stdout.write(f"p after Holm, one family ({table['family'].iloc[0]})\n")
counts = table.groupby(["pair", "outcome"]).size().unstack(fill_value=0).reindex(pairs)
sys.stdout.write("".join(f"{pair}: {', '.join(f'{n} {word}' for word, n in row.items())}\n" for pair, row in counts.iterrows()))
