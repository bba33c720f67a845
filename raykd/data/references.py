"""What a scenario's labels hold of its classes: classes that nobody outlined, and labels in which no class occurs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from raykd.data.case import LABEL_UNKNOWN, Case
from raykd.data.content import SAY_SO, CaseFacts
from raykd.data.identity import listed
from raykd.data.sources._base import CaseKey, Source
from raykd.data.sources._files import FileSource
from raykd.data.sources._labels import as_label_values
from raykd.scenario.errors import DataError


def union(outlined: Iterable[tuple[int, ...] | None], num_classes: int) -> tuple[int, ...] | None:
    """The classes that somebody looked for in one of several cases, ascending; None: all of them in every case."""
    sets = list(outlined)
    if all(own is None for own in sets):
        return None
    every = range(1, num_classes + 1)
    return tuple(index for index in every if any(own is None or index in own for own in sets))


def outlined_nowhere(classes: Sequence[str], sources: Iterable[Source]) -> list[str]:
    """A sentence for each class that no labelled case of any source was outlined for, found from names and settings alone."""
    found = {source.owner: _outlined_in(source, len(classes)) for source in sources}
    return [
        f"class {name!r} must be outlined by somebody, got no case of {', '.join(found)}; take it out of classes, or map it in the "
        "label_values, or name it in the column 'outlined', of a source that has it"
        for index, name in enumerate(classes, start=1)
        if all(own is not None and index not in own for own in found.values())
    ]


def _outlined_in(source: Source, num_classes: int) -> tuple[int, ...] | None:
    keys = [key for key in source.keys() if source.has_label(key)]  # noqa: SIM118 (not a mapping)
    return union((source.outlined(key) for key in keys), num_classes) if keys else ()


def refuse_useless(source: Source, labelled: Sequence[CaseKey], wanted: Sequence[str]) -> None:
    """Raises `DataError` where a labelled case was outlined for none of the classes that its site's labels are to have."""
    for key in labelled:
        outlined = source.outlined(key)
        names = source.classes if outlined is None else [source.classes[index - 1] for index in outlined]
        if not set(names) & set(wanted):
            raise DataError(
                f"{source.owner}: case {key.case_id!r}: a labelled case must be outlined for one of labels.classes "
                f"({', '.join(wanted)}), got {', '.join(names)}; list further classes, or leave the case out of the source"
            )


def refuse_empty(owner: str, classes: Sequence[str], cases: Sequence[Case]) -> None:
    """Raises `DataError` where labels were made for classes, and none of them holds a voxel of any."""
    expected = [index for case in cases for index in _expected(case, len(classes))]
    if expected and not any(_has_class(case) for case in cases):
        names = ", ".join(classes[index - 1] for index in sorted(set(expected)))
        raise DataError(
            f"{owner}: a label must hold a voxel of a class, got none of {names} in any of its {len(cases)} labelled cases; "
            f"`raykd check` tells which values their files hold; a coarse spacing_mm may have lost them; {SAY_SO}"
        )


def _expected(case: Case, num_classes: int) -> list[int]:
    outlined = range(1, num_classes + 1) if case.outlined is None else case.outlined
    return [index for index in outlined if index not in case.absent]


def _has_class(case: Case) -> bool:
    assert case.label_IJK is not None
    return bool(((case.label_IJK > 0) & (case.label_IJK != LABEL_UNKNOWN)).any())


def unmatched(source: Source, facts: Sequence[CaseFacts]) -> list[str]:
    """A sentence where no case of a source of files holds a class that its labels were made for, with the values that they hold."""
    labelled = [case for case in facts if case.voxels is not None]
    expected = {index for case in labelled for index in _counts(case, source.classes)}
    if not expected or any(count for case in labelled for count in _counts(case, source.classes).values()):
        return []
    values = _values_as_written(source)
    hint = f"; map them, as {as_label_values(source.classes, list(values))}" if values else f"; {SAY_SO}"
    got = ", ".join(f"{value} in {count} cases" for value, count in values.items()) or "0 everywhere"
    rule = f"a label must hold a voxel of one of {', '.join(source.classes)}"
    return [f"{source.owner}: {rule}, got {got} in {len(labelled)} labelled cases{hint}"]


def _counts(case: CaseFacts, classes: Sequence[str]) -> Mapping[int, int]:
    """Voxels of every class that the case's label was made for and that is not known to be absent."""
    outlined = range(1, len(classes) + 1) if case.outlined is None else case.outlined
    voxels = case.voxels or {}
    return {index: voxels.get(index, 0) for index in outlined if index not in case.absent}


def _values_as_written(source: Source) -> dict[int, int]:
    """The values other than 0 that a source's labels hold, each with the number of cases that do, the most frequent first."""
    counts: dict[int, int] = {}
    if isinstance(source, FileSource):
        for key in source.keys():  # noqa: SIM118 (not a mapping)
            label_IJK = source.load_as_written(key).label_IJK if source.has_label(key) else None
            for value in [] if label_IJK is None else torch.unique(label_IJK).tolist():
                counts[value] = counts.get(value, 0) + (value != 0)
    return {value: counts[value] for value in sorted(counts, key=lambda value: (-counts[value], value)) if value != 0}


def outline_notes(source: Source, facts: Sequence[CaseFacts]) -> Iterator[str]:
    """A sentence for the classes that a source does not outline, and one for the values that its labels have beside its classes."""
    looked_for = union((case.outlined for case in facts if case.voxels is not None), len(source.classes))
    if looked_for is not None and (unseen := [name for i, name in enumerate(source.classes, start=1) if i not in looked_for]):
        yield f"{source.owner}: nobody outlined {', '.join(unseen)} in any case; nothing is learnt or scored of that there"
    if isinstance(source, FileSource) and source.unnamed:
        told = "; ".join(f"{value} in cases {listed(sorted(case_ids))}" for value, case_ids in sorted(source.unnamed.items()))
        rule = f"labels have values of no class, which count as background: {told}"
        yield f"{source.owner}: {rule}; where one of them marks a class, list the values of every class in label_values"
