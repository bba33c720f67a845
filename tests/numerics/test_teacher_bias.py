"""Corrections of a teacher by labels and by the proportions of classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from raykd.numerics.rng import generator
from raykd.numerics.teacher_bias import adjust_knowledge, anneal_teacher, estimate_prior, shift_prior

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


def test_a_shifted_prior_is_bayes_rule() -> None:
    """Likelihoods (0.8, 0.4) and priors (1/2, 1/2) give (2/3, 1/3); at a site of priors (1/5, 4/5) the same voxel is (1/3, 2/3)."""
    shifted = shift_prior(voxels((2 / 3, 1 / 3)), torch.tensor([0.5, 0.5]), torch.tensor([0.2, 0.8]))
    assert shifted.flatten().tolist() == pytest.approx([1 / 3, 2 / 3], rel=1e-6)


def test_a_shift_of_no_strength_or_to_the_same_prior_changes_nothing() -> None:
    soft, one, other = voxels((0.7, 0.2, 0.1)), torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.1, 0.1, 0.8])
    assert torch.allclose(shift_prior(soft, one, other, strength=0.0), soft)
    assert torch.allclose(shift_prior(soft, one, one), soft)
    assert not torch.allclose(shift_prior(soft, one, other), soft)


def posterior(prior: list[float], site: list[float]) -> Tensor:
    """What a calibrated teacher of a prior says of a site, whose values are drawn from classes 0 to 2 with probabilities 0.8 at the
    class's own and 0.1 at either other value; every value as often as it is expected among 1000 voxels."""
    likelihood = np.full((3, 3), 0.1) + 0.7 * np.eye(3)  # value by class
    joint = likelihood * prior
    said = joint / joint.sum(axis=1, keepdims=True)
    times = np.rint(1000 * likelihood @ site).astype(int)
    assert times.sum() == 1000
    return voxels(*(tuple(row) for row, number in zip(said, times, strict=True) for _ in range(number)))


def test_the_site_s_prior_is_found_from_a_calibrated_teacher_s_probabilities() -> None:
    """EM's fixed point is the maximum likelihood, which for exact frequencies is the truth."""
    prior, site = [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]
    soft = posterior(prior, site)
    naive = soft.mean(dim=(0, 2, 3, 4)).tolist()
    assert estimate_prior(soft, torch.tensor(prior)).tolist() == pytest.approx(site, abs=1e-4)
    assert max(abs(n - s) for n, s in zip(naive, site, strict=True)) > 0.05


def test_of_two_classes_the_estimate_is_the_maximum_of_the_likelihood_found_by_another_optimiser() -> None:
    soft = torch.softmax(2 * torch.randn((1, 2, 5, 6, 7), generator=generator(0, "two"), dtype=torch.float64), dim=1)
    prior = torch.tensor([0.7, 0.3], dtype=torch.float64)
    ratio = (soft[0] / prior[:, None, None, None]).flatten(1).numpy()

    def minus_log_likelihood(share: float) -> float:
        return -float(np.log((1 - share) * ratio[0] + share * ratio[1]).sum())

    best = minimize_scalar(minus_log_likelihood, bounds=(1e-6, 1 - 1e-6), method="bounded", options={"xatol": 1e-9}).x
    assert estimate_prior(soft, prior)[1].item() == pytest.approx(best, abs=1e-5)


def test_a_site_like_the_repository_has_its_prior() -> None:
    prior = [0.5, 0.3, 0.2]
    assert estimate_prior(posterior(prior, prior), torch.tensor(prior)).tolist() == pytest.approx(prior, abs=1e-6)


def test_a_class_that_the_teacher_never_sees_is_not_there() -> None:
    found = estimate_prior(voxels((0.5, 0.5, 0.0), (0.2, 0.8, 0.0)), torch.tensor([0.4, 0.4, 0.2]))
    assert found[2].item() == 0.0 and found.sum().item() == pytest.approx(1.0)
