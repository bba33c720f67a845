"""The charts of the report. Each takes numbers that are already decided and returns SVG."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
import pandas as pd
from markupsafe import Markup

from raykd.report.blocks import Keys
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
from raykd.report.wording import display_width, interval, number, readable
from raykd.results.statistics import Score

ROW = 42.0
LEFT, RIGHT = 8.0, WIDTH - 8.0


@dataclass(frozen=True)
class Bar:
    """A bar: its label, its pieces (kind, size, words for it), the words at its end, and what it is about."""

    label: str
    pieces: Sequence[tuple[str, float, str]]
    words: str
    keys: Keys


JOINER = "\N{ZERO WIDTH JOINER}"


def shorten(words: str, length: int = 44) -> str:
    """Words that take the room of at most `length` Latin letters, of which the middle is left out: labels of a study differ at
    their ends.
    """
    if display_width(words) <= length:
        return words
    end = length // 2
    ending = _beginning(words[::-1], end)[::-1]
    whole = "".join(itertools.dropwhile(lambda letter: letter == JOINER or not display_width(letter), ending))
    return f"{_beginning(words, length - 1 - end)}…{whole}"


def _beginning(words: str, width: int) -> str:
    """As many letters as take the room of so many Latin ones."""
    ends = itertools.accumulate(map(display_width, words))
    return "".join(letter for letter, end in zip(words, ends, strict=True) if end <= width).rstrip(JOINER)


def forest(scores: Sequence[Score], material: Material) -> Markup:
    """Every method's macro mean with its interval, and its worst client hollow, with the same."""
    values = [v for s in scores for e in (s.macro, s.worst) for v in (e.low, e.value, e.high) if not np.isnan(v)]
    scale = spanning(values, LEFT + 8, RIGHT - 8, upper=1.0)
    marks = horizontal_axis(scale, 6, ROW * len(scores) + 6)
    for row, score in enumerate(scores):
        index, y = material.colour(score.method), ROW * row + 34
        worst_name = material.evidence.name(score.worst_client)
        own = [text(LEFT, y - 14, shorten(score.method), class_="strong")]
        own.append(text(RIGHT, y - 14, number(score.macro.value), "end", class_="strong"))
        for estimate, shift, hollow, what in (
            (score.macro, -2.0, False, f"{score.method}, all sites: {interval(score.macro)}"),
            (score.worst, 7.0, True, f"{score.method}, worst site {worst_name}: {interval(score.worst)}"),
        ):
            if not np.isnan(estimate.low):
                own.append(line(scale(estimate.low), y + shift, scale(estimate.high), y + shift, f"whisker {colour(index)}"))
            own.append(marker(index, scale(estimate.value), y + shift, what, radius=3.5 if hollow else 4.5, hollow=hollow))
        marks.append(group(own, material.keys(score.method)))
    words = "; ".join(f"{s.method} {interval(s.macro)}" for s in scores)
    return figure(ROW * len(scores) + 30, f"Mean score over sites with 95% interval. {words}.", marks)


def spread(cases: pd.DataFrame, metric: str, scale_values: Sequence[float], material: Material, title: str) -> Markup:
    """One client: for each class and method the cases' range (thin), quartiles (thick) and mean (mark)."""
    scale = spanning(scale_values, LEFT + 8, RIGHT - 8, upper=None if metric.endswith("_mm") else 1.0)
    y, marks = 4.0, []
    for name, rows in cases.groupby("class_name", observed=True, sort=False):
        y += 16
        marks.append(text(LEFT, y, shorten(readable(str(name)))))
        present = set(rows["method"])
        for label in (label for label in material.labels if label in present):
            y += 13
            values = rows.loc[rows["method"] == label, metric].to_numpy(float)
            strip = _strip(values, material.colour(label), scale, y - 3, label)
            marks.append(group(strip, material.keys(label, structure=str(name))))
        y += 9
    body = [*horizontal_axis(scale, 6, y), *marks]
    return figure(y + 24, f"{title}: {metric} of every class and method; the numbers are in the table below.", body)


