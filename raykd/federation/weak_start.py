"""A teacher, or a student to start from, that has learnt nothing is told of before the rounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raykd.federation.client import SERVER
from raykd.federation.protocols import Row

WEAK_DSC = 0.1
"""A mean DSC below it, over classes and held-out cases that have them, is no better than chance: a network that gives one class to
all, or that draws blobs somewhere, reaches it. Whoever learns from such a model, or starts from it, gains nothing."""
MISSED_DSC = 0.05
"""A class below it has not been learnt, and is named."""
KIND = "weak_start"


def weak_start(role: str, rows: Sequence[Row]) -> list[Row]:
    """The event of a model that scores below `WEAK_DSC`; none of another, or where no case is held out.

    Args:
        role: teacher or student.
        rows: of `cases`, of the model on the cases that the repository holds out. Classes that a case lacks do not count.
    """
    scores: dict[str, list[float]] = {}
    for row in rows:
        if row["dsc"] is not None and not row["is_ref_empty"]:
            scores.setdefault(row["class_name"], []).append(float(row["dsc"]))
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    if not means or np.mean(list(means.values())) >= WEAK_DSC:
        return []
    missed = [name for name, mean in means.items() if mean < MISSED_DSC]
    num_cases = len({row["case_id"] for row in rows})
    detail = (
        f"the {role} reaches a mean DSC of {np.mean(list(means.values())):.3f} on what the repository holds out "
        f"({num_cases} case{'s' * (num_cases > 1)}), below {WEAK_DSC}"
        + (f", and has not learnt {', '.join(missed)}" if missed else "")
        + "; raise repository.teacher.num_steps, or look at the repository's labels and spacing"
    )
    return [{"round": -1, "client_id": SERVER, "kind": KIND, "detail": detail}]
