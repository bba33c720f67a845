"""Attacks succeed where everything speaks for them, and fail where the upload says nothing."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from raykd.numerics.image_similarity import correlation, psnr_db, ssim
from raykd.numerics.inversion import Effort, cosine_distance, invert_gradient, invert_prototypes, total_variation
from raykd.numerics.membership import (
    auc,
    auc_variance,
    interval,
    least_p,
    p_of_chance,
    pooled,
    rate_variance,
    true_positive_rate,
)
from raykd.numerics.rng import generator, numpy_generator

EFFORT = Effort(num_steps=60, learning_rate=0.2, smoothness=1e-3)


def _smooth_image() -> Tensor:
    i, j, k = torch.meshgrid(*(torch.linspace(-1, 1, 6),) * 3, indexing="ij")
    return (torch.sin(2 * i) + j * k)[None, None]


def _network() -> nn.Module:
    network = nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(8 * 216, 2 * 216), nn.Unflatten(1, (2, 6, 6, 6))
    )
    with torch.no_grad():
        for index, parameter in enumerate(network.parameters()):
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator(index, "test-start")))
    return network


def test_an_image_is_found_from_its_gradient_and_not_from_noise() -> None:
    image, network = _smooth_image(), _network()
    label_BIJK = (image[:, 0] > 0).long()
    loss = nn.functional.cross_entropy(network(image), label_BIJK)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    update = {name: value for (name, _), value in zip(network.named_parameters(), gradients, strict=True)}
    noise = {name: torch.randn(value.shape, generator=generator(0, name)) for name, value in update.items()}

    def found(from_what: dict[str, Tensor]) -> float:
        rng = generator(5, "test")
        made = invert_gradient(network, from_what, (1, 6, 6, 6), 2, effort=EFFORT, rng=rng)
        return correlation(made[0, 0], image[0, 0])

    assert found(update) > 0.8
    assert abs(found(noise)) < 0.5


def test_an_image_of_the_wanted_mean_features_is_found() -> None:
    """Features are the intensity and its square; two classes at -1 and 2 of which each has half of the cells."""
    mean_LF, share_L = torch.tensor([[-1.0, 1.0], [2.0, 4.0]]), torch.tensor([0.5, 0.5])
    made = invert_prototypes(
        lambda image: torch.cat([image, image.square()], dim=1),
        mean_LF,
        share_L,
        (6, 6, 6),
        effort=Effort(num_steps=300, learning_rate=0.1, smoothness=0.0),
        rng=generator(0, "test"),
    )
    low, high = (made < 0.5), (made >= 0.5)
    assert float(made[low].mean()) == pytest.approx(-1.0, abs=0.2) and float(made[high].mean()) == pytest.approx(2.0, abs=0.2)
    assert float(high.float().mean()) == pytest.approx(0.5, abs=0.1)


def test_parts_of_the_objective_by_hand() -> None:
    assert float(
        cosine_distance([torch.tensor([3.0]), torch.tensor([4.0])], [torch.tensor([3.0]), torch.tensor([0.0])])
    ) == pytest.approx(0.4)
    ramp = torch.arange(3.0).reshape(1, 1, 3, 1, 1).expand(1, 1, 3, 3, 3)
    assert float(total_variation(ramp)) == 1.0


def test_similarity_of_an_image_with_itself_and_with_an_offset() -> None:
    image = torch.randn(8, 8, 8, generator=generator(0, "test"))
    assert correlation(2 * image + 3, image) == pytest.approx(1.0) and correlation(torch.ones(8, 8, 8), image) == 0.0
    assert ssim(2 * image + 3, image) == pytest.approx(1.0, abs=1e-4)
    flat = torch.zeros(8, 8, 8)
    assert psnr_db(flat, image) == pytest.approx(10 * math.log10(64 / float(image.var(unbiased=False))), rel=1e-5)


def test_the_area_under_the_curve_counts_pairs() -> None:
    assert auc([2.0, 3.0], [1.0, 2.0]) == (3 + 0.5) / 4
    assert pooled({0: ([2.0], [1.0]), 1: ([0.0], [5.0])}, auc) == 0.5


@pytest.mark.parametrize(
    ("members", "num_others", "rate", "expected"),
    [
        ([98.5, 99.5, 50.0, 100.0], 100, 0.01, 0.75),  # others 0 to 99: one of them, 99, may be above the threshold of 98
        ([98.5, 99.5, 50.0, 100.0], 100, 0.0, 0.5),
        ([89.0, 89.5, 0.0, 95.0], 100, 0.1, 0.5),  # a tie with the threshold of 89 is not above it
        ([8.5, 9.0, 9.5, 0.0], 10, 0.1, 0.75),  # 0 to 9: one may be, and 8.5 is above 8
        ([8.5, 9.0, 9.5, 0.0], 9, 0.1, 0.75),  # 0 to 8: none may be
        ([8.5, 9.0, 9.5, 0.0], 10, 0.01, 0.25),  # none may be
    ],
)
def test_members_found_at_a_rate_of_false_alarms(members: list[float], num_others: int, rate: float, expected: float) -> None:
    assert true_positive_rate(members, [float(n) for n in range(num_others)][::-1], rate) == expected


def newcombe(value: float, num_members: int, num_others: int) -> tuple[float, float]:
    """Method 5 of Newcombe 2006 by a fine grid in place of bisection."""
    true = np.linspace(0, 1, 200_001)[1:-1]
    rest, pairs = (num_members + num_others) / 2 - 1, num_members * num_others
    variances = true * (1 - true) * (1 + rest * (1 - true) / (2 - true) + rest * true / (1 + true)) / pairs
    inside = true[(value - true) ** 2 <= stats.norm.isf(0.025) ** 2 * variances]
    return float(inside[0]), float(inside[-1])


def test_the_interval_of_a_perfect_split_of_few_cases_leaves_room() -> None:
    """It was [1, 1]: cases that are resampled stay split. Of many cases it is that of resampling, within 0.02."""
    perfect = {0: ([5.0, 6.0, 7.0], [1.0, 2.0, 3.0])}
    low, high = interval(perfect, auc, auc_variance, numpy_generator(0, "test"))
    assert (low, high) == pytest.approx((newcombe(1.0, 3, 3)[0], 1.0), abs=1e-4) and 0.49 < low < 0.51
    wilson = 3 / (3 + stats.norm.isf(0.025) ** 2)
    found = interval(perfect, partial(true_positive_rate, false_positive_rate=0.1), rate_variance, numpy_generator(0, "test"))
    assert found == pytest.approx((wilson, 1.0))
    draws = np.random.default_rng(0).normal(size=(2, 60))
    many = {0: (draws[0].tolist(), (draws[1] - 0.5).tolist())}
    found = interval(many, auc, auc_variance, numpy_generator(0, "test"))
    assert found == pytest.approx(newcombe(auc(*many[0]), 60, 60), abs=0.02)


def test_the_p_value_of_chance_is_the_share_of_relabellings() -> None:
    """A perfect split of 3 and 4 is one of 35 labellings; of two sites with 1 and 2 each, one of 9."""
    one, two = {0: ([5.0, 6.0, 7.0], [1.0, 2.0, 3.0, 4.0])}, {0: ([2.0], [0.0, 1.0]), 1: ([9.0], [7.0, 8.0])}
    for groups, exact in ((one, 1 / 35), (two, 1 / 9)):
        assert least_p(groups) == pytest.approx(exact)
        assert p_of_chance(groups, auc, numpy_generator(0, "test"), 4000) == pytest.approx(exact, abs=0.015)
    equal = {0: ([1.0, 1.0], [1.0, 1.0])}
    assert p_of_chance(equal, auc, numpy_generator(0, "test"), 50) == 1.0
