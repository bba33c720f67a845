# %% [markdown]
# # Where does the teacher help, where does it harm, and is it biased?
#
# `python analysis/teacher_bias.py runs/DIR [METHOD REFERENCE]`: by site and class, the DSC of the teacher as it was handed out,
# that of METHOD, which learns from it, and of REFERENCE, which does not; and the teacher's bias in volume, predicted over true less
# 1. A teacher from thin slices and healthy anatomy tends to over- or under-segment elsewhere, and a student that trusts it inherits
# that.

# %%
from __future__ import annotations

import sys

from raykd.results.questions import teacher_effect
from raykd.results.questions.script import given, needs, needs_methods

comparison = given("analysis/teacher_bias.py runs/DIR [METHOD REFERENCE]")
method, reference = sys.argv[2:] or ["dual_kd", "finetune"]
needs_methods(comparison, method, reference)

# %% Site by site and class by class. `helps`, `harms`: the interval of the gain leaves out zero, and p, adjusted after Holm over
# the table, is below 5 %; with one training there is no verdict.
table = teacher_effect(comparison, method, reference)
needs(
    len(table) > 0,
    f"the scores of the teacher at the sites, which runs of {method} hold where it has one, and test cases of both methods",
)
shown = ["condition", "client_name", "class_name", "teacher_dsc", "reference_dsc", "dsc", "gain", "gain_low", "gain_high"]
sys.stdout.write(table[[*shown, "p_holm", "effect", "teacher_volume_bias"]].round(3).to_string(index=False) + "\n\n")

# %% Is a gain larger where the teacher is ahead? A rank correlation over sites and classes of the same trainings: they are no
# independent draws, so it has no p-value, and it says nothing of causes. Both sides hold the reference's score with opposite signs,
# which by itself makes it positive where gains are level.
known = table.dropna(subset=["teacher_dsc", "gain"])
if len(known) > 2:
    ahead = known["teacher_dsc"] - known["reference_dsc"]
    sys.stdout.write(
        f"gain against the teacher's lead, Spearman: {ahead.corr(known['gain'], method='spearman'):+.2f} ({len(known)} places)\n"
    )
biased = known.loc[known["teacher_volume_bias"].abs() > 0.1]
sys.stdout.write(
    f"biased by more than 10 % in volume: {len(biased)} of {len(known)} places, {(biased['effect'] == 'harms').sum()} harmed\n"
)
