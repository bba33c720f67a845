"""What does each part add, and under which conditions does a method pay? Differences between methods, condition by condition."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from raykd.results.questions.comparison import Comparison
from raykd.results.statistics import (
    HIGHER_IS_BETTER,
    MARGIN,
    Metric,
    columns_of,
    holm,
    paired_difference,
    resampling_rng,
    verdict,
)


def differences(
    comparison: Comparison,
    pairs: Iterable[tuple[str, str]],
    metric: Metric = "dsc",
    *,
    by_class: bool = False,
    margin: float = MARGIN,
) -> pd.DataFrame:
    """Method minus baseline, patient by patient, under every condition that has both.

    Args:
        comparison: the runs.
        pairs: method and baseline each; a pair that no condition has gives no row.
        metric: what is compared.
        by_class: a row a class; otherwise the mean over classes, named `all`.
        margin: of the verdict, see `raykd.results.statistics.verdict`; distances are judged at 0.

    Returns:
        One row a condition, pair and class: the settings that vary, `difference` with its interval, `p_value`, `p_holm` (adjusted
        over all rows), `rank_biserial`, `shift` (Hodges-Lehmann) with its interval, `num_patients`, `verdict`.
    """
    deployed = comparison.deployed
    names = deployed["class_name"].astype(str)
    classes: dict[str, pd.DataFrame] = {"all": deployed}
    if by_class:
        classes = {name: deployed[names == name] for name in sorted(set(names))}
    pairs, rows = tuple(pairs), []
    better = HIGHER_IS_BETTER[metric]
    for name, cases in classes.items():
        scores = comparison.scores(metric, cases)
        for condition, cells in comparison.conditions():
            for method, baseline in ((one, other) for one, other in pairs if one in cells and other in cells):
                mine, other = (scores[scores["method"] == cells[label]] for label in (method, baseline))
                found = paired_difference(mine, other, resampling_rng())
                rows.append({
                    "condition": condition, **_settings(comparison, cells[method]),
                    "method": method, "baseline": baseline, "class_name": name, **columns_of("difference", found.macro),
                    "p_value": found.p_value, "p_holm": 0.0,
                    "rank_biserial": found.rank_biserial, **columns_of("shift", found.shift),
                    "num_patients": found.num_patients,
                    "verdict": verdict(found.macro, margin if better else 0.0, higher_is_better=better),
                })  # fmt: skip
    table = pd.DataFrame(rows)
    if len(table):
        table["p_holm"] = holm(table["p_value"].to_numpy())
    return table


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
    """The map of wins, ties and harms.

    Returns:
        As `differences`, with `outcome` in place of the verdict: wins or harms where the interval leaves out zero, ties where it
        does not, open where there is no interval.
    """
    table = differences(comparison, pairs, metric, margin=0.0)
    words = {"better": "wins", "worse": "harms", "not worse": "ties", "open": "ties"}
    if len(table):
        outcomes = table["verdict"].map(words).where(table["difference_low"].notna(), "open")
        table = table.drop(columns="verdict").assign(outcome=outcomes)
    return table
