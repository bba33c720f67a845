"""Whether a lead may be due to longer training: the optimiser steps of methods beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from raykd.report.material import Material

EQUAL_WORK = 1.1
"""Times the steps of another method, up to which one is told to have done as much."""
TERA = 1e12


def unequal_work(material: Material, best: str, others: Iterable[str]) -> Iterator[str]:
    """A sentence for each method that another leads after more than `EQUAL_WORK` times its optimiser steps.

    Args:
        material: the runs.
        best: the label of the method that leads.
        others: labels of methods that it is held against.
    """
    values = {score.method: score.macro.value for score in material.rankings["dsc"]}
    for other in others:
        mine, theirs = material.costs[best], material.costs[other]
        if mine.steps <= EQUAL_WORK * theirs.steps or np.isnan(theirs.steps) or values[best] <= values[other]:
            continue
        times = f", {mine.steps / theirs.steps:.2g} times as many" if theirs.steps else ""
        flops = "" if np.isnan(mine.flops + theirs.flops) else f" ({mine.flops / TERA:.3g} TFLOP against {theirs.flops / TERA:.3g})"
        yield (
            f"Work is unequal: a site took {mine.steps:.0f} optimiser steps under {best} and {theirs.steps:.0f} under {other}"
            f"{times}{flops}. The lead may be due to longer training."
        )
