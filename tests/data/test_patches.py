"""Patches of cases that carry their coordinates stay aligned, fill the case, and hold what they were drawn around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from coded_cases import (
    ALL_FLIPS,
    PLAIN,
    SIZE,
    STRIDES,
    code_of,
    coded_case,
    coordinates,
    decoded,
    knowledge,
    label_of,
    soft_label_of,
)
from torch import Tensor

from raykd.data.case import LABEL_UNKNOWN, Case, affine_from_spacing
from raykd.data.patches import Knowledge, Patch, TrainingCase, draw_patch, normalise, training_case
from raykd.numerics.rng import generator
from raykd.scenario.training import Augmentation


@pytest.mark.parametrize("augmentation", [PLAIN, ALL_FLIPS], ids=["plain", "flips"])
@pytest.mark.parametrize("foreground", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(8))
def test_image_label_and_teacher_maps_stay_aligned(augmentation: Augmentation, foreground: float, seed: int) -> None:
    patch = draw_patch(coded_case(), (4, 8, 8), augmentation, generator(seed, "patch"), foreground=foreground)
    assert patch.image_IJK.shape == (4, 8, 8)
    # The last start that the maps' strides allow may end outside the case; what is there is padding and says so in its soft label.
    inside = patch.maps["soft_label"][1:].sum(dim=0) + patch.maps["entropy"][0] + patch.image_IJK > 0
    at = decoded(patch.image_IJK)
    assert patch.label_IJK is not None and torch.equal(patch.label_IJK[inside], label_of(at)[inside])
    assert torch.equal(patch.maps["soft_label"][:, inside], soft_label_of(at)[:, inside])
    assert torch.equal(patch.maps["entropy"][0][inside], code_of(at)[inside].float())
    assert bool((patch.maps["soft_label"][0][~inside] == 1).all())
    # Consecutive voxels, whatever the direction.
    for axis in range(3):
        both = inside.narrow(axis, 0, inside.shape[axis] - 1) & inside.narrow(axis, 1, inside.shape[axis] - 1)
        assert bool((at[axis].diff(dim=axis).abs() == 1)[both].all())
    for layer, stride in STRIDES.items():
        feature = patch.maps[f"feature/{layer}"]
        assert feature.shape == (3, *(n // s for n, s in zip((4, 8, 8), stride, strict=True)))
        on_voxels = feature
        for axis, s in enumerate(stride):
            on_voxels = on_voxels.repeat_interleave(s, dim=1 + axis)
        expected = (at // torch.tensor(stride).view(3, 1, 1, 1)).float()
        assert torch.equal(on_voxels[:, inside], expected[:, inside])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flips_happen_along_their_own_axis_as_often_as_asked(axis: int) -> None:
    flip = [0.0, 0.0, 0.0]
    flip[axis] = 0.7
    turned = 0
    for seed in range(200):
        patch = draw_patch(coded_case(knows=False), (4, 4, 4), Augmentation(flip=tuple(flip)), generator(seed, "flip"))  # type: ignore[arg-type]
        steps = [int(decoded(patch.image_IJK)[a].diff(dim=a).flatten()[0]) for a in range(3)]
        assert all(step == 1 for a, step in enumerate(steps) if a != axis)
        turned += steps[axis] == -1
    # Binomial with n = 200, p = 0.7: mean 140, standard deviation 6.5.
    assert abs(turned - 140) < 5 * 6.5


def test_without_teacher_maps_every_start_is_drawn() -> None:
    starts = set()
    for seed in range(600):
        patch = draw_patch(coded_case(knows=False), (9, 10, 13), PLAIN, generator(seed, "start"))
        starts.add(tuple(decoded(patch.image_IJK)[:, 0, 0, 0].tolist()))
    assert starts == {(i, j, 0) for i in range(2) for j in range(3)}


def test_a_case_smaller_than_the_patch_is_padded_with_its_darkest_value_and_background() -> None:
    shape = (12, 16, 16)
    patch = draw_patch(coded_case(), shape, PLAIN, generator(0, "padded"))
    assert patch.label_IJK is not None
    i, j, k = SIZE
    at = coordinates()
    assert torch.equal(patch.image_IJK[:i, :j, :k], code_of(at).float())
    assert torch.equal(patch.maps["soft_label"][:, :i, :j, :k], soft_label_of(at))
    outside = torch.ones(shape, dtype=torch.bool)
    outside[:i, :j, :k] = False
    assert not patch.image_IJK[outside].any()  # the darkest value is the code of voxel (0, 0, 0)
    assert not patch.label_IJK[outside].any() and not patch.maps["entropy"][0, outside].any()
    assert bool((patch.maps["soft_label"][0, outside] == 1).all()) and not patch.maps["soft_label"][1:, outside].any()
    assert torch.equal(patch.maps["feature/bottleneck"][:, :5, :3, :4], knowledge().features["bottleneck"].float())


def test_a_case_without_label_gives_a_patch_without_label() -> None:
    assert draw_patch(coded_case(label=False), (4, 4, 4), ALL_FLIPS, generator(0, "patch"), foreground=1.0).label_IJK is None


def coarsened(case: TrainingCase, factors: Sequence[int], shape: tuple[int, int, int]) -> Patch:
    """A patch for which `factors` times its shape is the whole case: a factor drawn up to 10^12 nearly always takes all of it
    in.
    """
    spacing_factor = tuple(1e300 if f > 1 else 1.0 for f in factors)
    return draw_patch(case, shape, Augmentation(flip=(0.0, 0.0, 0.0), spacing_factor=spacing_factor), generator(1, "coarse"))  # type: ignore[arg-type]


def block_means(x: Tensor, factors: Sequence[int]) -> np.ndarray:
    i, j, k = (n // f for n, f in zip(x.shape[-3:], factors, strict=True))
    a, b, c = factors
    return x.numpy().reshape(*x.shape[:-3], i, a, j, b, k, c).mean(axis=(-5, -3, -1))


def soft_case(size: tuple[int, int, int]) -> TrainingCase:
    rng = generator(0, "soft", *size)
    image = torch.randn(size, generator=rng)
    soft = torch.softmax(torch.randn((4, *size), generator=rng), dim=0)
    return TrainingCase("c", image, None, image.flatten(), {}, Knowledge(soft.half(), soft[0].half()))


@pytest.mark.parametrize("factors", [(2, 1, 1), (1, 3, 2), (2, 2, 2)])
def test_a_coarser_spacing_averages_image_soft_label_and_entropy(factors: tuple[int, int, int]) -> None:
    shape = (4, 4, 6)
    case = soft_case(tuple(n * f for n, f in zip(shape, factors, strict=True)))  # type: ignore[arg-type]
    patch = coarsened(case, factors, shape)
    assert case.knowledge is not None
    assert np.allclose(patch.image_IJK.numpy(), block_means(case.image_IJK, factors), atol=1e-5)
    # Half precision and the background that makes up the rest: 3 digits.
    assert np.allclose(patch.maps["soft_label"].numpy(), block_means(case.knowledge.soft_label_LIJK.float(), factors), atol=2e-3)
    assert np.allclose(patch.maps["entropy"][0].numpy(), block_means(case.knowledge.entropy_IJK.float(), factors), atol=1e-5)


def test_a_coarser_spacing_gives_the_label_that_covers_most() -> None:
    # Blocks of three along I: two to one each, so that neither the first, the middle nor the last voxel is always right.
    triples = [[1, 1, 2], [2, 1, 1], [1, 2, 1], [4, 4, 0], [0, 0, LABEL_UNKNOWN], [LABEL_UNKNOWN, 3, LABEL_UNKNOWN]]
    winners = [1, 1, 1, 4, 0, LABEL_UNKNOWN]
    label = torch.tensor(triples, dtype=torch.uint8).reshape(-1, 1, 1).expand(18, 4, 4).contiguous()
    image = torch.zeros(18, 4, 4)
    patch = coarsened(TrainingCase("c", image, label, image.flatten(), {}), (3, 1, 1), (6, 4, 4))
    assert patch.label_IJK is not None and patch.label_IJK.dtype == torch.uint8
    assert patch.label_IJK[:, 0, 0].tolist() == winners and torch.equal(patch.label_IJK, patch.label_IJK[:, :1, :1].expand(6, 4, 4))


@pytest.mark.parametrize("seed", range(5))
def test_a_case_with_feature_maps_keeps_its_spacing(seed: int) -> None:
    coarser = Augmentation(flip=(0.0, 0.0, 0.0), spacing_factor=(2.0, 2.0, 2.0))
    patch = draw_patch(coded_case(), (4, 4, 4), coarser, generator(seed, "patch"))
    inside = patch.maps["soft_label"][1:].sum(dim=0) + patch.image_IJK > 0
    assert torch.equal(patch.image_IJK[inside], code_of(decoded(patch.image_IJK))[inside].float()), "no voxel was averaged"
    step = decoded(patch.image_IJK)[2].diff(dim=2)[inside[:, :, :-1] & inside[:, :, 1:]]
    assert bool((step == 1).all())


@pytest.mark.parametrize("seed", range(10))
def test_a_foreground_patch_holds_a_voxel_of_the_class(seed: int) -> None:
    label = torch.zeros(SIZE, dtype=torch.uint8)
    label[seed, 11 - seed, 12 - seed] = 3
    case = replace(coded_case(knows=False), label_IJK=label, foreground={3: label.flatten().nonzero()[:, 0]})
    for draw in range(10):
        patch = draw_patch(case, (4, 4, 4), PLAIN, generator(seed, "foreground", draw), foreground=1.0)
        assert patch.label_IJK is not None and 3 in patch.label_IJK


def test_a_foreground_patch_holds_its_voxel_with_teacher_maps_too() -> None:
    label = torch.zeros(SIZE, dtype=torch.uint8)
    label[5, 6, 7] = 3
    case = replace(coded_case(), label_IJK=label, foreground={3: label.flatten().nonzero()[:, 0]})
    for seed in range(40):
        patch = draw_patch(case, (4, 4, 4), PLAIN, generator(seed, "foreground"), foreground=1.0)
        assert patch.label_IJK is not None and 3 in patch.label_IJK


def test_every_voxel_can_be_drawn_with_teacher_maps_too() -> None:
    drawn = torch.zeros(SIZE, dtype=torch.bool)
    for seed in range(100):
        i, j, k = decoded(draw_patch(coded_case(), (4, 8, 8), PLAIN, generator(seed, "start")).image_IJK)
        drawn[i, j, k] = True
    assert bool(drawn.all())


def test_the_voxel_of_a_foreground_patch_lies_anywhere_in_it() -> None:
    label = torch.zeros(SIZE, dtype=torch.uint8)
    label[5, 6, 6] = 1
    case = replace(coded_case(knows=False), label_IJK=label, foreground={1: label.flatten().nonzero()[:, 0]})
    places = set()
    for seed in range(60):
        patch = draw_patch(case, (4, 4, 4), PLAIN, generator(seed, "place"), foreground=1.0)
        assert patch.label_IJK is not None
        places.add(int(patch.label_IJK.nonzero()[0, 0]))
    assert places == {0, 1, 2, 3}


def test_foreground_classes_are_drawn_alike_however_large_they_are() -> None:
    # One voxel of class 1 at one end, a whole slab of class 2 at the other; a patch cannot hold both.
    label = torch.zeros(SIZE, dtype=torch.uint8)
    label[0, 0, 0], label[6:] = 1, 2
    foreground = {c: (label.flatten() == c).nonzero()[:, 0] for c in (1, 2)}
    case = replace(coded_case(knows=False), label_IJK=label, foreground=foreground)
    drawn = [draw_patch(case, (4, 4, 4), PLAIN, generator(seed, "class"), foreground=1.0).label_IJK for seed in range(200)]
    small = sum(label is not None and 1 in label for label in drawn)
    # Binomial with n = 200, p = 1/2: mean 100, standard deviation 7.1.
    assert abs(small - 100) < 5 * 7.1


def test_foreground_is_asked_for_as_often_as_its_probability_says() -> None:
    label = torch.zeros(SIZE, dtype=torch.uint8)
    label[9, 11, 12] = 1
    case = replace(coded_case(knows=False), label_IJK=label, foreground={1: torch.tensor([label.numel() - 1])})
    drawn = [draw_patch(case, (4, 4, 4), PLAIN, generator(seed, "share"), foreground=0.6).label_IJK for seed in range(200)]
    held = sum(label is not None and bool(label.any()) for label in drawn)
    # 0.6, and by chance one of 7 * 9 * 10 starts: mean 120.1, standard deviation 6.9.
    assert abs(held - 120) < 5 * 6.9


def test_normalised_intensities_have_mean_zero_and_spread_one_whatever_the_scale() -> None:
    image = torch.randn((1, 20, 20, 20), generator=generator(0, "image"))
    scaled = normalise(image)
    assert scaled.shape == (20, 20, 20)
    assert float(scaled.mean()) == pytest.approx(0.0, abs=1e-5) and float(scaled.std()) == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(normalise(40.0 * image + 500.0), scaled, rtol=0, atol=1e-4)


def test_the_brightest_and_darkest_half_per_cent_are_clipped() -> None:
    image = torch.randn((1, 20, 20, 20), generator=generator(0, "image"))
    spoilt = image.clone()
    spoilt[0, 0, 0, 0], spoilt[0, 1, 1, 1] = 1e5, -1e5
    assert float(normalise(spoilt).abs().max()) < 4
    flat = normalise(image)
    # 8000 voxels: 40 lie above the 99.5th percentile and all become equal to it.
    assert int((flat == flat.max()).sum()) == 40 and int((flat == flat.min()).sum()) == 40


def test_a_constant_volume_normalises_to_zero() -> None:
    assert not normalise(torch.full((1, 4, 4, 4), 7.0)).any()


def test_a_training_case_knows_the_voxels_of_its_classes() -> None:
    at = coordinates()
    label = label_of(at)
    label[0, 0, 0] = LABEL_UNKNOWN
    case = training_case(Case("c", "p", code_of(at).float()[None], label, affine_from_spacing((1.0, 1.0, 1.0), SIZE)))
    assert set(case.foreground) == {1, 2, 3, 4}
    for c, voxels in case.foreground.items():
        assert torch.equal(voxels, torch.from_numpy(np.flatnonzero(label.numpy() == c)))
    assert set(case.sample.tolist()) <= set(case.image_IJK.flatten().tolist()) and len(case.sample) == label.numel()
    assert case.knowledge is None and case.label_IJK is label


def test_a_training_case_without_label_has_no_foreground() -> None:
    case = training_case(Case("c", "p", torch.rand(1, 4, 4, 4), None, affine_from_spacing((1.0, 1.0, 1.0), (4, 4, 4))))
    assert case.label_IJK is None and not case.foreground


def test_what_a_teacher_says_is_attached_to_a_copy() -> None:
    case = coded_case(knows=False)
    assert case.with_knowledge(knowledge()).knowledge is not None and case.knowledge is None
