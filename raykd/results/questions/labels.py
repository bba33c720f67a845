"""How many labels does a method need, and how many does it save?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raykd.results.questions.comparison import Comparison
from raykd.results.statistics import Estimate, Metric, columns_of, percentiles, resampling_rng

Array = NDArray[np.float64]


def label_curve(comparison: Comparison, metric: Metric = "dsc") -> pd.DataFrame:
    """Score over the label budget.

    Returns:
        One row a method, level and budget: `num_labels` (labelled cases over all sites), `labels_per_site`, the macro mean
        `{metric}` with its interval, `num_seeds`, `num_patients`.
    """
    rows = []
    for level, cells in comparison.levels():
        for number, cell in cells.sort_values(["method", "num_labels"]).iterrows():
            sample = comparison.sample([int(number)], metric)  # type: ignore[call-overload]
            if sample.clients:
                estimate = columns_of(metric, sample.macro()[0])
                told = {name: cell[name] for name in ("method", "num_labels", "labels_per_site")}
                rows.append(
                    {**told, "level": level, **estimate, "num_seeds": sample.num_seeds, "num_patients": sample.num_patients}
                )
    return pd.DataFrame(rows)


def label_area(comparison: Comparison, metric: Metric = "dsc") -> pd.DataFrame:
    """The area under each method's curve in log labels, over the span of budgets, so that it is a mean score: 0 to 1 for Dice.

    Only budgets that all methods of a level have are used, and patients judged at all of them; a level with fewer than two such
    budgets has no row.

    Returns:
        One row a level and method: `area` with its interval, `num_budgets`, `num_patients`, `num_seeds`.
    """
    rows = []
    for grid in _grids(comparison, metric):
        level, budgets = grid.level, grid.budgets
        for method, row in grid.cells.iterrows():
            values_L, draws_BL = grid.scores(row)
            area_B = _area(draws_BL, budgets)
            value = float(_area(values_L[None], budgets)[0])
            area = columns_of("area", Estimate(value, *percentiles(area_B)))
            numbers = {"num_budgets": len(budgets), "num_patients": grid.num_patients, "num_seeds": grid.num_seeds}
            rows.append({"method": method, "level": level, **area, **numbers})
    return pd.DataFrame(rows)


def labels_saved(comparison: Comparison, method: str, reference: str, metric: Metric = "dsc") -> pd.DataFrame:
    """The labels that a method needs to do as well as another does with each of its budgets.

    Between two budgets the curve is taken as straight in log labels. Trainings and patients are drawn for both curves together.

    Returns:
        One row a level and budget of the reference: `reference_labels`, `reference_{metric}`, `labels_needed` and `labels_saved`
        (over all sites) with intervals, and `bound`: `at most` where the fewest labels tried were enough already, so that more may
        be saved; `never` where the most were not enough (infinite); "" otherwise. `num_seeds` in common (1: intervals are over
        patients alone).

    Raises:
        RaykdError: no run is of one of the two methods.
    """
    rows = []
    for one in labels_needed(comparison, method, reference, metric):
        needed = Estimate(one.value, *percentiles(one.draws_B))
        saved = Estimate(one.budget - needed.value, one.budget - needed.high, one.budget - needed.low)
        rows.append(
            {
                "method": method, "reference": reference, "level": one.level, "reference_labels": one.budget,
                f"reference_{metric}": one.score, **columns_of("labels_needed", needed), **columns_of("labels_saved", saved),
                "bound": one.bound, "num_seeds": one.num_seeds,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class LabelsNeeded:
    """The labels with which a method does as well as a reference does with one of its budgets.

    Attributes:
        level: what the two have in common, but for labels.
        budget: of the reference, over all sites.
        score: that the reference reaches with it.
        value, draws_B: labels needed, and draws of them; infinite where the most tried are not enough.
        bound: as `labels_saved` says.
        cell, reference_cell: of the two methods, at this budget.
        num_seeds: that all budgets of both have.
    """

    level: str
    budget: float
    score: float
    value: float
    draws_B: Array
    bound: str
    cell: int
    reference_cell: int
    num_seeds: int


def labels_needed(comparison: Comparison, method: str, reference: str, metric: Metric = "dsc") -> Iterator[LabelsNeeded]:
    """What `labels_saved` tells, with its draws, for those who go on to compute with them.

    Raises:
        RaykdError: no run is of one of the two methods.
    """
    comparison.known(method), comparison.known(reference)
    for grid in _grids(comparison, metric, (method, reference)):
        budgets, rows = grid.budgets, dict(grid.cells.iterrows())
        own, others = rows[method], rows[reference]
        (mine_L, mine_BL), (theirs_L, theirs_BL) = grid.scores(own), grid.scores(others)
        for index, budget in enumerate(budgets):
            value = float(_labels_for(mine_L[None], theirs_L[None, index], budgets)[0])
            draws_B = _labels_for(mine_BL, theirs_BL[:, index], budgets)
            bound = "never" if np.isinf(value) else "at most" if value == budgets[0] else ""
            cells = int(own.to_numpy()[index]), int(others.to_numpy()[index])
            yield LabelsNeeded(grid.level, float(budget), float(theirs_L[index]), value, draws_B, bound, *cells, grid.num_seeds)


def labels_to_target(comparison: Comparison, target: float, metric: Metric = "dsc") -> pd.DataFrame:
    """The labels that each method needs to reach a level of quality, its curve taken as straight in log labels between two budgets.

    Args:
        comparison: runs of at least two label budgets.
        target: macro mean to reach.
        metric: of the score.

    Returns:
        One row a level and method: `target`, `labels_needed` over all sites with its interval (infinite: the most labels tried are
        not enough; the fewest tried: fewer may do), `share_reached`: the share of draws of trainings and patients that reach it,
        and `num_seeds`.
    """
    rows = []
    for grid in _grids(comparison, metric):
        level, budgets = grid.level, grid.budgets
        for method, row in grid.cells.iterrows():
            values_L, draws_BL = grid.scores(row)
            needed = float(_labels_for(values_L[None], np.array([target]), budgets)[0])
            needed_B = _labels_for(draws_BL, np.full(len(draws_BL), target), budgets)
            told = columns_of("labels_needed", Estimate(needed, *percentiles(needed_B)))
            share = np.nan if np.isnan(needed_B).any() else float(np.isfinite(needed_B).mean())
            told |= {"share_reached": share, "num_seeds": grid.num_seeds}
            rows.append({"method": method, "level": level, "target": target, **told})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Grid:
    """The methods and label budgets of one level that can be compared, with their scores.

    Attributes:
        level: what they have in common.
        budgets: labels over all sites, at least two.
        cells: methods x budgets.
        num_patients, num_seeds: judged in all of them.
        columns: by cell, where its scores are.
        values_V, draws_BV: macro means, and draws of them.
    """

    level: str
    budgets: Array
    cells: pd.DataFrame
    num_patients: int
    num_seeds: int
    columns: Mapping[object, int]
    values_V: Array
    draws_BV: Array

    def scores(self, row: pd.Series[int]) -> tuple[Array, Array]:
        """The scores (L) of a row of cells, and draws of them (B, L)."""
        columns = [self.columns[cell] for cell in row]
        return self.values_V[columns], self.draws_BV[:, columns]


def _grids(comparison: Comparison, metric: Metric, methods: tuple[str, ...] = ()) -> Iterator[Grid]:
    """For every level with some: the budgets, at least two, that all (these) methods have, and patients judged at all of them."""
    for level, cells in comparison.levels():
        chosen = cells[cells["method"].isin(methods)] if methods else cells
        chosen = chosen.reset_index().drop_duplicates(["method", "num_labels"])
        grid = chosen.pivot(index="method", columns="num_labels", values="cell").dropna(axis=1).astype(int)
        if grid.shape[1] < 2 or not set(methods) <= set(grid.index) or float(grid.columns.to_numpy()[0]) <= 0:
            continue
        sample = comparison.sample(grid.to_numpy().ravel().tolist(), metric)
        if sample.clients:
            columns = {cell: column for column, cell in enumerate(sample.conditions)}
            draws_BV = sample.macro_draws_BV(resampling_rng())
            budgets = grid.columns.to_numpy(np.float64)
            yield Grid(level, budgets, grid, sample.num_patients, sample.num_seeds, columns, sample.macro_V, draws_BV)


def _area(curves_BL: Array, labels_L: Array) -> Array:
    logs = np.log(labels_L)
    return np.asarray(np.trapezoid(curves_BL, logs, axis=1) / (logs[-1] - logs[0]))


def _labels_for(curves_BL: Array, levels_B: Array, labels_L: Array) -> Array:
    """Where each curve first reaches its level, straight in log labels between two budgets; infinite where it never does."""
    if np.isnan(curves_BL).any():
        return np.full(len(curves_BL), np.nan)
    reaches_BL = curves_BL >= levels_B[:, None]
    first_B = reaches_BL.argmax(axis=1)
    before_B, rows = np.maximum(first_B - 1, 0), np.arange(len(curves_BL))
    start_B, stop_B = curves_BL[rows, before_B], curves_BL[rows, first_B]
    rise_B = np.where(stop_B > start_B, stop_B - start_B, 1.0)
    share_B = np.where(first_B > 0, (levels_B - start_B) / rise_B, 1.0)
    logs_L = np.log(labels_L)
    needed_B = np.exp(logs_L[before_B] + share_B * (logs_L[first_B] - logs_L[before_B]))
    exact_B = np.where(share_B == 1.0, labels_L[first_B], needed_B)
    return np.where(reaches_BL.any(axis=1), exact_B, np.inf)
