"""Charts of questions: a score against labels or bytes, and differences with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
import pandas as pd
from markupsafe import Markup

from raykd.report.blocks import Keys
from raykd.report.figures import LEFT, RIGHT, shorten
from raykd.report.material import Material
from raykd.report.svg import (
    WIDTH,
    Scale,
    colour,
    element,
    figure,
    group,
    horizontal_axis,
    line,
    marker,
    spanning,
    text,
    vertical_axis,
)
from raykd.report.wording import digits_for, interval, number, signed, signed_interval
from raykd.results.statistics import Estimate

STEP = 34.0
TOP, BOTTOM = 10.0, 190.0
SQUARE = 332.0
"""The bottom of a figure of which both axes are of the same length."""


@dataclass(frozen=True)
class LogScale:
    """Positive values from `low` to `high` onto pixels from `start` to `end`, by their logarithms."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = np.log(self.high / self.low) or 1.0
        return float(self.start + np.log(value / self.low) / span * (self.end - self.start))


def log_spanning(values: Sequence[float], start: float, end: float) -> LogScale:
    """A scale that holds all values with some air."""
    low, high = min(values), max(values)
    return LogScale(low / 1.15, high * 1.15, start, end)


def score_against(
    points: pd.DataFrame, x: str, y: str, material: Material, *, title: str, x_title: str, say: Callable[[float], str], joined: bool
) -> Markup:
    """A score with its interval against a positive quantity in logarithms.

    Args:
        points: rows of method, condition, `x`, `y`, `y`_low and `y`_high.
        x, y: columns.
        material: tells the methods' colours.
        title: what a screen reader says first.
        x_title: what x is.
        say: the words for a value of x.
        joined: whether a line joins the points of a method, by x.
    """
    ends = [value for name in (y, f"{y}_low", f"{y}_high") for value in points[name].dropna()]
    across, up = log_spanning(points[x].tolist(), 44.0, WIDTH - 14), spanning(ends, BOTTOM, TOP, upper=1.0)
    marks = vertical_axis(up, across.start, across.end)
    for tick in _spread_out(sorted(set(points[x])), across):
        marks.append(text(across(tick), BOTTOM + 17, say(tick), "middle", class_="small"))
    marks.append(text(across.end, BOTTOM + 33, x_title, "end", class_="small"))
    words = []
    for method, rows in points.sort_values(x).groupby("method", observed=True, sort=False):
        index, places = material.colour(str(method)), [(across(a), up(b)) for a, b in zip(rows[x], rows[y], strict=True)]
        own: list[Element] = []
        if joined:
            own.append(element("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in places), class_=f"curve {colour(index)}"))
        for (a, b), row in zip(places, rows.to_dict("records"), strict=True):
            estimate = Estimate(row[y], row[f"{y}_low"], row[f"{y}_high"])
            told = ", ".join(part for part in (str(method), str(row.get("condition") or "")) if part)
            hint = f"{told}, {say(row[x])}: {interval(estimate)}"
            words.append(hint)
            if not np.isnan(estimate.low):
                own.append(line(a, up(estimate.low), a, up(estimate.high), f"whisker {colour(index)}"))
            own.append(marker(index, a, b, hint))
        marks.append(group(own, material.keys(str(method))))
    return figure(BOTTOM + 38, f"{title}: {'; '.join(words)}.", marks)


def reliability(points: pd.DataFrame, material: Material, title: str) -> Markup:
    """How often models are right against how sure they are, a curve a method, about the line on which both are the same.

    Args:
        points: rows of method, confidence, accuracy, accuracy_low, accuracy_high and share (of voxels).
        material: tells the methods' colours.
        title: what a screen reader says first.
    """
    across, up = Scale(0.0, 1.0, 44.0, WIDTH - 14), Scale(0.0, 1.0, SQUARE, TOP + 12)
    marks = [*vertical_axis(up, across.start, across.end), *horizontal_axis(across, TOP + 12, SQUARE)]
    marks.append(line(across(0), up(0), across(1), up(1), "zero"))
    marks += [text(across(0.03), up(0.93), "less sure than right", class_="small")]
    marks += [text(across(0.97), up(0.04), "surer than right", "end", class_="small")]
    marks.append(text(across.end, SQUARE + 31, "probability given to the chosen class", "end", class_="small"))
    marks.append(text(across.start, TOP, "share of voxels where it is the right one", class_="small"))
    words = []
    for method, rows in points.sort_values("confidence").groupby("method", observed=True, sort=False):
        index, own, told = material.colour(str(method)), list[Element](), list[str]()
        places = [(across(a), up(b)) for a, b in zip(rows["confidence"], rows["accuracy"], strict=True)]
        own.append(element("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in places), class_=f"curve {colour(index)}"))
        for (a, b), row in zip(places, rows.to_dict("records"), strict=True):
            estimate = Estimate(row["accuracy"], row["accuracy_low"], row["accuracy_high"])
            said = f"{number(row['confidence'])} sure, right in {interval(estimate)}"
            told.append(said)
            if not np.isnan(estimate.low):
                own.append(line(a, up(estimate.low), a, up(estimate.high), f"whisker {colour(index)}"))
            own.append(marker(index, a, b, f"{method}: {said}, {100 * row['share']:.2g}% of voxels", radius=3.5))
        words.append(f"{method} {', '.join(told)}")
        marks.append(group(own, material.keys(str(method))))
    return figure(SQUARE + 36, f"{title}: {'; '.join(words)}.", marks)


def _spread_out(values: Sequence[float], scale: LogScale) -> list[float]:
    """Values whose words do not overlap."""
    kept: list[float] = []
    for value in values:
        if not kept or scale(value) - scale(kept[-1]) > 62:
            kept.append(value)
    return kept


@dataclass(frozen=True)
class Delta:
    """A difference: its label, its value with interval, the palette's place of its mark, and what it is about."""

    label: str
    estimate: Estimate
    colour: int
    keys: Keys


def differences(deltas: Sequence[Delta], title: str, better: str) -> Markup:
    """Differences one below the other, about a line at zero.

    Args:
        deltas: at least one with a value.
        title: what a screen reader says first.
        better: what lies to the right of zero.
    """
    ends = [v for d in deltas for v in (d.estimate.low, d.estimate.value, d.estimate.high) if np.isfinite(v)]
    reach = max((abs(value) for value in ends), default=0.0) * 1.08 or 1.0
    scale = Scale(-reach, reach, LEFT + 8, RIGHT - 8)
    bottom = STEP * len(deltas) + 6
    marks = [*horizontal_axis(scale, 6, bottom), line(scale(0), 6, scale(0), bottom, "zero")]
    marks.append(text(RIGHT, bottom + 31, f"{better} →", "end", class_="small"))
    for row, delta in enumerate(deltas):
        y, estimate = STEP * row + 30, delta.estimate
        said = signed_interval(estimate)
        own = [
            text(LEFT, y - 12, shorten(delta.label)),
            text(RIGHT, y - 12, signed(estimate.value, digits_for(estimate, is_signed=True)), "end", class_="strong"),
        ]
        if np.isfinite(estimate.low):
            own.append(line(scale(estimate.low), y, scale(estimate.high), y, f"whisker {colour(delta.colour)}"))
        if np.isfinite(estimate.value):
            own.append(marker(delta.colour, scale(estimate.value), y, f"{delta.label}: {said}"))
        marks.append(group(own, delta.keys))
    words = "; ".join(f"{delta.label} {signed_interval(delta.estimate)}" for delta in deltas)
    return figure(bottom + 36, f"{title}: {words}.", marks)
