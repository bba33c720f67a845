"""What a site can afford to annotate: a few cases, and perhaps only some of the classes and slices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import torch

from raykd.data.case import LABEL_UNKNOWN, Case
from raykd.data.sources._base import CaseKey
from raykd.scenario.errors import DataError, did_you_mean

ANNOTATED = "label_budget.annotated"
"""The record entry that lists the annotated class indices, as `1 3`."""
OUTLINED = "label_budget.slices"
"""The record entry that lists the outlined slices along the coarsest axis, as `2 7 12`."""


@dataclass(frozen=True)
class Split:
    """The cases of a site. A patient is in training (labelled, unlabelled), in validation or in the test, never in two of them."""

    labelled: tuple[CaseKey, ...]
    unlabelled: tuple[CaseKey, ...]
    validation: tuple[CaseKey, ...]
    test: tuple[CaseKey, ...]


def split_patients(
    keys: Sequence[CaseKey],
    *,
    num_shots: int,
    num_validation: int,
    num_test: int,
    rng: torch.Generator,
    num_unlabelled: int | None = None,
    has_label: Callable[[CaseKey], bool] = lambda key: True,
    owner: str = "the site",
) -> Split:
    """A random split by patient, in which test and validation depend on neither `num_shots` nor `num_unlabelled`, and fewer shots,
    or fewer unlabelled cases, are a subset of more.

    Patients are put in random order; the first make up the test, the next the validation, the others the training. The
    labelled cases are one of each training patient in turn, then a second one, and so on; a labelled patient's other cases stay in
    training, unlabelled. Where the last patient of test or validation has more cases than are wanted, the surplus is used nowhere.
    Test, validation and labelled cases are those that the source has a label of; a patient without one is left to training.

    Args:
        keys: all cases of the site; their order matters only within a patient.
        num_shots, num_validation, num_test: exact numbers of cases, at least 0.
        rng: from the same address for every `num_shots`.
        num_unlabelled: training cases without a label that are kept, an exact number; None: all that are left.
        has_label: whether the source has a case's label.
        owner: whose cases these are, for the error.

    Raises:
        DataError: there are too few cases, or none is wanted.
    """
    patients: dict[str, list[CaseKey]] = {}
    for key in keys:
        patients.setdefault(key.patient_id, []).append(key)
    names = sorted(patients)
    queue = [patients[names[index]] for index in torch.randperm(len(names), generator=rng).tolist()]
    test, queue = _take(queue, num_test, has_label)
    validation, queue = _take(queue, num_validation, has_label)
    training = [key for turn in zip_longest(*queue) for key in turn if key is not None]
    outlined = [key for key in training if has_label(key)]
    labelled = outlined[:num_shots]
    unlabelled = [key for key in training if key not in labelled]
    wanted, given = [num_test, num_validation, num_shots], [len(test), len(validation), len(outlined)]
    names_of_counts = ["num_test", "num_validation", "num_shots"]
    if num_unlabelled is not None:
        wanted, names_of_counts = [*wanted, num_unlabelled], [*names_of_counts, "num_unlabelled"]
    is_short = any(have < want for have, want in zip(given, wanted, strict=False))
    if is_short or len(unlabelled) < (num_unlabelled or 0):
        num_with = sum(map(has_label, keys))
        with_label = "" if num_with == len(keys) else f", {num_with} of them with a label,"
        raise DataError(
            f"{owner}: {' + '.join(names_of_counts)} must fit its cases, split by patient, "
            f"got {' + '.join(map(str, wanted))}, while its {len(keys)} cases of {len(patients)} patients{with_label} "
            f"give {' + '.join(map(str, given))}; lower one of them, or give the source more cases"
        )
    if not (labelled or validation or test or unlabelled[:num_unlabelled]):
        raise DataError(f"{owner}: a site must hold a case, got none of its {len(keys)}; raise num_test or num_shots")
    return Split(tuple(labelled), tuple(unlabelled[:num_unlabelled]), tuple(validation), tuple(test))


def all_tested(keys: Sequence[CaseKey], has_label: Callable[[CaseKey], bool], owner: str) -> Split:
    """The split of a site that takes no part in training. Raises `DataError` where no case has a label."""
    labelled = tuple(key for key in keys if has_label(key))
    if not labelled:
        raise DataError(f"{owner}: a site in held_out must have a labelled case to be tested on, got none; take it out of held_out")
    return Split((), (), (), labelled)


def _take(
    queue: list[list[CaseKey]], count: int, has_label: Callable[[CaseKey], bool]
) -> tuple[list[CaseKey], list[list[CaseKey]]]:
    """`count` cases with a label, from as few patients of the queue's head as hold them, and the patients that remain."""
    taken: list[CaseKey] = []
    remaining: list[list[CaseKey]] = []
    for cases in queue:
        own = [key for key in cases if has_label(key)] if len(taken) < count else []
        taken += own
        remaining += [] if own else [cases]
    return taken[:count], remaining


