"""What is sent in a teacher's place, worked out by hand for two or three classes in a row of voxels."""

from __future__ import annotations

import math

import pytest
import torch

from raykd.numerics.prototypes import ClassStatistics, episodic_loss
from raykd.numerics.sent_knowledge import (
    affinity_loss,
    alignment_loss,
    class_cosines,
    comparable_label,
    comparable_labels,
    from_top_classes,
    top_classes,
)

LABEL = torch.tensor([[[[0, 0, 1, 1]]]])
"""One patch of four voxels, two of either class."""


def feature(*channels: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(channels)[None, :, None, None, :]


@pytest.mark.parametrize(
    ("known", "annotated", "expected"),
    [
        (None, None, [0, 1, 2, 255]),
        ((1,), None, [0, 1, 0, 255]),
        (None, (1, 2), [255, 1, 2, 255]),
        ((1,), (1, 2), [0, 1, 0, 255]),
        ((1, 3), (1, 2), [255, 1, 0, 255]),
    ],
)
def test_labels_are_put_in_the_words_of_a_teacher(
    known: tuple[int, ...] | None, annotated: tuple[int, ...] | None, expected: list[int]
) -> None:
    """The fourth voxel is unknown to all; a background that may be a class that the teacher knows becomes so."""
    assert comparable_label(torch.tensor([0, 1, 2, 255]), known, annotated).tolist() == expected


def test_the_background_of_a_patch_is_unknown_where_classes_of_the_teacher_hide_in_it() -> None:
    label = torch.tensor([0, 1]).view(1, 2, 1, 1).repeat(3, 1, 1, 1)
    found = comparable_labels(label, (1, 2), [None, (1,), (1, 2)])
    assert found.flatten(1).tolist() == [[0, 1], [255, 1], [0, 1]]
    assert comparable_labels(label[:0], None, []).shape == (0, 2, 1, 1)


def test_cosines_are_those_between_the_classes_mean_features() -> None:
    """Means (1, 0) and (1, 1): 45 degrees. No pair holds class 2."""
    cosines, both = class_cosines(feature((1.0, 1.0, 1.0, 1.0), (1.0, -1.0, 1.0, 1.0)), LABEL, 3)
    assert both.tolist() == [[True, False, False]]
    assert float(cosines[0, 0]) == pytest.approx(math.sqrt(0.5), rel=1e-5)


def test_affinity_counts_pairs_that_both_sides_have_seen() -> None:
    maps, sent = feature((1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)), torch.tensor([0.5, 9.0, 9.0])
    loss = affinity_loss(maps, LABEL, sent, torch.tensor([True, True, True]), 3)
    assert float(loss) == pytest.approx((math.sqrt(0.5) - 0.5) ** 2, rel=1e-5)
    assert float(affinity_loss(maps, LABEL, sent, torch.tensor([False, True, True]), 3)) == 0.0


def test_alignment_is_the_distance_of_means_in_units_of_the_teachers_spread() -> None:
    """Means 1 and 4 against 0 and 2 with variances 4 and 2: (1/4 + 4/2) / 2. Class 2 was never sent or never seen."""
    teacher = ClassStatistics(
        torch.tensor([[0.0], [2.0], [7.0]]), torch.tensor([[4.0], [2.0], [1.0]]), torch.tensor([5.0, 5.0, 5.0])
    )
    assert float(alignment_loss(feature((0.0, 2.0, 3.0, 5.0)), LABEL, teacher)) == pytest.approx(1.125)
    only_one = ClassStatistics(teacher.mean_CF, teacher.variance_CF, torch.tensor([5.0, 0.0, 5.0]))
    assert float(alignment_loss(feature((0.0, 2.0, 3.0, 5.0)), LABEL, only_one)) == pytest.approx(0.25)


def test_alignment_of_what_was_never_spread_is_finite() -> None:
    teacher = ClassStatistics(torch.zeros(2, 1), torch.zeros(2, 1), torch.ones(2))
    assert math.isfinite(float(alignment_loss(feature((1.0, 1.0, 1.0, 1.0)), LABEL, teacher)))


def test_what_is_left_of_one_is_shared_by_the_classes_that_were_not_kept() -> None:
    probs = torch.tensor([0.125, 0.5, 0.25, 0.125]).view(1, 4, 1, 1, 1)
    values, classes = top_classes(probs, 2)
    assert (values.dtype, classes.dtype) == (torch.float16, torch.uint8)
    assert (values.flatten().tolist(), classes.flatten().tolist()) == ([0.5, 0.25], [1, 2])
    torch.testing.assert_close(from_top_classes(values, classes, 4), probs)
    one = from_top_classes(*top_classes(probs, 1), 4).flatten()
    torch.testing.assert_close(one, torch.tensor([1 / 6, 1 / 2, 1 / 6, 1 / 6]))


def test_all_classes_may_be_kept() -> None:
    probs = torch.tensor([0.75, 0.25]).view(1, 2, 1, 1, 1)
    torch.testing.assert_close(from_top_classes(*top_classes(probs, 9), 2), probs)


def test_an_episode_asks_each_patch_of_the_prototypes_of_the_others() -> None:
    """Patch 0 has class 0 at (1, 0) and 1 at (0, 1); patch 1 has them swapped: each cell has cosine 0 with its own class's
    prototype and 1 with the other's, so -log softmax = log(1 + e^2) at temperature 1/2."""
    first, second = feature((1.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 1.0)), feature((0.0, 0.0, 1.0, 1.0), (1.0, 1.0, 0.0, 0.0))
    maps, label = torch.cat([first, second]), torch.cat([LABEL, LABEL])
    loss = episodic_loss(maps, label, 2, temperature=0.5)
    assert float(loss) == pytest.approx(math.log1p(math.exp(2.0)), rel=1e-5)
    agreeing = episodic_loss(torch.cat([first, first]), label, 2, temperature=0.5)
    assert float(agreeing) == pytest.approx(math.log1p(math.exp(-2.0)), rel=1e-5)
    assert float(episodic_loss(first, LABEL, 2)) == 0.0
