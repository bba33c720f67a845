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
    """The values of every class, found by its name among the names that the files give; none where no name is like it: whoever
    outlined these files did not look for that class.

    Args:
        owner: named in errors.
        classes: of the scenario.
        names: the values of every structure in the files.
        where: which file gives the names.

    Raises:
        DataError: one line for each class that resembles a name of no other class, as a misspelt one does, or that shares a value
            with another, and for all where none has a namesake.
    """
    known = {normalised(name): values for name, values in names.items()}
    problems, taken = [], dict[int, str]()
    free = known.keys() - {normalised(name) for name in classes}
    for name in classes:
        hint = did_you_mean(normalised(name), free)
        if normalised(name) not in known and (hint.startswith("did you mean") or len(free) == len(known)):
            problems.append(f"{owner}: every class must be a label of {where}, got {name!r}; {hint} or map it in label_values")
        for value in known.get(normalised(name), ()):
            other = taken.setdefault(value, name)
            if other != name:
                problems.append(f"{owner}: classes must not share a value of {where}, got {value} in {other!r} and {name!r}")
    if problems:
        raise DataError("\n".join(problems))
    return [known.get(normalised(name), ()) for name in classes]


def listed_classes(text: object, classes: Sequence[str]) -> tuple[list[int], list[str]]:
    """The classes that a field of a table names, by their numbers, and the words that are no class.

    Args:
        text: names separated by blanks, `;` or `|`, or a list of them; empty or None: no name.
        classes: of the scenario.
    """
    words = [str(word) for word in text] if isinstance(text, list) else re.split(r"[\s;|]+", str(text or "").strip())
    known = {normalised(name): index for index, name in enumerate(classes, start=1)}
    named = {word: known.get(normalised(word)) for word in words if word}
    return sorted(index for index in named.values() if index), [word for word, index in named.items() if not index]


def as_label_values(classes: Sequence[str], values: Sequence[int]) -> str:
    """The line of a scenario that would map values to classes in their order, all of them where there is one class."""
    found = [list(values)] if len(classes) == 1 else [[value] for value in values[: len(classes)]]
    listed = [*found, *([] for _ in range(len(classes) - len(found)))]
    return f"label_values: {{{', '.join(f'{name}: {own}' for name, own in zip(classes, listed, strict=True))}}}"


def to_classes(values_IJK: NDArray[np.int32], class_values: Sequence[Values]) -> tuple[NDArray[np.uint8], list[int]]:
    """The class of every voxel, 1, 2, ... in order, and the values other than 0 that no class lists."""
    label_IJK = np.zeros(values_IJK.shape, dtype=np.uint8)
    for index, values in enumerate(class_values, start=1):
        label_IJK[np.isin(values_IJK, values)] = index
    return label_IJK, np.unique(values_IJK[(label_IJK == 0) & (values_IJK != 0)]).tolist()
