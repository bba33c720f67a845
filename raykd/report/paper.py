"""Figures for papers: vector, as wide as one column or two of a journal, each with the numbers that it draws beside it.

One function a question: it asks `raykd.results.questions`, and gives the figure and the frame, or None where the runs cannot say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raykd.report.paper_style import STYLE, colour_of, fonts, marker_of
from raykd.results.questions import Comparison, communication, differences, label_curve, site_gains, teacher_effect
from raykd.results.reader import Tables
from raykd.scenario.errors import RaykdError

WIDTHS_MM = {1: 89.0, 2: 183.0}
"""Of one and of two columns in most journals."""
HEIGHTS_MM = {1: 65.0, 2: 75.0}
POOLED = -2
"""The client_id of all sites' cases in one place."""
Drawn = tuple[Figure, pd.DataFrame]
Question = Callable[[Comparison, int], Drawn | None]


def write_figures(tables: Tables, folder: Path, columns: Sequence[int] = (1, 2)) -> list[str]:
    """Draws every question that the runs can answer: NAME-1col.pdf and .svg, NAME-2col.pdf and .svg, and NAME.csv.

    Args:
        tables: the runs.
        folder: made where it is not there.
        columns: widths to draw, of 1 and 2.

    Returns:
        The names of the files written.

    Raises:
        RaykdError: the runs answer no question, or nothing can be written.
    """
    comparison, written = Comparison.of(tables), list[str]()
    if comparison.deployed.empty:
        raise RaykdError("there is nothing to draw: these runs hold no evaluated test case")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, question in QUESTIONS.items():
            for width in columns:
                with matplotlib.rc_context({**STYLE, "font.family": fonts()}):
                    drawn = question(comparison, width)
                    if drawn is None:
                        break
                    written += save(*drawn, folder, name, width)
    except OSError as error:
        raise RaykdError(f"{folder}: figures cannot be written there ({error.strerror}); give another place with --out") from None
    if not written:
        raise RaykdError("there is nothing to draw: one run of one method answers no question; give a study")
    return list(dict.fromkeys(written))


def save(figure: Figure, numbers: pd.DataFrame, folder: Path, name: str, columns: int) -> list[str]:
    """Writes a figure as PDF and SVG without a date, so that the same numbers give the same files, and its numbers as CSV."""
    figure.savefig(folder / f"{name}-{columns}col.pdf", metadata={"CreationDate": None})
    figure.savefig(folder / f"{name}-{columns}col.svg", metadata={"Date": None})
    numbers.to_csv(folder / f"{name}.csv", index=False)
    return [f"{name}-{columns}col.pdf", f"{name}-{columns}col.svg", f"{name}.csv"]


def labels(comparison: Comparison, columns: int = 1) -> Drawn | None:
    """DSC against labelled cases: a line a method, a band for its interval, a panel a level."""
    curve = label_curve(comparison)
    if curve.empty or curve.groupby(["method", "level"])["num_labels"].nunique().max() < 2:
        return None
    figure, panels = _panels(columns, list(curve["level"].unique()))
    for level, axes in panels.items():
        for index, method in enumerate(comparison.methods):
            rows = curve[(curve["level"] == level) & (curve["method"] == method)].sort_values("num_labels")
            axes.plot(rows["num_labels"], rows["dsc"], marker=marker_of(index), color=colour_of(index), label=method)
            axes.fill_between(
                rows["num_labels"], rows["dsc_low"], rows["dsc_high"], color=colour_of(index), alpha=0.15, linewidth=0
            )
        axes.set(xscale="log", xlabel=f"labelled cases, all sites{_over(curve)}", ylabel="DSC")
        budgets = sorted(curve["num_labels"].unique())
        axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
        axes.minorticks_off()
    _finish(figure, panels)
    return figure, curve


