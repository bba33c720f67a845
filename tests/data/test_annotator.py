"""Annotators who stray, who draw too wide or too narrow, and who overlook: measured on spheres."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from raykd.data.case import Case, affine_from_spacing
from raykd.data.heterogeneity.annotator import annotate, signed_distance, smooth_field
from raykd.numerics.rng import numpy_generator
from raykd.scenario.sites import LabelNoise

Triple = tuple[float, float, float]
GRIDS = [(1.0, 1.0, 1.0), (3.5, 0.8, 0.8), (0.5, 0.5, 0.5)]


def ball(spacing_mm: Triple, radius_mm: float, around_mm: Triple = (0.0, 0.0, 0.0), half_mm: float = 18.0) -> np.ndarray:
    """A ball in a cube of twice `half_mm`; its centre lies off every voxel's."""
    axes = [np.arange(-half_mm, half_mm, mm) - at + 0.21 * mm for mm, at in zip(spacing_mm, around_mm, strict=True)]
    i, j, k = np.meshgrid(*axes, indexing="ij")
    return np.sqrt(i**2 + j**2 + k**2) <= radius_mm


def case_of(label_IJK: np.ndarray, spacing_mm: Triple = (1.0, 1.0, 1.0), case_id: str = "c") -> Case:
    label = torch.from_numpy(label_IJK.astype(np.uint8))
    shape = tuple(label.shape)
    return Case(case_id, "p", torch.zeros(1, *shape), label, affine_from_spacing(spacing_mm, shape))  # type: ignore[arg-type]


def redrawn(case: Case, seed: int = 0, site: str = "site", **noise: float) -> Tensor:
    label = annotate(case, LabelNoise(**noise), seed=seed, site=site).label_IJK
    assert label is not None and label.dtype == torch.uint8 and label.shape == case.shape
    return label


def radius_mm(label: Tensor, spacing_mm: Triple) -> float:
    """Of the ball of the same volume."""
    return float((int((label == 1).sum()) * math.prod(spacing_mm) * 3 / 4 / math.pi) ** (1 / 3))


@pytest.mark.parametrize("spacing_mm", GRIDS)
@pytest.mark.parametrize("bias_mm", [-2.0, -1.0, 1.0, 2.0])
def test_bias_moves_the_surface_of_a_ball(spacing_mm: Triple, bias_mm: float) -> None:
    case = case_of(ball(spacing_mm, 12.0), spacing_mm)
    assert case.label_IJK is not None
    before = radius_mm(case.label_IJK, spacing_mm)
    assert radius_mm(redrawn(case, bias_mm=bias_mm), spacing_mm) - before == pytest.approx(bias_mm, abs=0.25)


def test_distance_to_a_ball_is_right_within_a_part_of_a_voxel() -> None:
    for spacing_mm in GRIDS:
        axes = [np.arange(-18.0, 18.0, mm) + 0.21 * mm for mm in spacing_mm]
        true_mm = 11.3 - np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))
        error_mm = signed_distance(true_mm > 0, spacing_mm) - true_mm
        within = np.abs(true_mm) < 5
        assert abs(float(error_mm[within].mean())) < 0.15
        assert float(error_mm[within].std()) < 0.25 * max(spacing_mm)


def test_flat_surfaces_lie_between_voxels() -> None:
    """Of a slab from the face at 4 to the face at 9, centres lie 0.5, 1.5, 2.5 ... voxels from the nearer face."""
    slab = np.zeros((14, 9, 9), bool)
    slab[4:9] = True
    found = signed_distance(slab, (2.0, 1.0, 1.0))[:, 4, 4]
    expected = 2.0 * np.array([-3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 1.5, 0.5, -0.5, -1.5, -2.5, -3.5, -4.5])
    np.testing.assert_allclose(found, expected, atol=0.25)


