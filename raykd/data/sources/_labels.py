"""From the values of a label file to the classes of a scenario."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from raykd.scenario.errors import DataError, did_you_mean
from raykd.scenario.labels import normal

Values = tuple[int, ...]
LabelNames = Mapping[str, Values]
"""The values that mark each structure in the files of a layout, by the structure's own name."""


def normalised(name: str) -> str:
    """A structure's name without what people write differently: case, spaces, hyphens, composed or single characters."""
    return re.sub(r"[\s_-]+", "_", normal(name).strip().lower())


def check_listed(owner: str, classes: Sequence[str], listed: LabelNames) -> None:
    """Raises `DataError` where `label_values` names a class that the scenario does not have, or leaves one out."""
    for name in sorted(set(listed) ^ set(classes)):
        what = "must list every class; for one not in these files write []" if name in classes else did_you_mean(name, classes)
        raise DataError(f"{owner}: label_values must name exactly the scenario's classes, got a difference in {name!r}; {what}")


def values_by_name(owner: str, classes: Sequence[str], names: LabelNames, where: str) -> list[Values]:
    """The values of every class, found by its name among the names that the files give.

    Args:
        owner: named in errors.
        classes: of the scenario.
        names: the values of every structure in the files.
        where: which file gives the names.

    Raises:
        DataError: one line for each class that has no namesake, or that shares a value with another.
    """
    known = {normalised(name): values for name, values in names.items()}
    problems, taken = [], dict[int, str]()
    for name in classes:
        if normalised(name) not in known:
            hint = did_you_mean(normalised(name), known)
            problems.append(f"{owner}: every class must be a label of {where}, got {name!r}; {hint} or map it in label_values")
        for value in known.get(normalised(name), ()):
            other = taken.setdefault(value, name)
            if other != name:
                problems.append(f"{owner}: classes must not share a value of {where}, got {value} in {other!r} and {name!r}")
    if problems:
        raise DataError("\n".join(problems))
    return [known[normalised(name)] for name in classes]


def to_classes(values_IJK: NDArray[np.int32], class_values: Sequence[Values]) -> tuple[NDArray[np.uint8], list[int]]:
    """The class of every voxel, 1, 2, ... in order, and the values other than 0 that no class lists."""
    label_IJK = np.zeros(values_IJK.shape, dtype=np.uint8)
    for index, values in enumerate(class_values, start=1):
        label_IJK[np.isin(values_IJK, values)] = index
    return label_IJK, np.unique(values_IJK[(label_IJK == 0) & (values_IJK != 0)]).tolist()