def bytes_(comparison: Comparison, columns: int = 1) -> Drawn | None:
    """DSC against bytes over all links: a point a method with its interval, a panel a condition."""
    table = communication(comparison)
    table = table[table["num_bytes"] > 0] if len(table) else table
    if table.empty:
        return None
    figure, panels = _panels(columns, list(table["condition"].unique()))
    for condition, axes in panels.items():
        for index, method in enumerate(comparison.methods):
            for row in table[(table["condition"] == condition) & (table["method"] == method)].to_dict("records"):
                _whisker(axes, row["num_bytes"] / 1e6, row, "dsc", index, method)
        axes.set(xlabel=f"MB over all links{_over(table)}", ylabel="DSC")
        if table["num_bytes"].max() > 20 * table["num_bytes"].min():
            axes.set_xscale("log")
    _finish(figure, panels)
    return figure, table


def methods(comparison: Comparison, columns: int = 1) -> Drawn | None:
    """Every other method less the best one, patient by patient: a whisker each, ordered, a panel a condition."""
    best = best_method(comparison)
    table = differences(comparison, [(method, best) for method in comparison.methods if method != best])
    if table.empty:
        return None
    return _forest(table, "difference", "method", columns, "condition", f"DSC less that of {best}{_over(table)}"), table


def sites(comparison: Comparison, columns: int = 1) -> Drawn | None:
    """What each site gains by the best method over sites alone or plain averaging, the thickest slices on top."""
    best = best_method(comparison)
    reference = next(
        (name for name in ("local", "fedavg", *comparison.methods) if name in comparison.methods and name != best), None
    )
    if reference is None:
        return None
    table = site_gains(comparison, best, reference)
    if table.empty:
        return None
    table = table.sort_values(["condition", "slice_mm"], ascending=[True, False])
    table["site"] = [f"{name} ({slice_mm:.3g} mm)" for name, slice_mm in zip(table["client_name"], table["slice_mm"], strict=True)]
    return _forest(table, "gain", "site", columns, "condition", f"DSC of {best} less {reference}{_over(table)}"), table


def teacher(comparison: Comparison, columns: int = 1) -> Drawn | None:
    """Where the teacher helps: the gain by site and class of the method that has one."""
    cases = comparison.with_cells(comparison.table("cases"))
    taught = set(cases.loc[(cases["model"] == "teacher") & (cases["client_id"] >= 0), "method"])
    method = next((name for name in comparison.methods if name in taught), None)
    reference = next((name for name in ("finetune", "fedavg", "local") if name in comparison.methods and name != method), None)
    if method is None or reference is None:
        return None
    table = teacher_effect(comparison, method, reference)
    if table.empty:
        return None
    table["place"] = _places(table)
    return _forest(table, "gain", "place", columns, "condition", f"DSC of {method} less {reference}{_over(table)}"), table


def rounds(comparison: Comparison, columns: int = 1) -> Drawn | None:
    """DSC after each evaluated round, the mean of sites: a line a method, a panel a condition."""
    rows = comparison.evaluated
    if rows["round"].nunique() < 2:
        return None
    rows = rows.assign(condition=rows["cell"].map(comparison.cells["condition"]), rounds_done=rows["round"].astype(int) + 1)
    by_site = rows.groupby(["condition", "method", "rounds_done", "client_id"], observed=True, sort=False)["dsc"].mean()
    table = by_site.groupby(["condition", "method", "rounds_done"], sort=False).mean().reset_index()
    figure, panels = _panels(columns, list(table["condition"].unique()))
    for condition, axes in panels.items():
        for index, method in enumerate(comparison.methods):
            own = table[(table["condition"] == condition) & (table["method"] == method)].sort_values("rounds_done")
            axes.plot(own["rounds_done"], own["dsc"], marker=marker_of(index), color=colour_of(index), label=method)
        axes.set(xlabel="rounds done", ylabel="DSC")
    _finish(figure, panels)
    return figure, table


def cases(comparison: Comparison, columns: int = 1) -> Drawn | None:
    """What the best method reaches at each site for each class: the mean of the test cases, a whisker from quartile to quartile."""
    best, rows = best_method(comparison), comparison.with_cells(comparison.deployed)
    rows = rows[rows["method"] == best]
    if rows.empty:
        return None
    rows = rows.assign(
        condition=rows["cell"].map(comparison.cells["condition"]), client_name=rows["client_id"].map(comparison.names).astype(str)
    )
    by_place = rows.groupby(["condition", "client_name", "class_name"], observed=True, sort=False)["dsc"]
    table = by_place.agg(
        dsc="mean", dsc_low=lambda dsc: dsc.quantile(0.25), dsc_high=lambda dsc: dsc.quantile(0.75), num_cases="count"
    ).reset_index()
    for end, bound in (("low", np.minimum), ("high", np.maximum)):  # a mean may lie beyond the quartiles
        table[f"dsc_{end}"] = bound(table[f"dsc_{end}"], table["dsc"])
    table["place"] = _places(table)
    return _forest(table, "dsc", "place", columns, "condition", f"DSC of {best}, test cases", is_difference=False), table