@pytest.mark.parametrize("boundary_mm", [0.8, 1.5])
def test_displacement_of_the_surface_has_the_standard_deviation(boundary_mm: float) -> None:
    """Along many rays from the centre, over several cases."""
    spacing_mm = (0.5, 0.5, 0.5)
    mask = ball(spacing_mm, 12.0)
    rng = numpy_generator(0, "test")
    rays = rng.standard_normal((400, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    steps_mm = np.arange(4.0, 17.5, 0.25)
    centre = (18.0 - 0.21 * 0.5) / 0.5
    places = np.rint(centre + rays[:, None] * steps_mm[None, :, None] / 0.5).astype(int)
    radii = []
    for number in range(4):
        label = redrawn(case_of(mask, spacing_mm, f"c{number}"), boundary_mm=boundary_mm).numpy()
        inside = label[tuple(places.reshape(-1, 3).T)].reshape(places.shape[:2]) == 1
        radii.append(4.0 + 0.25 * inside.sum(axis=1))
    radii_mm = np.concatenate(radii)
    assert radii_mm.mean() == pytest.approx(12.0, abs=0.3)
    assert radii_mm.std() == pytest.approx(boundary_mm, rel=0.2)


def test_the_field_is_smooth_with_unit_deviation_on_any_grid() -> None:
    for spacing_mm in [(1.0, 1.0, 1.0), (4.0, 1.0, 0.5)]:
        fields = [smooth_field((24, 40, 48), spacing_mm, numpy_generator(seed, "test")) for seed in range(12)]
        assert np.std(fields) == pytest.approx(1.0, abs=0.1)
    steps = np.diff(smooth_field((30, 30, 30), (1.0, 1.0, 1.0), numpy_generator(0, "test")), axis=0)
    # Smoothing by s gives a correlation exp(-d^2 / 4 s^2) at distance d: for s = 4 mm, steps of 1 mm have sqrt(2 (1 - exp(-1/64))).
    assert steps.std() == pytest.approx(math.sqrt(2 * (1 - math.exp(-1 / 64))), rel=0.15)


def test_classes_share_no_voxel_and_keep_their_common_surface_under_bias() -> None:
    """Two half-balls: the plane between them stays, the outer surface moves."""
    both = ball((1.0, 1.0, 1.0), 11.0).astype(np.uint8)
    both[18:][both[18:] == 1] = 2
    wider = redrawn(case_of(both), bias_mm=2.0).numpy()
    assert set(np.unique(wider)) == {0, 1, 2}
    assert not (wider[:17] == 2).any() and not (wider[19:] == 1).any()
    assert (wider > 0).sum() > 1.4 * (both > 0).sum()


def test_unknown_voxels_stay_unknown_and_no_other_becomes_one() -> None:
    label = ball((1.0, 1.0, 1.0), 11.0).astype(np.uint8)
    label[20:] = 255
    for noise in ({"bias_mm": 3.0}, {"boundary_mm": 2.0}, {"missing": 1.0}):
        after = redrawn(case_of(label), **noise).numpy()
        assert ((after == 255) == (label == 255)).all() and (after != label).any()


def test_components_are_overlooked_at_the_probability_given() -> None:
    """64 balls; each is there whole or not at all."""
    label = np.zeros((32, 32, 32), np.uint8)
    for place in np.ndindex(4, 4, 4):
        corner = tuple(slice(8 * p + 2, 8 * p + 6) for p in place)
        label[corner] = 1 + (sum(place) % 2)
    kept = []
    for number in range(10):
        after = redrawn(case_of(label, case_id=f"c{number}"), missing=0.3).numpy()
        counts = after.reshape(4, 8, 4, 8, 4, 8).astype(bool).sum(axis=(1, 3, 5))
        assert set(np.unique(counts)) <= {0, 64}
        assert (after[after > 0] == label[after > 0]).all()
        kept.append((counts > 0).mean())
    # 640 draws: a standard error of 0.018.
    assert np.mean(kept) == pytest.approx(0.7, abs=0.06)
    assert not redrawn(case_of(label), missing=1.0).any()


def test_draws_have_seed_site_case_and_class_as_address() -> None:
    label = np.zeros((30, 30, 60), np.uint8)
    label[..., :30][ball((1.0, 1.0, 1.0), 8.0, half_mm=15.0)] = 1
    alone = case_of(label)
    first = redrawn(alone, boundary_mm=1.5)
    assert torch.equal(first, redrawn(alone, boundary_mm=1.5))
    others = [redrawn(alone, seed=1, boundary_mm=1.5), redrawn(alone, site="other", boundary_mm=1.5)]
    others.append(redrawn(case_of(label, case_id="d"), boundary_mm=1.5))
    assert not any(torch.equal(first, other) for other in others)
    label[..., 30:][ball((1.0, 1.0, 1.0), 8.0, half_mm=15.0)] = 2
    assert torch.equal(redrawn(case_of(label), boundary_mm=1.5)[..., :28], first[..., :28])


def test_nothing_to_do_returns_the_case_and_something_is_recorded() -> None:
    case = case_of(ball((1.0, 1.0, 1.0), 9.0))
    assert annotate(case, LabelNoise(), seed=0, site="site") is case
    assert case.label_IJK is not None
    before = case.label_IJK.clone()
    after = annotate(case, LabelNoise(missing=1.0, bias_mm=0.5), seed=0, site="site")
    assert after.record == {"annotator.boundary_mm": 0.0, "annotator.bias_mm": 0.5, "annotator.num_overlooked": 1.0}
    assert torch.equal(case.label_IJK, before)
    unlabelled = Case("c", "p", case.image_CIJK, None, case.affine)
    assert annotate(unlabelled, LabelNoise(bias_mm=1.0), seed=0, site="site") is unlabelled


def test_a_label_that_fills_the_volume_is_nothing_to_move() -> None:
    full = case_of(np.ones((6, 6, 6)))
    assert (redrawn(full, bias_mm=-1.0) == 1).all()
    assert not redrawn(case_of(np.zeros((6, 6, 6))), bias_mm=2.0).any()
