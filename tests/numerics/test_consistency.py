"""Pseudo-labels, mixed images, mean responses and class relations, by hand on a few voxels."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raykd.numerics.consistency import (
    believed_share,
    mean_relations,
    mean_response,
    mix_share,
    mixed_label_loss,
    pseudo_label_loss,
    pseudo_labels,
    relation_loss,
    relation_matrix,
)
from raykd.numerics.prototypes import class_sums


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _voxels(*columns: tuple[float, ...]) -> Tensor:
    """One patch of 1 x 1 x K voxels, a tuple of class values each."""
    return torch.tensor(columns).T[None, :, None, None]


PROBS = _voxels((0.9, 0.06, 0.04), (0.2, 0.7, 0.1), (0.4, 0.35, 0.25), (0.1, 0.1, 0.8))


def test_a_pseudo_label_is_the_most_probable_class_where_that_is_believed() -> None:
    assert pseudo_labels(PROBS, 0.7).flatten().tolist() == [0, 1, 255, 2]
    assert pseudo_labels(PROBS, 0.75).flatten().tolist() == [0, 255, 255, 2]


@pytest.mark.parametrize(("threshold", "share"), [(0.0, 1.0), (0.75, 0.5), (1.01, 0.0)])
def test_the_threshold_says_how_much_is_believed(threshold: float, share: float) -> None:
    assert believed_share(pseudo_labels(PROBS, threshold)) == share


def test_pseudo_labels_pass_no_gradient() -> None:
    probs = PROBS.clone().requires_grad_()
    assert not pseudo_labels(probs, 0.5).requires_grad


LOGITS = _voxels((math.log(3.0), 0.0), (0.0, 0.0), (5.0, -5.0), (0.0, math.log(7.0)))


def test_voxels_that_are_not_believed_weigh_the_loss_down() -> None:
    """Probabilities of the labels are 3/4 and 1/8; two of four voxels count, and all four divide."""
    pseudo = torch.tensor([[[[0, 255, 255, 0]]]])
    assert float(pseudo_label_loss(LOGITS, pseudo)) == pytest.approx((math.log(4 / 3) + math.log(8)) / 4, rel=1e-6)


def test_where_nothing_is_believed_nothing_is_learnt() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = pseudo_label_loss(logits, torch.full((1, 1, 1, 4), 255))
    loss.backward()
    assert float(loss.detach()) == 0.0 and logits.grad is not None and not logits.grad.any()


def test_a_mixed_image_has_both_labels_by_their_shares() -> None:
    """At the last voxel: 0.3 * -ln(1/8) + 0.7 * -ln(7/8); the second's label alone does not count, as at the second voxel."""
    first, second = torch.tensor([[[[255, 255, 255, 0]]]]), torch.tensor([[[[255, 1, 255, 1]]]])
    expected = (0.3 * math.log(8) + 0.7 * math.log(8 / 7)) / 4
    assert float(mixed_label_loss(LOGITS, first, second, 0.3)) == pytest.approx(expected, rel=1e-6)


def test_shares_of_mixed_images_follow_their_beta_distribution() -> None:
    """Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)), 0.1 for a = 0.75."""
    rng = _rng()
    shares = torch.tensor([mix_share(0.75, rng) for _ in range(4000)], dtype=torch.float64)
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(shares.var()) == pytest.approx(0.1, abs=0.005)
    assert mix_share(0.75, _rng(1)) == mix_share(0.75, _rng(1))


class _Recorded(nn.Module):
    """Gives logits from a list, whatever it sees, and keeps what it saw."""

    def __init__(self, *logits: tuple[float, ...]):
        super().__init__()
        self.logits, self.seen = list(logits), []
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, image_BCIJK: Tensor) -> Tensor:
        self.seen.append(image_BCIJK)
        return self.scale * _voxels(self.logits[len(self.seen) - 1])


def test_a_mean_response_averages_probabilities_and_not_logits() -> None:
    """(1/4, 3/4) and (1/2, 1/2)."""
    model = _Recorded((0.0, math.log(3.0)), (0.0, 0.0))
    response = mean_response(model, torch.zeros(1, 1, 1, 1, 1), 2, 0.1, _rng())
    assert response.flatten().tolist() == pytest.approx([0.375, 0.625])
    assert not response.requires_grad


def test_every_pass_of_a_mean_response_sees_noise_of_its_own() -> None:
    model = _Recorded((0.0, 0.0), (0.0, 0.0), (0.0, 0.0))
    mean_response(model, torch.full((1, 1, 2, 2, 2), 3.0), 3, 0.1, _rng())
    offsets = [seen - 3.0 for seen in model.seen]
    assert len(offsets) == 3
    assert all(0.0 < float(offset.abs().max()) <= 0.1 + 1e-6 for offset in offsets)
    assert not offsets[0].equal(offsets[1])


def test_a_relation_matrix_is_the_softened_mean_of_each_classs_logits() -> None:
    """Class 0: mean logits (2 ln 3, 0) over two voxels, halved by the temperature: (3/4, 1/4). Nobody is of class 1; 255 is of
    none."""
    logits = _voxels((math.log(9.0) + 1.0, 0.5), (math.log(9.0) - 1.0, -0.5), (9.0, 9.0))
    matrix = relation_matrix(*class_sums(logits, torch.tensor([[[[0, 0, 255]]]]), 2), 2.0)
    assert matrix.flatten().tolist() == pytest.approx([0.75, 0.25, 0.0, 0.0])


def test_relations_are_averaged_over_those_that_know_the_class() -> None:
    one, other = torch.tensor([[0.8, 0.2], [0.0, 0.0]]), torch.tensor([[0.6, 0.4], [0.1, 0.9]])
    assert mean_relations([one, other]).flatten().tolist() == pytest.approx([0.7, 0.3, 0.1, 0.9])
    assert not mean_relations([torch.zeros(2, 2)] * 2).any()


OWN = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [0.0, 0.0, 0.0]])
SHARED = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 0.0], [0.3, 0.3, 0.4]])


def test_relations_are_matched_where_both_are_known() -> None:
    """The first class alone: half of sum (p - q) ln(p / q) = 0.25 (ln 2 - ln(2/3)) / 2 = ln(3) / 8."""
    assert float(relation_loss(OWN, SHARED)) == pytest.approx(math.log(3.0) / 8, rel=1e-5)


def test_relation_loss_is_the_mean_of_both_divergences_over_classes() -> None:
    own, shared = (torch.softmax(torch.randn((4, 4), generator=_rng(seed)), dim=1) for seed in (1, 2))
    both = F.kl_div(own.log(), shared, reduction="batchmean") + F.kl_div(shared.log(), own, reduction="batchmean")
    assert float(relation_loss(own, shared)) == pytest.approx(float(both) / 2, rel=1e-5)


def test_relations_that_nobody_shares_cost_nothing_and_keep_the_gradient_finite() -> None:
    logits = torch.zeros((3, 3), requires_grad=True)
    matrix = relation_matrix(logits, torch.tensor([1.0, 0.0, 0.0]), 2.0)
    loss = relation_loss(matrix, torch.zeros(3, 3))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())
