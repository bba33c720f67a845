"""Splits that keep patients apart and shots nested, and labels of which only some classes were outlined."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from raykd.data.case import Case, affine_from_spacing
from raykd.data.heterogeneity.label_budget import ANNOTATED, OUTLINED, Split, limit_classes, limit_slices, split_patients
from raykd.data.patches import training_case
from raykd.data.sources._base import CaseKey
from raykd.federation.evaluation import support_scores
from raykd.numerics.rng import generator
from raykd.numerics.segmentation_losses import dice_ce_loss
from raykd.scenario.errors import DataError

CLASSES = ("femur", "tibia", "patella")


def keys_of(cases_per_patient: list[int]) -> list[CaseKey]:
    return [CaseKey(f"p{p}-{visit}", f"p{p}") for p, count in enumerate(cases_per_patient) for visit in range(count)]


def patients(keys: tuple[CaseKey, ...]) -> set[str]:
    return {key.patient_id for key in keys}


def split(keys: list[CaseKey], num_shots: int, num_validation: int, num_test: int, seed: int = 0) -> Split:
    rng = generator(seed, "split", "site")
    return split_patients(keys, num_shots=num_shots, num_validation=num_validation, num_test=num_test, rng=rng)


COHORTS = st.lists(st.integers(1, 4), min_size=1, max_size=12)
COUNTS = st.integers(0, 5)
SAME_EVERY_TIME = settings(derandomize=True, deadline=None)


@SAME_EVERY_TIME
@given(COHORTS, COUNTS, COUNTS, COUNTS, st.integers(0, 2**31 - 1))
def test_counts_are_exact_and_patients_apart(cohort: list[int], shots: int, validation: int, test: int, seed: int) -> None:
    keys = keys_of(cohort)
    # Each side leaves out at most 3 cases of its last patient, so that this many cases always suffice.
    assume(len(keys) >= shots + validation + test + 6)
    result = split(keys, shots, validation, test, seed)
    assert [len(part) for part in (result.labelled, result.validation, result.test)] == [shots, validation, test]
    training = result.labelled + result.unlabelled
    sides = [patients(training), patients(result.validation), patients(result.test)]
    assert sum(len(side) for side in sides) == len(set().union(*sides))
    everything = training + result.validation + result.test
    assert len(set(everything)) == len(everything) and set(everything) <= set(keys)
    assert {key for key in keys if key.patient_id in patients(training)} == set(training)
    # No patient is left out as a whole.
    assert set().union(*sides) == patients(tuple(keys))


@SAME_EVERY_TIME
@given(COHORTS, COUNTS, COUNTS, st.integers(0, 2**31 - 1))
def test_shots_are_nested(cohort: list[int], validation: int, test: int, seed: int) -> None:
    keys = keys_of(cohort)
    assume(len(keys) >= validation + test + 8)
    fewer, more = split(keys, 1, validation, test, seed), split(keys, 2, validation, test, seed)
    assert (fewer.test, fewer.validation) == (more.test, more.validation)
    assert more.labelled[:1] == fewer.labelled
    assert set(more.labelled + more.unlabelled) == set(fewer.labelled + fewer.unlabelled)


def test_shots_come_from_different_patients_first() -> None:
    result = split(keys_of([3, 3, 3, 3]), num_shots=3, num_validation=0, num_test=3)
    assert len(patients(result.labelled)) == 3


def test_order_of_patients_in_the_source_does_not_matter() -> None:
    keys = keys_of([1] * 10)
    assert split(keys, 2, 2, 3) == split(keys[::-1], 2, 2, 3)


def test_another_address_gives_another_split() -> None:
    keys = keys_of([1] * 30)
    assert split(keys, 3, 3, 3, seed=0) == split(keys, 3, 3, 3, seed=0)
    assert split(keys, 3, 3, 3, seed=0) != split(keys, 3, 3, 3, seed=1)


def test_every_patient_gets_its_turn_in_the_test() -> None:
    keys = keys_of([1] * 6)
    drawn = [split(keys, 0, 0, 1, seed).test[0].patient_id for seed in range(100)]
    assert set(drawn) == patients(tuple(keys))


def test_impossible_requests_name_the_counts() -> None:
    with pytest.raises(DataError, match=r"got 4 \+ 1 \+ 2, while its 5 cases of 5 patients give 4 \+ 1 \+ 0; lower one"):
        split(keys_of([1] * 5), num_shots=2, num_validation=1, num_test=4)
    # One patient with enough cases cannot be on both sides.
    with pytest.raises(DataError, match="1 patients"):
        split(keys_of([9]), num_shots=1, num_validation=0, num_test=1)


def case_with(label: list[int] | None) -> Case:
    label_IJK = None if label is None else torch.tensor(label, dtype=torch.uint8).reshape(1, 1, -1)
    return Case("c", "p", torch.zeros(1, 1, 1, 5), label_IJK, np.eye(4), {"phantom.age": 3.0})


def test_classes_not_outlined_look_like_background() -> None:
    case = case_with([0, 1, 2, 3, 255])
    limited = limit_classes(case, CLASSES, ("patella", "femur"))
    assert limited.label_IJK is not None and limited.label_IJK.dtype == torch.uint8
    assert limited.label_IJK.flatten().tolist() == [0, 1, 0, 3, 255]
    assert limited.record[ANNOTATED] == "1 3"
    assert limited.record["phantom.age"] == 3.0
    assert case.label_IJK is not None and case.label_IJK.flatten().tolist() == [0, 1, 2, 3, 255]


def test_nothing_to_hide() -> None:
    full, unlabelled = case_with([0, 1, 2, 3, 255]), case_with(None)
    assert limit_classes(full, CLASSES, CLASSES) is full
    assert ANNOTATED not in full.record
    assert limit_classes(unlabelled, CLASSES, ("femur",)) is unlabelled


@pytest.mark.parametrize(("annotated", "message"), [(("tibbia",), "did you mean 'tibia'"), ((), "num_shots: 0")])
def test_refused_classes(annotated: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        limit_classes(case_with([0, 1, 2, 3, 255]), CLASSES, annotated)


@SAME_EVERY_TIME
@given(COHORTS, COUNTS, COUNTS, COUNTS, st.integers(0, 2**31 - 1))
def test_unlabelled_cases_are_nested_and_touch_no_other_side(
    cohort: list[int], shots: int, test: int, unlabelled: int, seed: int
) -> None:
    keys = keys_of(cohort)
    assume(len(keys) >= shots + test + unlabelled + 8)
    everything, fewer, more = (
        split_patients(
            keys, num_shots=shots, num_validation=1, num_test=test, num_unlabelled=n, rng=generator(seed, "split", "site")
        )
        for n in (None, unlabelled, unlabelled + 1)
    )
    assert (len(fewer.unlabelled), len(more.unlabelled)) == (unlabelled, unlabelled + 1)
    assert more.unlabelled[:unlabelled] == fewer.unlabelled and everything.unlabelled[: unlabelled + 1] == more.unlabelled
    for part in (fewer, more):
        assert (part.labelled, part.validation, part.test) == (everything.labelled, everything.validation, everything.test)


def test_more_unlabelled_cases_than_there_are_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"num_shots \+ num_unlabelled must fit .* got 1 \+ 0 \+ 2 \+ 3, .* give 1 \+ 0 \+ 4; lower"
    ):
        split_patients(
            keys_of([1] * 5), num_shots=2, num_validation=0, num_test=1, num_unlabelled=3, rng=generator(0, "split", "site")
        )


def labelled_grid(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Case:
    label_IJK = torch.randint(0, 4, shape, generator=generator(0, "test"), dtype=torch.uint8)
    return Case("c", "p", torch.zeros(1, *shape), label_IJK, affine_from_spacing(spacing_mm, shape))


@pytest.mark.parametrize(("share", "expected"), [(0.2, [2, 7]), (0.3, [1, 5, 8]), (0.01, [5]), (0.5, [1, 3, 5, 7, 9])])
def test_outlined_slices_are_evenly_spaced_along_the_coarsest_axis(share: float, expected: list[int]) -> None:
    """Of 10 slices, the middles of 2, 3, 1 and 5 equal parts: 2.5 and 7.5; 1.67, 5 and 8.33; 5; 1, 3, 5, 7 and 9."""
    case = labelled_grid((6, 10, 7), (1.0, 4.0, 2.0))
    sparse = limit_slices(case, share)
    assert case.label_IJK is not None and sparse.label_IJK is not None
    others = [index for index in range(10) if index not in expected]
    assert torch.equal(sparse.label_IJK[:, expected], case.label_IJK[:, expected])
    assert bool((sparse.label_IJK[:, others] == 255).all())
    assert sparse.record[OUTLINED] == " ".join(str(index) for index in expected)
    assert not bool((case.label_IJK == 255).any())


@pytest.mark.parametrize("share", [0.05, 0.25, 0.4, 0.8])
def test_the_share_of_known_voxels_is_the_share_of_slices(share: float) -> None:
    sparse = limit_slices(labelled_grid((40, 3, 3), (3.0, 1.0, 1.0)), share)
    assert sparse.label_IJK is not None
    assert float((sparse.label_IJK != 255).float().mean()) == pytest.approx(share)


def test_all_slices_or_no_label_is_nothing_to_do() -> None:
    case, unlabelled = labelled_grid((4, 5, 6), (1.0, 1.0, 1.0)), case_with(None)
    assert limit_slices(case, 1.0) is case and limit_slices(unlabelled, 0.2) is unlabelled


def test_patches_are_placed_by_outlined_voxels_and_unknown_ones_teach_nothing() -> None:
    """From slices to gradient: what nobody outlined moves no logit, and no patch is drawn around it."""
    sparse = limit_slices(labelled_grid((8, 6, 6), (3.0, 1.0, 1.0)), 0.25)
    prepared = training_case(sparse)
    assert prepared.label_IJK is not None and set(prepared.foreground) == {1, 2, 3}
    slices = {int(index) // 36 for voxels in prepared.foreground.values() for index in voxels}
    assert slices == {2, 6}
    logits = torch.randn((1, 4, 8, 6, 6), generator=generator(1, "test"), requires_grad=True)
    for annotated in (None, (1, 3)):
        (gradient,) = torch.autograd.grad(dice_ce_loss(logits, prepared.label_IJK[None].long(), annotated), logits)
        moved = gradient.abs().sum(dim=(0, 1, 3, 4)) > 0
        assert moved.nonzero().flatten().tolist() == [2, 6]
    unknown = torch.full((1, 8, 6, 6), 255)
    (gradient,) = torch.autograd.grad(dice_ce_loss(logits, unknown), logits)
    assert not bool(gradient.any())


def test_scores_on_sparse_labels_count_outlined_slices_only() -> None:
    label = torch.zeros((4, 2, 2), dtype=torch.uint8)
    label[:2], label[3] = 1, 255
    predicted = torch.zeros((4, 2, 2), dtype=torch.uint8)
    predicted[1:] = 1
    # Known: slices 0 to 2. The reference has 0 and 1, the prediction 1 and 2: a Dice of 2 * 1 / (2 + 2).
    assert support_scores([(predicted, label)], 2) == [(0.5, 1), (0.0, 0)]


def _half_outlined(key: CaseKey) -> bool:
    return int(key.case_id.split("-")[-1]) % 2 == 0


@pytest.mark.parametrize("seed", range(5))
def test_what_is_judged_and_learnt_from_has_a_label_where_half_of_the_cases_have_none(seed: int) -> None:
    """Twelve patients of one case; those of even number are outlined. All others are training cases without a label."""
    keys = [CaseKey(f"case-{index}", f"patient-{index}") for index in range(12)]
    rng = generator(seed, "split", "here")
    split = split_patients(keys, num_shots=2, num_validation=1, num_test=3, rng=rng, has_label=_half_outlined)
    assert [len(part) for part in (split.labelled, split.validation, split.test, split.unlabelled)] == [2, 1, 3, 6]
    assert all(_half_outlined(key) for key in (*split.labelled, *split.validation, *split.test))
    assert not any(_half_outlined(key) for key in split.unlabelled)


def test_a_source_with_too_few_labels_is_refused_before_anything_is_read() -> None:
    keys = [CaseKey(f"case-{index}", f"patient-{index}") for index in range(12)]
    rng = generator(0, "split", "here")
    with pytest.raises(DataError, match="12 cases of 12 patients, 6 of them with a label, give 4 \\+ 0 \\+ 2"):
        split_patients(keys, num_shots=3, num_validation=0, num_test=4, rng=rng, has_label=_half_outlined)
