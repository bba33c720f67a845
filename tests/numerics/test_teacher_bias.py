"""Corrections of a teacher by labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raykd.numerics.rng import generator
from raykd.numerics.teacher_bias import adjust_knowledge, anneal_teacher

UNKNOWN = 255


def voxels(*probs: tuple[float, ...]) -> Tensor:
    """One patch of as many voxels as there are soft labels."""
    return torch.tensor(probs, dtype=torch.float64).T[None, :, :, None, None]


def listed(probs_BLIJK: Tensor) -> list[list[float]]:
    return [[round(p, 12) for p in voxel] for voxel in probs_BLIJK[0, :, :, 0, 0].T.tolist()]


def label(*classes: int) -> Tensor:
    return torch.tensor(classes)[None, :, None, None]


def test_where_the_teacher_errs_its_class_and_the_true_one_swap_probabilities() -> None:
    soft = voxels((0.7, 0.2, 0.1), (0.7, 0.2, 0.1), (0.1, 0.3, 0.6), (0.7, 0.2, 0.1))
    adjusted = adjust_knowledge(soft, label(0, 1, 0, UNKNOWN))
    assert listed(adjusted) == [[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.7, 0.2, 0.1]]
    assert listed(soft)[1] == [0.7, 0.2, 0.1]


def test_adjusted_knowledge_is_right_wherever_the_label_is_known_and_as_sure_as_before() -> None:
    soft = torch.softmax(torch.randn((2, 4, 3, 3, 3), generator=generator(0, "soft")), dim=1)
    truth = torch.randint(4, (2, 3, 3, 3), generator=generator(0, "label"))
    adjusted = adjust_knowledge(soft, truth)
    assert torch.equal(adjusted.argmax(dim=1), truth)
    assert torch.equal(adjusted.sort(dim=1).values, soft.sort(dim=1).values)


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]]),
        (0.25, [[0.525, 0.4, 0.075], [0.5, 0.3, 0.2]]),
        (1.0, [[0.0, 1.0, 0.0], [0.5, 0.3, 0.2]]),
    ],
)
def test_annealing_leads_from_the_teacher_to_the_label_where_it_is_known(share: float, expected: list[list[float]]) -> None:
    assert listed(anneal_teacher(voxels((0.7, 0.2, 0.1), (0.5, 0.3, 0.2)), label(1, UNKNOWN), share)) == expected
