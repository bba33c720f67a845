# %% [markdown]
# # What does quality cost in bytes?
#
# `python analysis/communication.py runs/DIR [TARGET]` over the runs of a study, say `scenarios/studies/links-and-bytes.yaml`: DSC
# beside what crossed the links, and the bytes and the seconds until a DSC of TARGET is reached (by default the most that all
# methods of a condition reach). Bytes are counted as serialised, over all sites and both ways, the hand-out of a teacher included.

# %%
from __future__ import annotations

import sys

from raykd.results.questions import communication, cost_to_target
from raykd.results.questions.script import given, needs

comparison = given("analysis/communication.py runs/DIR [TARGET]")
target = float(sys.argv[2]) if len(sys.argv) > 2 else None
needs(not comparison.deployed.empty, "runs with evaluated test cases, got none")

# %% DSC and bytes. `is_efficient`: no other method of the condition has so high a mean with fewer bytes, whatever intervals say.
table = communication(comparison)
table[["MB_down_per_site", "MB_up_per_site"]] = (table[["bytes_down_per_site", "bytes_up_per_site"]] / 1e6).round(3)
shown = ["method", "condition", "dsc", "dsc_low", "dsc_high", "MB_down_per_site", "MB_up_per_site", "is_efficient"]
sys.stdout.write(table[shown].round(3).to_string(index=False) + "\n\n")

# %% Bytes until the target. Infinite: never; `share_reached`: of the draws of trainings and patients.
to_target = cost_to_target(comparison, "num_bytes", target)
if to_target.empty:
    sys.stdout.write("one round was evaluated, so there is no way to a target; set evaluation.every\n")
else:
    for column in ("num_bytes", "num_bytes_low", "num_bytes_high"):
        to_target[column.replace("num_bytes", "MB")] = (to_target.pop(column) / 1e6).round(3)
    sys.stdout.write(to_target.round(3).to_string(index=False) + "\n\n")

# %% Seconds at the sites' own links and machines until then; they contain measured compute, so they vary from run to run.
seconds = cost_to_target(comparison, "simulated_s", target)
if len(seconds):
    sys.stdout.write(seconds.round(1).to_string(index=False) + "\n")
