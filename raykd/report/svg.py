"""A little SVG: elements, a scale, marks. Colours come from the page's style sheet, so figures follow its light or dark scheme."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

WIDTH = 380.0
"""Of every figure, in units that are pixels on a phone."""
NUM_COLOURS = 8


def element(tag: str, *children: ET.Element | str, **attributes: str | float) -> ET.Element:
    """An element; attribute names lose a trailing underscore and have hyphens for the others, numbers are rounded."""
    made = ET.Element(tag)
    for name, value in attributes.items():
        text = value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
        made.set(name.rstrip("_").replace("_", "-"), text)
    for child in children:
        if isinstance(child, str):
            made.text = child
        else:
            made.append(child)
    return made


def figure(height: float, description: str, children: Sequence[ET.Element]) -> Markup:
    """A whole figure with the sentence that a screen reader says for it."""
    root = element("svg", *children, viewBox=f"0 0 {WIDTH:.0f} {height:.0f}", role="img", aria_label=description)
    return Markup(ET.tostring(root, encoding="unicode"))


def group(children: Sequence[ET.Element], keys: Mapping[str, str]) -> ET.Element:
    """Marks that are about the same, so that a reader can hide them together."""
    made = element("g", *children)
    for name, words in keys.items():
        made.set(f"data-{name}", words)
    return made


def text(x: float, y: float, words: str, anchor: str = "start", **attributes: str | float) -> ET.Element:
    """A line of text whose baseline is at `y`."""
    return element("text", words, x=x, y=y, text_anchor=anchor, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> ET.Element:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def colour(index: int, palette: str = "c") -> str:
    """The class of the index-th method (palette c) or kind (palette k); every class is a colour of its own, then they repeat."""
    return f"{palette}{index % NUM_COLOURS}"


def marker(index: int, x: float, y: float, hint: str, radius: float = 4.5, hollow: bool = False) -> ET.Element:
    """The index-th method's mark: its shape tells methods apart without colour. `hint` is shown on hovering."""
    r = radius
    shapes = (
        "",
        f"M{x - r:.1f} {y - r:.1f}h{2 * r:.1f}v{2 * r:.1f}h{-2 * r:.1f}z",
        f"M{x:.1f} {y - 1.2 * r:.1f}L{x + 1.2 * r:.1f} {y + r:.1f}H{x - 1.2 * r:.1f}z",
        f"M{x:.1f} {y - 1.35 * r:.1f}L{x + 1.35 * r:.1f} {y:.1f}L{x:.1f} {y + 1.35 * r:.1f}L{x - 1.35 * r:.1f} {y:.1f}z",
        f"M{x:.1f} {y + 1.2 * r:.1f}L{x + 1.2 * r:.1f} {y - r:.1f}H{x - 1.2 * r:.1f}z",
    )
    shape = shapes[index % len(shapes)]
    class_ = f"mark {colour(index)}{' hollow' if hollow else ''}"
    title = element("title", hint)
    return element("path", title, d=shape, class_=class_) if shape else element("circle", title, cx=x, cy=y, r=r, class_=class_)


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` onto pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round values within the scale, five at most."""
        return [float(v) for v in MaxNLocator(nbins=4).tick_values(self.low, self.high) if self.low - 1e-9 <= v <= self.high + 1e-9]


def spanning(values: Sequence[float], start: float, end: float, *, upper: float | None = None) -> Scale:
    """A scale that holds all values with some air, from 0 at the least, up to `upper` at the most."""
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    top = high + air if upper is None else min(high + air, upper)
    return Scale(max(0.0, low - air), top, start, end)


def horizontal_axis(scale: Scale, top: float, bottom: float) -> list[ET.Element]:
    """Grid lines from top to bottom with their values beneath."""
    marks = []
    for tick in scale.ticks:
        marks.append(line(scale(tick), top, scale(tick), bottom, "grid"))
        marks.append(text(scale(tick), bottom + 15, f"{tick:g}", "middle", class_="small"))
    return marks


def vertical_axis(scale: Scale, left: float, right: float) -> list[ET.Element]:
    """Grid lines from left to right with their values before them."""
    marks = []
    for tick in scale.ticks:
        marks.append(line(left, scale(tick), right, scale(tick), "grid"))
        marks.append(text(left - 6, scale(tick) + 4, f"{tick:g}", "end", class_="small"))
    return marks
