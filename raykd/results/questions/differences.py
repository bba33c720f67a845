"""What does each part add, and under which conditions does a method pay? Differences between methods, condition by condition."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pandas as pd

from raykd.results.questions.comparison import Comparison
from raykd.results.statistics import (
    BETTER,
    HIGHER_IS_BETTER,
    MARGIN,
    NO_VERDICT,
    OPEN,
    WORSE,
    Metric,
    columns_of,
    judge,
    paired_difference,
)


def differences(
    comparison: Comparison,
    pairs: Iterable[tuple[str, str]],
    metric: Metric = "dsc",
    *,
    by_class: bool = False,
    margin: float = MARGIN,
    conditions: Collection[str] | None = None,
) -> pd.DataFrame:
    """Method minus baseline, patient by patient, under every condition that has both.

    Args:
        comparison: the runs.
        pairs: method and baseline each; a pair that no condition has gives no row.
        metric: what is compared.
        by_class: a row a class; otherwise the mean over classes, named `all`.
        margin: of the verdict, see `raykd.results.statistics.verdict`; distances are judged at 0.
        conditions: those of the family; None: all.

    Returns:
        One row a condition, pair and class: the settings that vary, `difference` with its interval, `p_value` (over trainings; NaN
        with one), `p_holm` (adjusted over all rows, which are one family), `verdict`, `family` (its name and size),
        `rank_biserial`, `shift` (Hodges-Lehmann), `num_patients` and `num_seeds` (1: the interval is over patients alone).
    """
    deployed = comparison.deployed
    names = deployed["class_name"].astype(str)
    classes: dict[str, pd.DataFrame] = {"all": deployed}
    if by_class:
        classes = {name: deployed[names == name] for name in sorted(set(names))}
    pairs, rows, every = tuple(pairs), [], []
    better = HIGHER_IS_BETTER[metric]
    for name, cases in classes.items():
        scores = comparison.scores(metric, cases)
        asked = (one for one in comparison.conditions() if conditions is None or one[0] in conditions)
        for condition, cells in asked:
            for method, baseline in ((one, other) for one, other in pairs if one in cells and other in cells):
                mine, other = (scores[scores["method"] == cells[label]] for label in (method, baseline))
                found = paired_difference(mine, other)
                every.append(found)
                rows.append({
                    "condition": condition, **_settings(comparison, cells[method]),
                    "method": method, "baseline": baseline, "class_name": name, **columns_of("difference", found.macro),
                    "rank_biserial": found.rank_biserial, "shift": found.shift,
                    "num_patients": found.num_patients, "num_seeds": found.num_seeds,
                })  # fmt: skip
    family = f"{metric}, methods and conditions{' and classes' if by_class else ''}"
    judged = judge(every, family, margin if better else 0.0, higher_is_better=better)
    return pd.DataFrame(rows).join(judged) if rows else pd.DataFrame()


def _settings(comparison: Comparison, cell: int) -> dict[str, str]:
    return {name: str(comparison.cells.at[cell, name]) for name in comparison.varied}


def ablation(comparison: Comparison, full: str, metric: Metric = "dsc", *, by_class: bool = False) -> pd.DataFrame:
    """Every other method minus the full one: what is lost, or won, without a part.

    Raises:
        RaykdError: no run is of method `full`.
    """
    comparison.known(full)
    others = [method for method in comparison.methods if method != full]
    return differences(comparison, [(method, full) for method in others], metric, by_class=by_class)


def when_does_it_pay(comparison: Comparison, pairs: Iterable[tuple[str, str]], metric: Metric = "dsc") -> pd.DataFrame:
    """The map of wins and harms.

    Returns:
        As `differences`, with `outcome` in place of the verdict: wins or harms where the interval leaves out zero and the p-value,
        adjusted over the whole map, is below 5%; open elsewhere, which is no sign that two methods are alike; no verdict with one
        training.
    """
    table = differences(comparison, pairs, metric, margin=0.0)
    words = {BETTER: "wins", WORSE: "harms", OPEN: "open", NO_VERDICT: NO_VERDICT}
    return table.drop(columns="verdict").assign(outcome=table["verdict"].map(words)) if len(table) else table
