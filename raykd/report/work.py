"""Whether a lead may be due to longer training: the optimiser steps of methods beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from raykd.report.material import Material

EQUAL_WORK = 1.1
"""Times the steps of another method, up to which one is told to have done as much."""
TERA = 1e12


def unequal_work(material: Material, best: str, others: Iterable[str]) -> Iterator[str]:
    """A sentence for the methods that another leads after more than `EQUAL_WORK` times their optimiser steps. Methods of as much
    work are told together.

    Args:
        material: the runs.
        best: the label of the method that leads; without a score there is nothing to tell.
        others: labels of methods that it is held against.
    """
    values = {score.method: score.macro.value for score in material.rankings["dsc"]}
    if best not in values:
        return
    mine = material.costs[best]
    less: dict[tuple[float, str], list[str]] = {}
    for other in others:
        theirs = material.costs[other]
        if mine.steps > EQUAL_WORK * theirs.steps and values[best] > values[other]:
            is_counted = not np.isnan(mine.flops + theirs.flops)
            flops = f" ({mine.flops / TERA:.3g} TFLOP against {theirs.flops / TERA:.3g})" if is_counted else ""
            less.setdefault((theirs.steps, flops), []).append(other)
    for (steps, flops), labels in less.items():
        times = f", {mine.steps / steps:.2g} times as many" if steps else ""
        yield (
            f"Work is unequal: a site took {mine.steps:.0f} optimiser steps under {best} and {steps:.0f} under "
            f"{', '.join(labels)}{times}{flops}. The lead may be due to longer training."
        )
