"""Words as LaTeX prints them."""

from __future__ import annotations

import re

SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip
_SPECIAL = re.compile("|".join(map(re.escape, SPECIAL)))
ANY_SCRIPT = "% Has characters beyond LaTeX's own: compile with lualatex or xelatex, and choose fonts that have them."


def escape(words: str) -> str:
    """Words that LaTeX prints as they are."""
    return _SPECIAL.sub(lambda match: SPECIAL[match[0]], words)
