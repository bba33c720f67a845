"""Numbers as a reader says them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from typing import Any

from raykd.results.statistics import Estimate

UNITS = ("bytes", "kB", "MB", "GB", "TB")
NONE = "–"
MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"
"""Keeps a number and its unit on one line."""
MOST_DIGITS = 4
"""Decimals of an estimate with an interval."""
ROUNDING = 1e-9
"""Of a logarithm."""


def number(value: float, digits: int = 2) -> str:
    """A number with a true minus sign, which zero has not; a dash where there is none."""
    if math.isnan(value):
        return NONE
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text.lstrip("-")


def digits_for(estimate: Estimate, least: int = 2, *, is_signed: bool = False) -> int:
    """Decimals, at most `MOST_DIGITS`, at which half the interval shows a digit that is not zero.

    Args:
        estimate: with its interval; without one, and where it is endless or has no width, `least` decimals will do.
        least: decimals in any case.
        is_signed: whether signs count: then no end prints as zero that is not zero.
    """
    half = (estimate.high - estimate.low) / 2
    if not (math.isfinite(half) and half > 0):
        return least
    shown = [half, *(abs(end) for end in (estimate.low, estimate.high) if is_signed)]
    needed = [math.ceil(-math.log10(value) - ROUNDING) for value in shown if value > 0]
    return max([least, *(digits for digits in needed if digits <= MOST_DIGITS)])


def bounds(estimate: Estimate, say: Callable[[float], str]) -> str:
    """The ends of an interval in words, as `0.75 to 0.85`; "" where there is none, or where both ends read the same."""
    if math.isnan(estimate.low):
        return ""
    low, high = say(estimate.low), say(estimate.high)
    return "" if low == high else f"{low} to {high}"


def interval(estimate: Estimate, digits: int = 2) -> str:
    """A value with its interval in brackets, all with the same decimals, at least so many; alone where there is no interval."""
    return _with_bounds(estimate, number, digits_for(estimate, digits))


def signed_interval(estimate: Estimate, digits: int = 2) -> str:
    """A difference with its interval, the signs of all three told."""
    return _with_bounds(estimate, signed, digits_for(estimate, digits, is_signed=True))


def _with_bounds(estimate: Estimate, say: Callable[[float, int], str], digits: int) -> str:
    ends = bounds(estimate, lambda value: say(value, digits))
    return say(estimate.value, digits) + (f" ({ends})" if ends else "")


def count_interval(estimate: Estimate) -> str:
    """A number of labels with its interval in brackets, unless that has no width; what is infinite is more than were tried."""

    def words(value: float) -> str:
        return "more than tried" if value == math.inf else "none" if value == -math.inf else number(value, 1)

    ends = bounds(estimate, words)
    return words(estimate.value) + (f" ({ends})" if ends else "")


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
