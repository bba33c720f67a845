"""Statistics of a volume are those of all its voxels: no order of axes, no padding and no scale changes what they say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from raykd.numerics.intensity import clip_limits, ranked_sample, standardised
from raykd.numerics.rng import generator


def _normalised(image: torch.Tensor) -> torch.Tensor:
    return standardised(image, *clip_limits(image, 0.005, 0.995))


def test_limits_are_the_quantiles_of_every_voxel_whatever_the_order_of_axes() -> None:
    image = torch.randn((20, 30, 10), generator=generator(0, "image")) + torch.linspace(1, 5, 10)
    limits = clip_limits(image, 0.005, 0.995)
    assert limits == pytest.approx(np.quantile(image.numpy(), [0.005, 0.995]), rel=1e-6)
    for order in itertools.permutations(range(3)):
        assert clip_limits(image.permute(order).contiguous(), 0.005, 0.995) == limits


def test_an_empty_end_slice_does_not_empty_the_volume() -> None:
    # 320 * 320 * 20 voxels at a stride of 20 are one slice.
    image = torch.zeros((320, 320, 20))
    image[..., 1:] = torch.rand((320, 320, 19), generator=generator(0, "slices")) + 1
    assert float(_normalised(image).std()) == pytest.approx(1.0, abs=1e-3) and len(_normalised(image).unique()) > 1000


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_brightness_that_rises_along_an_axis_is_kept(axis: int) -> None:
    image = (
        torch.linspace(1, 5, 400)
        .reshape([400 if a == axis else 1 for a in range(3)])
        .expand([400 if a == axis else 16 for a in range(3)])
    )
    normalised = _normalised(image.contiguous())
    # Half a per cent of 400 planes are two: at either end these two share a value. Three quarters did, where statistics came from
    # one plane.
    assert len(normalised.unique()) == 400 - 2


@pytest.mark.parametrize("num", [1, 8, 39])
@pytest.mark.parametrize("padding", [0.0, 7.0, -1000.0])
def test_a_sparse_structure_in_a_padded_volume_keeps_its_intensities(num: int, padding: float) -> None:
    image = torch.full((20, 20, 20), padding)
    image.view(-1)[:num] = torch.linspace(100, 200, num)
    normalised = _normalised(image).view(-1)
    assert bool((normalised[:num] > normalised[num:].max()).all())
    assert len(normalised[:num].unique()) >= max(num - 2, 1)


def test_padding_of_most_of_a_volume_leaves_the_limits_of_the_rest() -> None:
    inside = torch.rand((8, 8, 8), generator=generator(0, "inside")) + 1
    padded = torch.zeros((20, 20, 20))
    padded[:8, :8, :8] = inside
    _, top = clip_limits(inside, 0.005, 0.995)
    assert clip_limits(padded, 0.005, 0.995) == (0.0, top)


@pytest.mark.parametrize(("scale", "offset"), [(1e-9, 0.0), (1.0, 3e4), (1e-20, 0.0), (1e20, 0.0)])
def test_scale_and_offset_do_not_show(scale: float, offset: float) -> None:
    image = torch.rand((12, 12, 12), generator=generator(0, "image"))
    torch.testing.assert_close(_normalised(scale * image + offset), _normalised(image), rtol=0, atol=2e-2 if offset else 1e-4)


def test_a_sample_is_made_of_evenly_spaced_ranks() -> None:
    image = torch.arange(1001.0).flip(0).reshape(7, 11, 13)
    assert ranked_sample(image, 11).tolist() == [100.0 * rank for rank in range(11)]
    assert torch.equal(ranked_sample(image, 4096), torch.arange(1001.0))
