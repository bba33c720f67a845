"""A label file's values as the classes of a scenario, and what in them cannot be meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raykd.data.case import LABEL_UNKNOWN
from raykd.data.sources._labels import Values, as_label_values, to_classes
from raykd.data.volume_io import refusal

MAX_VALUES = 12
"""Values that one sentence names."""


@dataclass(frozen=True)
class Coding:
    """What the values of a source's labels mean.

    Attributes:
        classes: of the scenario, in order.
        values: those that mark each class; none: nobody outlined it there.
        unknown: those of voxels that the layout marks as not annotated.
        named: those that the layout names, classes of the scenario or not; None: the scenario lists every class's values itself.
        refuses_others: whether a value, other than 0, that no class lists is refused.
    """

    classes: tuple[str, ...]
    values: Sequence[Values]
    unknown: Values = ()
    named: Values | None = ()
    refuses_others: bool = False


def class_map(
    values_IJK: NDArray[np.int32],
    coding: Coding,
    path: Path,
    case_id: str,
    outlined: tuple[int, ...] | None = None,
    absent: tuple[int, ...] = (),
) -> tuple[NDArray[np.uint8], list[int]]:
    """The class of every voxel, 0 where it is of no outlined class, 255 where nobody knows; and the values that nobody named.

    Args:
        values_IJK: as they stand in the file.
        coding: of the source.
        path, case_id: named in errors.
        outlined: the classes whose outlines count in this case; None: all. What else is marked becomes background.
        absent: classes that are known not to be in this case.

    Raises:
        DataError: no class occurs while values do that nobody named, a value is refused that no class lists, or a class occurs that
            is said to be absent.
    """
    label_IJK, others = to_classes(values_IJK, coding.values)
    others = [value for value in others if value not in coding.unknown]
    foreign = [] if coding.named is None else [value for value in others if value not in coding.named]
    if coding.classes and foreign and not label_IJK.any():
        known = {name: list(values) for name, values in zip(coding.classes, coding.values, strict=True)}
        rule = f"a label must hold a value of a class, which are {known}"
        hint = f"say which value marks which class, as {as_label_values(coding.classes, foreign)}"
        raise refusal(rule, path=path, case_id=case_id, got=value_counts(values_IJK), hint=hint)
    if others and coding.refuses_others:
        listed = dict(zip(coding.classes, coding.values, strict=True))
        rule, hint = f"a label's values must be 0 or among {listed}", "list it in label_values, or set other_values: background"
        raise refusal(rule, path=path, case_id=case_id, got=str(others), hint=hint)
    for index in absent:
        if count := int((label_IJK == index).sum()):
            rule, hint = f"class {coding.classes[index - 1]!r} is listed as absent", "take it out of the column 'absent'"
            raise refusal(rule, path=path, case_id=case_id, got=f"{count} voxels of it", hint=hint)
    if outlined is not None:
        label_IJK[~np.isin(label_IJK, outlined)] = 0
    label_IJK[np.isin(values_IJK, coding.unknown)] = LABEL_UNKNOWN
    return label_IJK, foreign


def value_counts(values_IJK: NDArray[np.int32]) -> str:
    """The values of a label other than 0, each with its number of voxels, in a few words."""
    values, counts = np.unique(values_IJK[values_IJK != 0], return_counts=True)
    told = [f"{value} in {count} voxels" for value, count in zip(values.tolist(), counts.tolist(), strict=True)]
    more = f" and {len(told) - MAX_VALUES} more values" if len(told) > MAX_VALUES else ""
    return f"{', '.join(told[:MAX_VALUES])}{more}" if told else "0 everywhere"
