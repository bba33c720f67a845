# %% [markdown]
# # The table of a paper
#
# `python analysis/paper_table.py runs/DIR OUT [BASELINE]` writes OUT.tex (booktabs) and OUT.csv: for every condition and method the
# DSC with its 95 % interval, the worst site, NSD and HD95 where they were computed, MB a site, and the difference to BASELINE with
# its p-value after Holm. The best of a condition is bold, and so are those whose difference to it may be chance, after Holm over
# the condition's methods. Of one training nothing is bold and there is no p-value: its intervals are over its patients alone.

# %%
from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from raykd.report.latex import ANY_SCRIPT, escape
from raykd.results.questions import communication, differences, fairness
from raykd.results.questions.script import given, needs, needs_methods

comparison = given("analysis/paper_table.py runs/DIR OUT [BASELINE]", num_arguments=2)
out = Path(sys.argv[2])
needs(not comparison.deployed.empty, "runs with evaluated test cases, got none")
baseline = sys.argv[3] if len(sys.argv) > 3 else next(m for m in ("local", *comparison.methods) if m in comparison.methods)
needs_methods(comparison, baseline)
KEY = ["condition", "method"]


def told(row: pd.Series, name: str, digits: int) -> str:
    """An estimate with its interval."""
    low, high = (row.get(f"{name}_{end}") for end in ("low", "high"))
    value = f"{row[name]:.{digits}f}"
    return value if pd.isna(low) else f"{value} [{low:.{digits}f}, {high:.{digits}f}]"


# %% Numbers first: one row a condition and method
numbers = fairness(comparison).set_index(KEY)[["macro", "macro_low", "macro_high", "worst_site", "worst", "num_patients"]]
for metric in ("nsd", "hd95_mm"):
    if comparison.deployed[metric].notna().any():
        numbers[metric] = fairness(comparison, metric).set_index(KEY)["macro"]
sent = communication(comparison).set_index(KEY)
numbers["mb_per_site"] = (sent["bytes_down_per_site"] + sent["bytes_up_per_site"]) / 1e6
pairs = [(method, baseline) for method in comparison.methods if method != baseline]
against = differences(comparison, pairs)
if len(against):
    numbers = numbers.join(
        against.set_index(KEY)[["difference", "difference_low", "difference_high", "p_holm", "verdict", "num_seeds"]]
    )
numbers.reset_index().to_csv(out.with_suffix(".csv"), index=False)

# %% Which methods may be the best of their condition
best = numbers.groupby(level="condition")["macro"].idxmax()
ties = set()
for condition, winner in best:
    pairs = [(method, winner) for method in comparison.methods if method != winner]
    rivals = differences(comparison, pairs, margin=0.0, conditions=(condition,))
    if len(rivals) and (rivals["verdict"] != "no verdict").all():
        ties |= {(condition, winner), *((condition, method) for method in rivals.loc[rivals["verdict"] != "worse", "method"])}

# %% The tolerance of NSD belongs beside its numbers
used = comparison.deployed["nsd_tolerance_mm"].dropna().astype(float).map("{:.3g}".format).unique()
tolerance = f"{used[0]} mm" if len(used) == 1 else "tolerance: a voxel" if len(used) else ""

# %% Then words, escaped; conditions are separated by rules.
heads = [
    "Method",
    "DSC",
    "Worst site",
    *([f"NSD ({tolerance})" if tolerance else "NSD"] if "nsd" in numbers else []),
    *(["HD95 (mm)"] if "hd95_mm" in numbers else []),
    "MB a site",
]
heads += [f"Less {escape(baseline)}", "$p$"] if "p_holm" in numbers else []
lines = ["\\begin{tabular}{l" + "r" * (len(heads) - 1) + "}", "\\toprule", " & ".join(heads) + r" \\"]
for condition, rows in numbers.groupby(level="condition", sort=False):
    lines += ["\\midrule"] + ([f"\\multicolumn{{{len(heads)}}}{{l}}{{{escape(str(condition))}}} \\\\"] if condition else [])
    for key, row in rows.sort_values("macro", ascending=False).iterrows():
        dsc = told(row, "macro", 3)
        worst = f"{row['worst']:.3f} ({escape(str(row['worst_site']))})"
        words = [escape(str(key[1])), f"\\textbf{{{dsc}}}" if key in ties else dsc, worst]
        words += [f"{row[metric]:.{digits}f}" for metric, digits in (("nsd", 3), ("hd95_mm", 1)) if metric in numbers]
        words.append(f"{row['mb_per_site']:.2f}")
        if "p_holm" in numbers:
            is_base = pd.isna(row["difference"])
            words += (
                ["--", "--"]
                if is_base
                else [told(row, "difference", 3), "--" if pd.isna(row["p_holm"]) else f"{row['p_holm']:.2g}"]
            )
        lines.append(" & ".join(words) + r" \\")
text = "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])
text = text if text.isascii() else f"{ANY_SCRIPT}\n{text}"
out.with_suffix(".tex").write_text(text + "\n", encoding="utf-8")
sys.stdout.write(f"{text}\n\n{out.with_suffix('.tex')}\n{out.with_suffix('.csv')}\n")
