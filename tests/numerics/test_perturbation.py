"""Weak and strong views: how far they go, and that they leave every structure where it is."""

from __future__ import annotations

import math

import pytest
import torch

from raykd.numerics.perturbation import additive_noise, strong, weak


def _rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_noise_is_clipped_at_its_standard_deviation() -> None:
    """|N(0, 1)| exceeds 1 with probability erfc(1 / sqrt 2) = 0.317: that share of voxels lies on the limit."""
    noise = additive_noise(torch.zeros(1, 1, 40, 50, 50), 0.3, _rng())
    assert float(noise.abs().max()) == pytest.approx(0.3)
    on_limit = (noise.abs() == noise.abs().max()).double().mean()
    assert float(on_limit) == pytest.approx(math.erfc(1 / math.sqrt(2)), abs=0.01)
    assert abs(float(noise.mean())) < 0.005


def test_noise_is_added_to_the_image_and_leaves_the_original_alone() -> None:
    image = torch.arange(8.0).view(1, 1, 2, 2, 2)
    copy = image.clone()
    assert additive_noise(image, 0.0, _rng()).equal(image)
    shifted = additive_noise(image, 0.5, _rng()) - additive_noise(torch.zeros_like(image), 0.5, _rng())
    assert torch.allclose(shifted, image, atol=1e-6)
    assert image.equal(copy)


@pytest.mark.parametrize("view", [weak, strong])
def test_a_view_is_given_by_its_generator(view: object) -> None:
    image = torch.randn((2, 1, 4, 4, 4), generator=_rng(5))
    assert view(image, _rng(1)).equal(view(image, _rng(1)))  # type: ignore[operator]
    rng = _rng(1)
    assert not view(image, rng).equal(view(image, rng))  # type: ignore[operator]


def test_a_weak_view_stays_within_a_quarter_of_a_standard_deviation() -> None:
    image = torch.randn((3, 1, 8, 8, 8), generator=_rng(5))
    assert float((weak(image, _rng()) - image).abs().max()) <= 0.25 + 1e-6


def test_a_strong_view_gives_every_patch_its_own_contrast_and_brightness() -> None:
    """A line fitted through intensities before and after: slope in [0.75, 1.25], offset in [-0.25, 0.25], unlike in two patches."""
    image = torch.randn((2, 1, 30, 30, 30), generator=_rng(5)) * 5.0
    seen = strong(image, _rng(3))
    lines = []
    for before, after in zip(image.flatten(1).double(), seen.flatten(1).double(), strict=True):
        slope = float(((before - before.mean()) * (after - after.mean())).mean() / before.var(correction=0))
        lines.append((slope, float(after.mean() - slope * before.mean())))
    assert all(0.74 <= slope <= 1.26 and abs(offset) <= 0.27 for slope, offset in lines)
    assert abs(lines[0][0] - lines[1][0]) > 0.02 and abs(lines[0][1] - lines[1][1]) > 0.02


def test_a_strong_view_has_three_times_the_noise_of_a_weak_one() -> None:
    flat = torch.zeros(1, 1, 30, 30, 30)
    assert float(strong(flat, _rng()).std() / weak(flat, _rng()).std()) == pytest.approx(3.0, rel=0.03)


def test_views_move_nothing() -> None:
    image = torch.zeros(1, 1, 6, 6, 6)
    image[0, 0, 1, 4, 2] = 50.0
    assert int(strong(image, _rng()).argmax()) == int(weak(image, _rng()).argmax()) == int(image.argmax())


def test_views_of_no_patch_are_none() -> None:
    none = torch.zeros(0, 1, 4, 4, 4)
    assert weak(none, _rng()).shape == strong(none, _rng()).shape == none.shape