def _strip(values: np.ndarray, index: int, scale: Scale, y: float, method: str) -> list[Element]:
    low, first, third, high = np.quantile(values, [0, 0.25, 0.75, 1])
    hint = f"{method}: mean {number(values.mean())}, {number(low)} to {number(high)}, {len(values)} values"
    return [
        line(scale(low), y, scale(high), y, f"whisker {colour(index)}"),
        line(scale(first), y, scale(third), y, f"box {colour(index)}"),
        marker(index, scale(values.mean()), y, hint, radius=4),
    ]


def curves(points: pd.DataFrame, x: Scale, y: Scale, material: Material, title: str) -> Markup:
    """Mean score after each evaluated round, a line a method.

    Args:
        points: rows of method, rounds_done, score.
        x, y: shared by the panels that are compared with one another.
        material: tells the methods' colours.
        title: what the screen reader says first.
    """
    marks = [*vertical_axis(y, x.start, x.end)]
    marks += [text(x(tick), y.start + 17, f"{tick:g}", "middle", class_="small") for tick in x.ticks]
    marks.append(text(x.end, y.start + 31, "rounds done", "end", class_="small"))
    ends = []
    for method, rows in points.groupby("method", observed=True):
        index, rows = material.colour(str(method)), rows.sort_values("rounds_done")
        places = [(x(a), y(b)) for a, b in zip(rows["rounds_done"], rows["score"], strict=True)]
        own = [element("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in places), class_=f"curve {colour(index)}")]
        for (a, b), done, score in zip(places, rows["rounds_done"], rows["score"], strict=True):
            own.append(marker(index, a, b, f"{method}, {done} rounds done: {number(score)}", radius=3.5))
        marks.append(group(own, material.keys(str(method))))
        ends.append(f"{method} {number(rows['score'].iloc[-1])}")
    return figure(y.start + 36, f"{title}: score over rounds, in the end {', '.join(ends)}.", marks)


def bars(rows: Sequence[Bar], kinds: Sequence[str], description: str, palette: str = "c") -> Markup:
    """Horizontal bars of pieces, all from zero on one scale; a piece's colour is its kind's place in `kinds`."""
    largest = max((sum(size for _, size, _ in row.pieces) for row in rows), default=0.0)
    scale = Scale(0.0, largest or 1.0, LEFT, RIGHT)
    marks = []
    for index, row in enumerate(rows):
        y, done = 36.0 * index + 14, 0.0
        own = [text(LEFT, y, shorten(row.label)), text(RIGHT, y, row.words, "end", class_="strong")]
        own.append(element("rect", x=LEFT, y=y + 5, width=RIGHT - LEFT, height=10.0, class_="track"))
        for kind, size, words in row.pieces:
            start, stop = scale(done), scale(done + size)
            hint = element("title", f"{row.label}: {kind}, {words}")
            class_ = f"piece {colour(kinds.index(kind), palette)}"
            own.append(element("rect", hint, x=start, y=y + 5, width=max(stop - start, 0.0), height=10.0, class_=class_))
            done += size
        marks.append(group(own, row.keys))
    return figure(36.0 * len(rows) + 4, f"{description}: {'; '.join(f'{row.label} {row.words}' for row in rows)}.", marks)


def forest_data(scores: Sequence[Score], material: Material) -> pd.DataFrame:
    """The numbers of `forest`."""
    rows = [
        {
            "method": score.method,
            "of": name,
            **dict(zip(("dsc", "dsc_low", "dsc_high"), (estimate.value, estimate.low, estimate.high), strict=True)),
        }
        for score in scores
        for name, estimate in (("mean over sites", score.macro), (material.evidence.name(score.worst_client), score.worst))
    ]
    return pd.DataFrame(rows)
