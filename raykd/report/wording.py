"""Numbers as a reader says them."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

from raykd.results.statistics import Estimate

UNITS = ("bytes", "kB", "MB", "GB", "TB")
NONE = "–"
MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"
"""Keeps a number and its unit on one line."""


def number(value: float, digits: int = 2) -> str:
    """A number with a true minus sign, which zero has not; a dash where there is none."""
    if math.isnan(value):
        return NONE
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text.lstrip("-")


def interval(estimate: Estimate, digits: int = 2) -> str:
    """A value with its interval in brackets, or alone where there is no interval, or one of no width."""
    if math.isnan(estimate.low) or estimate.low == estimate.high:
        return number(estimate.value, digits)
    return f"{number(estimate.value, digits)} ({number(estimate.low, digits)} to {number(estimate.high, digits)})"


def count_interval(estimate: Estimate) -> str:
    """A number of labels with its interval in brackets, unless that has no width; what is infinite is more than were tried."""

    def words(value: float) -> str:
        return "more than tried" if value == math.inf else "none" if value == -math.inf else number(value, 1)

    if math.isnan(estimate.low) or estimate.low == estimate.high:
        return words(estimate.value)
    return f"{words(estimate.value)} ({words(estimate.low)} to {words(estimate.high)})"


def signed(value: float, digits: int = 2) -> str:
    """A number that shows its sign, unless it rounds to zero."""
    text = number(value, digits)
    return f"+{text}" if value > 0 and float(f"{value:.{digits}f}") else text


def data_size(num_bytes: float) -> str:
    """Three significant figures with a decimal unit."""
    if math.isnan(num_bytes):
        return NONE
    power = min(int(math.log10(num_bytes) // 3), len(UNITS) - 1) if num_bytes >= 1 else 0
    scaled = num_bytes / 1000**power
    digits = 0 if power == 0 or scaled >= 100 else 1 if scaled >= 10 else 2
    return f"{scaled:.{digits}f}{SPACE}{UNITS[power]}"


def duration(seconds: float) -> str:
    """The two largest units that matter."""
    if math.isnan(seconds):
        return NONE
    if seconds < 10:
        return f"{seconds:.1f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((index for index, (count, _) in enumerate(parts) if count), 3)
    return SPACE.join(f"{count}{SPACE}{unit}" for count, unit in parts[first : first + 2] if count)


def probability(p_value: float) -> str:
    """As journals print it."""
    return f"p{SPACE}<{SPACE}0.001" if p_value < 0.001 else f"p{SPACE}={SPACE}{p_value:.3f}"


def plural(count: int, noun: str, several: str = "") -> str:
    """`1 site`, `4 sites`."""
    return f"{count} {noun if count == 1 else several or noun + 's'}"


def readable(name: str) -> str:
    """A class's name without underscores."""
    return name.replace("_", " ")


def display_width(words: str) -> int:
    """About how many Latin letters take as much room: two for a Chinese or Japanese one, none for a mark on another letter."""
    return sum(0 if unicodedata.category(c)[0] == "M" else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in words)


def short(value: Any) -> str:
    """A setting: numbers to three significant figures, those of a list with crosses between, words as they are."""
    if isinstance(value, list | tuple):
        return " × ".join(short(one) for one in value)
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)
