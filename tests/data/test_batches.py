"""Batches: labelled patches first, cases in shuffled passes, no label where none was paid for, the same from the same generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from coded_cases import PLAIN, STRIDES, code_of, coded_case, decoded, flat_case, soft_label_of
from torch import Tensor

from raykd.data.patches import TrainingCase, batches
from raykd.numerics.local_sgd import Batch
from raykd.numerics.rng import generator
from raykd.scenario.training import Augmentation


def draw(labelled: Sequence[TrainingCase], unlabelled: Sequence[TrainingCase], seed: int = 0, **values: Any) -> list[Batch]:
    settings: dict[str, Any] = {"num_steps": 3, "num_labelled": 2, "num_unlabelled": 1, "foreground": 0.5, "augmentation": PLAIN}
    return list(batches(labelled, unlabelled, shape=(4, 4, 4), rng=generator(seed, "batches"), **settings | values))


def names(batch: Batch) -> list[float]:
    return batch.image_BCIJK[:, 0, 0, 0, 0].tolist()


LABELLED = [flat_case(float(n), label=True) for n in (1, 2, 3)]
UNLABELLED = [flat_case(float(n), label=False) for n in (11, 12)]


def test_labelled_patches_come_first() -> None:
    for batch in draw(LABELLED, UNLABELLED, num_labelled=3, num_unlabelled=2):
        assert batch.image_BCIJK.shape == (5, 1, 4, 4, 4) and batch.num_labelled == 3
        assert max(names(batch)[:3]) < 10 < min(names(batch)[3:])
        assert (
            batch.label_BIJK.shape == (3, 4, 4, 4) and batch.label_BIJK.dtype == torch.int64 and bool((batch.label_BIJK == 1).all())
        )


def test_cases_are_drawn_in_shuffled_passes() -> None:
    drawn = [name for batch in draw(LABELLED, UNLABELLED, num_steps=30, num_labelled=2) for name in names(batch)[:2]]
    passes = [tuple(drawn[at : at + 3]) for at in range(0, 60, 3)]
    assert all(sorted(one) == [1.0, 2.0, 3.0] for one in passes) and len(set(passes)) > 2


def test_an_unlabelled_patch_brings_no_label_even_where_its_case_has_one() -> None:
    (batch,) = draw(LABELLED, [flat_case(11.0, label=True)], num_steps=1, num_labelled=2, num_unlabelled=3)
    assert len(batch.image_BCIJK) == 5 and len(batch.label_BIJK) == batch.num_labelled == 2


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "counts", "expected"),
    [
        (LABELLED, [], (1, 0), (2, 2)),
        (LABELLED, [], (1, 2), (2, 2)),
        ([], UNLABELLED, (2, 1), (0, 2)),
        (LABELLED, UNLABELLED, (1, 1), (1, 2)),
        (LABELLED, UNLABELLED, (1, 0), (2, 2)),
        ([], UNLABELLED, (2, 3), (0, 3)),
    ],
)
def test_a_batch_is_never_of_a_single_patch(
    labelled: list[TrainingCase], unlabelled: list[TrainingCase], counts: tuple[int, int], expected: tuple[int, int]
) -> None:
    for batch in draw(labelled, unlabelled, num_labelled=counts[0], num_unlabelled=counts[1]):
        assert (batch.num_labelled, len(batch.image_BCIJK)) == expected and len(batch.label_BIJK) == expected[0]


def test_one_batch_a_step() -> None:
    assert len(draw(LABELLED, UNLABELLED, num_steps=7)) == 7


def everything(batch: Batch) -> list[Tensor]:
    assert batch.soft_label_BLIJK is not None and batch.entropy_BIJK is not None
    return [batch.image_BCIJK, batch.label_BIJK, batch.soft_label_BLIJK, batch.entropy_BIJK, *batch.features.values()]


def test_the_same_generator_gives_the_same_batches_and_another_gives_others() -> None:
    wild = Augmentation(flip=(0.5, 0.5, 0.5), contrast=0.5, gamma=0.2, bias_field=0.2, blur=1.0, noise=0.2)
    first, again, other = (draw([coded_case()], [coded_case(label=False)], seed, augmentation=wild) for seed in (0, 0, 1))
    for a, b, c in zip(first, again, other, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(everything(a), everything(b), strict=True))
        assert not torch.equal(a.image_BCIJK, c.image_BCIJK)


def test_drawing_batches_touches_no_global_state() -> None:
    before = torch.get_rng_state()
    draw([coded_case()], [coded_case(label=False)], augmentation=Augmentation(noise=0.2, contrast=0.5))
    assert torch.equal(torch.get_rng_state(), before)


def test_teacher_maps_are_collated_for_every_patch() -> None:
    for batch in draw([coded_case()], [coded_case(label=False)], num_labelled=2, num_unlabelled=1):
        soft_label, entropy = batch.soft_label_BLIJK, batch.entropy_BIJK
        assert soft_label is not None and entropy is not None
        for b in range(3):
            at = decoded(batch.image_BCIJK[b, 0])
            assert torch.equal(soft_label[b], soft_label_of(at)) and torch.equal(entropy[b], code_of(at).float())
            assert torch.equal(batch.features["bottleneck"][b, :, 0, 0, 0], at[:, 0, 0, 0] // torch.tensor(STRIDES["bottleneck"]))
        assert set(batch.features) == set(STRIDES)


def test_without_a_teacher_a_batch_has_no_maps() -> None:
    (batch,) = draw(LABELLED, UNLABELLED, num_steps=1)
    assert batch.soft_label_BLIJK is None and batch.entropy_BIJK is None and not batch.features
