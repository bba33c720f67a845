# %% [markdown]
# # When does distillation pay?
#
# `python analysis/when_does_it_pay.py runs/DIR` over the runs of `scenarios/studies/when_does_it_pay-*.yaml`: in every cell of the
# grid (labels, unlabelled cases, students' width, repository), what `dual_kd` wins or loses against each control from the same
# start. A win or a harm is a 95 % bootstrap interval over patients within sites that leaves out zero; the rest are ties.

# %%
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from raykd.results.reader import Run, load_runs, open_run
from raykd.results.statistics import case_scores, deployed_cases, paired_difference

PAIRS = [
    ("dual_kd-warm", "finetune"),
    ("dual_kd-warm", "fed_semi-warm"),
    ("dual_kd-warm", "fed_mean_teacher-warm"),
    ("dual_kd-cold", "fedavg"),
    ("dual_kd-cold", "fed_semi"),
    ("dual_kd-cold", "fed_mean_teacher"),
]
NAMES = {
    "clients.*.labels.num_shots": "labels",
    "clients.*.labels.num_unlabelled": "unlabelled",
    "student.network.width": "width",
    "repository.source.num_cases": "repository",
}
"""What the map calls the keys that vary; the teacher's steps go with the repository's cases."""

# %% The study's own record says which run is which cell.
folder = Path(sys.argv[1])
record = yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))
cells: dict[tuple[Any, ...], dict[str, list[Run]]] = {}
for cell in record["cells"]:
    varied = {name: cell["varied"][key] for key, name in NAMES.items() if key in cell["varied"]}
    run = open_run(folder / cell["cell"])
    cells.setdefault(tuple(varied.items()), {}).setdefault(cell["method"], []).append(run)


# %%
def scores_of(runs: list[Run]) -> pd.DataFrame:
    """DSC of the deployed models, by patient."""
    tables = load_runs([run.path for run in runs])
    deployed = {run.manifest["method"]: run.manifest["deployed"] for run in runs}
    return case_scores(deployed_cases(tables.cases, deployed))


def verdict(one: list[Run], other: list[Run]) -> str:
    """The difference with its interval, and what it means."""
    difference = paired_difference(scores_of(one), scores_of(other), np.random.default_rng(0)).macro
    word = "**wins**" if difference.low > 0 else "**harms**" if difference.high < 0 else "ties"
    return f"{word} {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


rows = []
for varied, by_method in cells.items():
    pairs = {f"{a} - {b}": verdict(by_method[a], by_method[b]) for a, b in PAIRS if a in by_method and b in by_method}
    rows.append({**dict(varied), **pairs})
table = pd.DataFrame(rows)

# %%
lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
sys.stdout.write("".join(f"| {' | '.join(line)} |\n" for line in lines))
counts = pd.DataFrame(
    {
        pair: {word: sum(word in text for text in table[pair]) for word in ("wins", "ties", "harms")}
        for pair in table.columns
        if " - " in pair
    }
)
sys.stdout.write(
    "\n" + "\n".join(f"{pair}: {', '.join(f'{n} {w}' for w, n in column.items())}" for pair, column in counts.items()) + "\n"
)
