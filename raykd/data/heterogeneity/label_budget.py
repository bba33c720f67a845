"""What a site can afford to annotate: a few cases, and perhaps only some of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch

from raykd.data.case import Case
from raykd.data.sources._base import CaseKey
from raykd.scenario.errors import DataError, did_you_mean

ANNOTATED = "label_budget.annotated"
"""The record entry that lists the annotated class indices, as `1 3`."""


@dataclass(frozen=True)
class Split:
    """The cases of a site. A patient is in training (labelled, unlabelled), in validation or in the test, never in two of them."""

    labelled: tuple[CaseKey, ...]
    unlabelled: tuple[CaseKey, ...]
    validation: tuple[CaseKey, ...]
    test: tuple[CaseKey, ...]


def split_patients(
    keys: Sequence[CaseKey], *, num_shots: int, num_validation: int, num_test: int, rng: torch.Generator, owner: str = "the site"
) -> Split:
    """A random split by patient, in which test and validation do not depend on `num_shots` and fewer shots are a subset of more.

    Patients are put in random order; the first make up the test, the next the validation, the others the training. The
    labelled cases are one of each training patient in turn, then a second one, and so on; a labelled patient's other cases stay in
    training, unlabelled. Where the last patient of test or validation has more cases than are wanted, the surplus is used nowhere.

    Args:
        keys: all cases of the site; their order matters only within a patient.
        num_shots, num_validation, num_test: exact numbers of cases, at least 0.
        rng: from the same address for every `num_shots`.
        owner: whose cases these are, for the error.

    Raises:
        DataError: there are too few cases.
    """
    patients: dict[str, list[CaseKey]] = {}
    for key in keys:
        patients.setdefault(key.patient_id, []).append(key)
    names = sorted(patients)
    queue = [patients[names[index]] for index in torch.randperm(len(names), generator=rng).tolist()]
    test, queue = _take(queue, num_test)
    validation, queue = _take(queue, num_validation)
    training = [key for turn in zip_longest(*queue) for key in turn if key is not None]
    if len(test) < num_test or len(validation) < num_validation or len(training) < num_shots:
        raise DataError(
            f"{owner}: num_test + num_validation + num_shots must fit its cases, split by patient, "
            f"got {num_test} + {num_validation} + {num_shots}, while its {len(keys)} cases of {len(patients)} patients "
            f"give {len(test)} + {len(validation)} + {len(training)}; lower one of the three, or give the source more cases"
        )
    return Split(tuple(training[:num_shots]), tuple(training[num_shots:]), tuple(validation), tuple(test))


def _take(queue: list[list[CaseKey]], count: int) -> tuple[list[CaseKey], list[list[CaseKey]]]:
    """`count` cases from as few patients of the queue's head as hold them, and the patients that remain."""
    taken: list[CaseKey] = []
    num_patients = 0
    while len(taken) < count and num_patients < len(queue):
        taken += queue[num_patients]
        num_patients += 1
    return taken[:count], queue[num_patients:]


def limit_classes(case: Case, classes_all: Sequence[str], classes_annotated: Sequence[str]) -> Case:
    """The case as it looks when only some classes were outlined: what belongs to the others was left as background.

    Voxels of the other classes become 0, and the record lists the annotated indices, so that 0 reads "none of the annotated
    classes". A loss can then add up the probabilities of the background and of the classes not listed: the marginal loss of Shi et
    al., Medical Image Analysis 2021, https://arxiv.org/abs/2007.03868. Marking just the voxels of the other classes as unknown
    (255) would betray where those classes are. For training labels; a test keeps all classes.

    Args:
        case: with or without labels; without, it is returned as it came.
        classes_all: the scenario's foreground classes, of labels 1, 2, ...
        classes_annotated: some of them, in any order; all: the case is returned as it came.

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
    hidden = [index for index, name in enumerate(classes_all, start=1) if name not in classes_annotated]
    if case.label_IJK is None or not hidden:
        return case
    seen_as = torch.arange(256, dtype=torch.uint8)
    seen_as[hidden] = 0
    indices = " ".join(str(index) for index in range(1, len(classes_all) + 1) if index not in hidden)
    return replace(case.with_record(**{ANNOTATED: indices}), label_IJK=seen_as[case.label_IJK.long()])
