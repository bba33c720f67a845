"""How figures for papers look: sizes, fonts, colours and markers."""

from __future__ import annotations

import functools

from matplotlib.font_manager import fontManager

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Of Okabe and Ito, told apart by colour-blind readers; beyond eight, markers differ."""
MARKERS = "osD^vP*X"
FURTHER_FONTS = (
    "Noto Sans CJK JP", "Noto Sans JP", "IPAGothic", "IPAexGothic", "WenQuanYi Zen Hei", "Noto Sans Arabic", "Noto Sans Hebrew",
    "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji", "Hiragino Sans", "Arial Unicode MS",
)  # fmt: skip
"""Asked where they are installed, for names that matplotlib's own font has no letters for."""
STYLE = {
    "font.size": 7, "axes.titlesize": 7, "axes.labelsize": 7, "legend.fontsize": 6, "xtick.labelsize": 6, "ytick.labelsize": 6,
    "axes.linewidth": 0.6, "lines.linewidth": 1.0, "lines.markersize": 3.5, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "raykd",
    "figure.constrained_layout.use": True, "text.parse_math": False,
}  # fmt: skip


@functools.cache
def fonts() -> list[str]:
    """Matplotlib's own font, and those installed that are asked for what it lacks."""
    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in FURTHER_FONTS if name in installed)]


def colour_of(index: int) -> str:
    """The colour of a method by its place; colours come again after eight."""
    return PALETTE[index % len(PALETTE)]


def marker_of(index: int) -> str:
    """The marker of a method by its place: another one wherever the colour comes again."""
    return MARKERS[(index // len(PALETTE) + index) % len(MARKERS)]
