"""From scores to label maps: what NumPy's argmax says, and the lower of equals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raykd.numerics.label_map import best_class
from raykd.numerics.rng import generator


@pytest.mark.parametrize("num_classes", [1, 2, 5])
def test_the_best_class_is_the_first_of_the_largest_scores(num_classes: int) -> None:
    # Whole numbers from few, so that most voxels have equals.
    scores = torch.randint(-2, 3, (num_classes, 4, 5, 6), generator=generator(1, "scores")).float()
    assert np.array_equal(best_class(scores).numpy(), np.argmax(scores.numpy(), axis=0))


def test_a_label_map_is_a_byte_a_voxel() -> None:
    label = best_class(torch.zeros(3, 2, 3, 4))
    assert label.dtype == torch.uint8 and label.shape == (2, 3, 4)


def test_the_scores_are_left_alone() -> None:
    scores = torch.randn((3, 2, 2, 2), generator=generator(2, "scores"))
    before = scores.clone()
    best_class(scores)
    assert torch.equal(scores, before)
