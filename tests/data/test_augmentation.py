"""Random intensity changes: nothing at zero strength, one function for patch and volume, and a blur that moves brightness
without losing it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from raykd.data.augmentation import augment_intensity, gaussian_blur, random_bias_field, random_contrast, random_gamma
from raykd.numerics.rng import generator
from raykd.scenario.training import Augmentation

SHAPE = (6, 8, 10)
PLAIN = {"flip": (0.0, 0.0, 0.0)}


def volume() -> Tensor:
    image = torch.randn(SHAPE, generator=generator(0, "volume"))
    return (image - image.mean()) / image.std()


def augmented(seed: int = 0, label: Tensor | None = None, **strengths: Any) -> Tensor:
    image = volume()
    return augment_intensity(image, label, image.flatten(), Augmentation(**PLAIN | strengths), generator(seed, "augment"))


def test_zeros_leave_the_patch_as_it_is() -> None:
    assert torch.equal(augmented(label=torch.ones(SHAPE, dtype=torch.uint8)), volume())


@pytest.mark.parametrize("strength", [{"contrast": 1.0}, {"gamma": 0.5}, {"bias_field": 0.3}, {"blur": 2.0}, {"noise": 0.3}])
def test_each_strength_changes_the_patch_as_its_generator_says(strength: dict[str, float]) -> None:
    assert not torch.allclose(augmented(0, **strength), volume(), atol=1e-2)
    assert torch.equal(augmented(0, **strength), augmented(0, **strength))
    assert not torch.equal(augmented(0, **strength), augmented(1, **strength))


def test_no_global_state_is_touched_and_the_input_is_left_alone() -> None:
    image, before = volume(), torch.get_rng_state()
    everything = Augmentation(contrast=1.0, gamma=0.5, bias_field=0.3, blur=1.0, noise=0.3)
    augment_intensity(image, None, image.flatten(), everything, generator(0, "augment"))
    assert torch.equal(image, volume()) and torch.equal(torch.get_rng_state(), before)


def test_contrast_is_drawn_as_often_as_it_is_asked_for() -> None:
    changed = sum(not torch.equal(augmented(seed, contrast=0.3), volume()) for seed in range(300))
    # Binomial with n = 300, p = 0.3: mean 90, standard deviation sqrt(300 * 0.3 * 0.7) = 7.9.
    assert abs(changed - 90) < 5 * 7.9


MAPS = pytest.mark.parametrize(
    "change",
    [
        lambda image, sample, rng: random_contrast(image, None, sample, rng),
        lambda image, sample, rng: random_gamma(image, sample, 0.5, rng),
    ],
    ids=["contrast", "gamma"],
)


@MAPS
@pytest.mark.parametrize("seed", range(6))
def test_a_map_of_intensities_leaves_the_volume_s_mean_and_spread_at_zero_and_one(change, seed: int) -> None:  # type: ignore[no-untyped-def]
    # The sample stands for the volume: where it is the volume, its mean and spread are known exactly.
    image = volume()
    changed = change(image, image.flatten(), generator(seed, "map"))
    assert float(changed.mean()) == pytest.approx(0.0, abs=1e-5) and float(changed.std()) == pytest.approx(1.0, abs=1e-5)


@MAPS
@pytest.mark.parametrize("seed", range(6))
def test_a_map_of_intensities_is_the_same_for_a_patch_and_its_volume(change, seed: int) -> None:  # type: ignore[no-untyped-def]
    image = volume()
    whole = change(image, image.flatten(), generator(seed, "map"))
    patch = change(image[1:3, 2:6, 4:9], image.flatten(), generator(seed, "map"))
    assert torch.equal(patch, whole[1:3, 2:6, 4:9])


@MAPS
def test_equal_intensities_stay_equal(change) -> None:  # type: ignore[no-untyped-def]
    steps = torch.randint(-2, 3, SHAPE, generator=generator(0, "steps")).float()
    changed = change(steps, volume().flatten(), generator(0, "map"))
    for value in steps.unique():
        assert len(changed[steps == value].unique()) == 1


def test_gamma_keeps_the_order_of_intensities() -> None:
    image = volume()
    for seed in range(5):
        changed = random_gamma(image, image.flatten(), 0.5, generator(seed, "map")).flatten()
        assert bool((changed[image.flatten().argsort()].diff() >= 0).all())


def test_contrast_keeps_turns_or_mixes_the_order_of_intensities() -> None:
    image = volume()
    seen = set()
    for seed in range(30):
        difference = (
            random_contrast(image, None, image.flatten(), generator(seed, "map")).flatten()[image.flatten().argsort()].diff()
        )
        seen.add("rising" if bool((difference >= 0).all()) else "falling" if bool((difference <= 0).all()) else "mixed")
    assert seen == {"rising", "falling", "mixed"}


def test_a_labelled_class_is_shifted_on_its_own_and_background_and_unknown_are_not() -> None:
    image, label = volume(), torch.zeros(SHAPE, dtype=torch.uint8)
    label[0:3, 0:4], label[:, 6:] = 2, 255
    shifts = []
    for seed in range(12):
        plain = random_contrast(image, None, image.flatten(), generator(seed, "map"))
        difference = random_contrast(image, label, image.flatten(), generator(seed, "map")) - plain
        # The class blends in within one voxel of its border: whole up to I = 1, J = 2, and none of it beyond I = 3, J = 4.
        assert not difference[4:].any() and not difference[:, 5:].any()
        inside = difference[1:2, 1:3, 1:-1]
        assert float(inside.max() - inside.min()) < 1e-5
        shifts.append(float(inside.mean()))
    assert min(shifts) < -0.1 and max(shifts) > 0.1 and shifts.count(0.0) >= 2 and max(map(abs, shifts)) <= 1.5


def test_a_bias_field_multiplies_by_a_smooth_positive_field() -> None:
    image = volume()
    changed = random_bias_field(image, 0.3, generator(0, "bias"))
    inside = image > image.min()
    log_field = torch.full(SHAPE, torch.nan)
    log_field[inside] = torch.log((changed - image.min())[inside] / (image - image.min())[inside])
    # Linear between 3 x 3 x 3 nodes: second differences vanish but at the middle node of each axis.
    along_k = log_field.diff(dim=2).diff(dim=2)[:, :, :3]
    assert float(along_k[~along_k.isnan()].abs().max()) < 1e-3
    assert float(log_field[inside].std()) > 0.02


@pytest.mark.parametrize("sigma", [[0.0, 0.0, 0.0], [0.05, 0.0, 0.09]])
def test_no_blur_is_the_image_itself(sigma: list[float]) -> None:
    assert torch.equal(gaussian_blur(volume(), sigma), volume())


@pytest.mark.parametrize("sigma", [[2.0, 0.0, 0.0], [0.0, 1.2, 0.0], [0.0, 0.0, 2.0], [2.0, 1.2, 0.4]])
def test_blur_agrees_with_scipy(sigma: list[float]) -> None:
    image = volume().double()
    # SciPy's radius is int(truncate * sigma + 1/2); 2.5 gives 5, 3 and 1 for the sigmas above.
    expected = gaussian_filter(image.numpy(), sigma, mode="nearest", truncate=2.5)
    assert np.allclose(gaussian_blur(image.float(), sigma).numpy(), expected, atol=1e-5)


def test_blur_keeps_a_constant_image() -> None:
    assert torch.allclose(gaussian_blur(torch.full(SHAPE, 3.25), [2.0, 1.0, 0.5]), torch.full(SHAPE, 3.25), atol=1e-5)


def test_blur_keeps_the_mass_of_an_impulse_in_the_interior() -> None:
    impulse = torch.zeros(11, 13, 15)
    impulse[5, 6, 7] = 4.0
    blurred = gaussian_blur(impulse, [1.0, 1.5, 2.0])
    assert float(blurred.sum()) == pytest.approx(4.0, rel=1e-5) and float(blurred.max()) < 1.0
    assert bool((blurred.flip([0, 1, 2]) - blurred).abs().max() < 1e-6)


def test_noise_is_white_with_a_spread_up_to_its_strength() -> None:
    spreads = [float((augmented(seed, noise=0.5) - volume()).std()) for seed in range(40)]
    # Uniform on [0, 0.5); 480 voxels estimate a spread to within 1 / sqrt(2 * 480) = 3 %.
    assert min(spreads) < 0.1 and 0.4 < max(spreads) < 0.5 * 1.15


def test_constant_volumes_stay_finite() -> None:
    flat = torch.zeros(SHAPE)
    everything = Augmentation(contrast=1.0, gamma=0.5, bias_field=0.3, blur=1.0, noise=0.3)
    assert bool(torch.isfinite(augment_intensity(flat, None, flat.flatten(), everything, generator(0, "flat"))).all())