def limit_classes(case: Case, classes_all: Sequence[str], classes_annotated: Sequence[str]) -> Case:
    """The case as it looks when only some classes were outlined: what belongs to the others was left as background.

    Voxels of the other classes become 0, and `outlined` lists what is left of the case's own classes, so that 0 reads "none of the
    outlined classes"; the record says the same. A loss can then add up the probabilities of the background and of the classes not
    listed: the marginal loss of Shi et al., Medical Image Analysis 2021, https://arxiv.org/abs/2007.03868. Marking just the voxels
    of the other classes as unknown (255) would betray where those classes are. For training labels; a test keeps all classes that
    its own label was made for.

    Args:
        case: with or without labels; without, it is returned as it came.
        classes_all: the scenario's foreground classes, of labels 1, 2, ...
        classes_annotated: some of them, in any order; where these hold all that the case's own label was made for, the case is
            returned as it came.

    Raises:
        DataError: none is annotated, or one is not among `classes_all`.
    """
    for name in classes_annotated:
        if name not in classes_all:
            raise DataError(f"case {case.case_id}: annotated class {name!r} is not a class; {did_you_mean(name, classes_all)}")
    if not classes_annotated:
        raise DataError(
            f"case {case.case_id}: at least one class must be annotated, got none; for a site without labels set num_shots: 0"
        )
    wanted = [classes_all.index(name) + 1 for name in classes_all if name in classes_annotated]
    outlined = tuple(index for index in wanted if case.outlined is None or index in case.outlined)
    hidden = [index for index in range(1, len(classes_all) + 1) if index not in outlined]
    if case.label_IJK is None or not hidden:
        return case
    seen_as = torch.arange(256, dtype=torch.uint8)
    seen_as[hidden] = 0
    recorded = case.with_record(**{ANNOTATED: " ".join(map(str, outlined))})
    return replace(recorded, label_IJK=seen_as[case.label_IJK.long()], outlined=outlined)


def limit_slices(case: Case, share: float) -> Case:
    """The case as it looks when only some slices were outlined: the voxels of all others are unknown.

    Of n slices along the coarsest axis (the first of equals), round(share n) are kept, at least one: those that hold the middles
    of as many equal parts of the axis. For training labels; nothing is drawn.

    Args:
        case: with or without labels; without, it is returned as it came.
        share: more than 0; at 1 the case is returned as it came.
    """
    if case.label_IJK is None or share >= 1:
        return case
    axis = int(np.argmax(case.spacing_mm))
    size = case.shape[axis]
    count = max(1, round(share * size))
    outlined = [int((part + 0.5) * size / count) for part in range(count)]
    label_IJK = torch.full_like(case.label_IJK, LABEL_UNKNOWN)
    index = torch.tensor(outlined)
    label_IJK.index_copy_(axis, index, case.label_IJK.index_select(axis, index))
    return replace(case.with_record(**{OUTLINED: " ".join(map(str, outlined))}), label_IJK=label_IJK)