def _places(table: pd.DataFrame) -> pd.Series:
    """Site and class of each row, as words."""
    return table["client_name"].astype(str) + ", " + table["class_name"].astype(str).str.replace("_", " ")


QUESTIONS: dict[str, Question] = {
    "labels": labels,
    "bytes": bytes_,
    "methods": methods,
    "sites": sites,
    "teacher": teacher,
    "rounds": rounds,
    "cases": cases,
}


def best_method(comparison: Comparison) -> str:
    """The method with the highest macro mean over its cells, of those that do not pool what a federation is there to keep apart."""
    training, means = comparison.with_cells(comparison.table("training")), dict[str, list[float]]()
    pooled = set(training.loc[training["client_id"] == POOLED, "method"])
    cells = comparison.cells[~comparison.cells["method"].isin(pooled)]
    for number, cell in (cells if len(cells) else comparison.cells).iterrows():
        sample = comparison.sample([int(number)])  # type: ignore[call-overload]
        if sample.clients:
            means.setdefault(str(cell["method"]), []).append(float(sample.macro_V[0]))
    return max(means, key=lambda name: float(np.mean(means[name])), default="")


def _over(table: pd.DataFrame) -> str:
    """What an axis says of intervals that are over patients alone."""
    return "\n(one training: intervals over its patients alone)" if (table["num_seeds"] == 1).any() else ""


def _forest(
    table: pd.DataFrame, column: str, name: str, columns: int, panel: str, title: str, is_difference: bool = True
) -> Figure:
    names = list(dict.fromkeys(table[name]))[::-1]
    figure, panels = _panels(columns, list(dict.fromkeys(table[panel])), rows=len(names))
    for key, axes in panels.items():
        for row in table[table[panel] == key].to_dict("records"):
            _whisker(axes, names.index(row[name]), row, column, 0, "", is_across=True)
        if is_difference:
            axes.axvline(0, color="#888888", linewidth=0.6)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel=title, ylim=(-0.6, len(names) - 0.4))
    return figure


def _whisker(axes: Axes, at: float, row: Any, column: str, index: int, label: str, is_across: bool = False) -> None:
    value = row[column]
    span = [[value - row[f"{column}_low"]], [row[f"{column}_high"] - value]]
    error = None if np.isnan(span).any() else np.maximum(span, 0)
    style: dict[str, Any] = {
        "marker": marker_of(index),
        "color": colour_of(index),
        "linestyle": "none",
        "elinewidth": 0.8,
        "label": label,
    }
    if is_across:
        axes.errorbar([value], [at], xerr=error, **style)
    else:
        axes.errorbar([at], [value], yerr=error, **style)


def _panels(columns: int, titles: Sequence[str], rows: int = 0) -> tuple[Figure, dict[str, Axes]]:
    """A panel a title, at most three side by side; tall enough for so many rows of words."""
    across = min(len(titles), columns + 1)
    down = -(-len(titles) // across)
    height_mm = down * max(HEIGHTS_MM[columns] if not rows else 0.0, 15.0 + 4.0 * rows)
    figure = Figure(figsize=(WIDTHS_MM[columns] / 25.4, height_mm / 25.4))
    grid = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for axes in grid[len(titles) :]:
        axes.set_visible(False)
    for axes, title in zip(grid, titles, strict=False):
        axes.set_title(title)
    return figure, dict(zip(titles, grid, strict=False))


def _finish(figure: Figure, panels: dict[str, Axes]) -> None:
    """A legend for all panels, and the scale's name beside the first of a row alone."""
    for axes in panels.values():
        axes.label_outer(remove_inner_ticks=False)
    found = {label: handle for axes in panels.values() for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=min(len(found), 4))
