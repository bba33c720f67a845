"""Ensembles of models that know different classes, by hand on a single voxel."""

from __future__ import annotations

import torch
from torch import Tensor

from raykd.numerics.ensemble import ensemble_logits


def _voxel(*scores: float) -> Tensor:
    return torch.tensor(scores).view(1, -1, 1, 1, 1)


ONE, OTHER, PARTIAL = _voxel(1.0, 2.0, 3.0), _voxel(3.0, 6.0, -1.0), _voxel(100.0, 4.0, 50.0)


def test_models_that_know_all_are_averaged_plainly() -> None:
    assert ensemble_logits([ONE, OTHER], [None, None]).flatten().tolist() == [2.0, 4.0, 1.0]


def test_a_model_has_no_say_in_a_class_that_it_does_not_know_nor_in_the_background() -> None:
    said = ensemble_logits([ONE, OTHER, PARTIAL], [None, None, (1,)])
    assert said.flatten().tolist() == [2.0, (2.0 + 6.0 + 4.0) / 3, 1.0]


def test_what_no_model_knows_is_the_mean_of_all() -> None:
    """Background and class 2 here."""
    assert ensemble_logits([ONE, PARTIAL], [(1,), (1,)]).flatten().tolist() == [50.5, 3.0, 26.5]
