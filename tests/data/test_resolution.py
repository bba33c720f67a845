"""Resampling against averages by hand, an independent resampler, and shapes at known places."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from raykd.data.case import Case, affine_from_spacing
from raykd.data.heterogeneity.resolution import axis_weights, resample_case
from raykd.numerics.rng import numpy_generator
from raykd.scenario.errors import DataError
from raykd.scenario.registry import SHIFTS

Triple = tuple[float, float, float]


def make(image_IJK: Tensor, spacing_mm: Triple = (1.0, 1.0, 1.0), label_IJK: Tensor | None = None) -> Case:
    shape = tuple(image_IJK.shape)
    return Case("c", "p", image_IJK[None].float(), label_IJK, affine_from_spacing(spacing_mm, shape))  # type: ignore[arg-type]


def along_k(values: list[float]) -> Tensor:
    return torch.tensor(values).reshape(1, 1, -1)


def points_mm(case: Case) -> np.ndarray:
    """Where each voxel's centre lies, (I, J, K, 3)."""
    indices = np.moveaxis(np.indices(case.shape), 0, -1)
    return indices @ case.affine[:3, :3].T + case.affine[:3, 3]


def random_image(seed: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.from_numpy(numpy_generator(seed, "test").random(shape, dtype=np.float32))


@pytest.mark.parametrize(
    ("values", "new_mm", "gap_mm", "expected"),
    [
        ([1, 3, 5, 11], 2.0, 0.0, [2, 8]),
        # 6 voxels hold 2 of 2.5 mm; they start at 0.5 mm: half of the first, then 1 and 1; then 1, 1 and half of the last.
        ([10, 20, 30, 40, 50, 60], 2.5, 0.0, [(5 + 20 + 30) / 2.5, (40 + 50 + 30) / 2.5]),
        # Slices of 3 mm of which the middle 2 mm are covered: half, one, half.
        ([0, 4, 8, 2, 2, 10], 3.0, 1.0, [(0 + 4 + 4) / 2, (1 + 2 + 5) / 2]),
        # 2 mm of gap leave the middle voxel of three.
        ([0, 4, 8, 2, 7, 10], 3.0, 2.0, [4, 7]),
        # One voxel wider than the field of view averages all of it.
        ([1, 2, 6], 5.0, 0.0, [3]),
        # Finer: linear between centres, constant beyond the outermost.
        ([0, 4], 0.5, 0.0, [0, 1, 3, 4]),
    ],
)
def test_one_axis_by_hand(values: list[float], new_mm: float, gap_mm: float, expected: list[float]) -> None:
    # The other axes are as they will be; their spacing is below 0.5, so that K is the coarsest.
    new = resample_case(make(along_k(values), (0.1, 0.1, 1.0)), (0.1, 0.1, new_mm), gap_mm)
    assert new.image_CIJK.flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_gap_is_along_the_coarsest_axis_only() -> None:
    image = random_image(0, (6, 6, 6))
    new = resample_case(make(image), (2.0, 3.0, 2.0), gap_mm=2.0)
    middles = image[:, 1::3].reshape(3, 2, 2, 3, 2).mean(dim=(1, 4))
    torch.testing.assert_close(new.image_CIJK[0], middles)


@pytest.mark.parametrize("factor", [(2, 1, 1), (1, 3, 2), (4, 2, 3)])
def test_whole_factors_equal_pooling_and_keep_the_total(factor: tuple[int, int, int]) -> None:
    image = random_image(1, (8, 12, 6))
    old_mm = (0.5, 0.1, 0.3)
    new = resample_case(make(image, old_mm), tuple(f * mm for f, mm in zip(factor, old_mm, strict=True)))
    torch.testing.assert_close(new.image_CIJK, torch.nn.functional.avg_pool3d(image[None], factor))
    assert float(new.image_CIJK.sum()) * math.prod(factor) == pytest.approx(float(image.sum()), rel=1e-5)


def test_finer_equals_simpleitk_linear() -> None:
    case = make(random_image(2, (5, 6, 7)), (2.0, 1.5, 1.0))
    new = resample_case(case, (0.8, 0.7, 0.45))
    image = sitk.GetImageFromArray(case.image_CIJK[0].numpy().transpose())
    image.SetSpacing(case.spacing_mm)
    image.SetOrigin(case.affine[:3, 3].tolist())
    grid = sitk.ResampleImageFilter()
    grid.SetInterpolator(sitk.sitkLinear)
    grid.SetSize(new.shape)
    grid.SetOutputSpacing(new.spacing_mm)
    grid.SetOutputOrigin(new.affine[:3, 3].tolist())
    expected = sitk.GetArrayFromImage(grid.Execute(image)).transpose()
    inside = (slice(2, -2),) * 3  # SimpleITK has zeros beyond the outermost centres
    np.testing.assert_allclose(new.image_CIJK[0].numpy()[inside], expected[inside], atol=1e-5)


def test_labels_by_hand() -> None:
    label = along_k([1, 1, 2, 0, 3, 0, 255, 255, 3, 2, 2, 255]).to(torch.uint8)
    new = resample_case(make(label, label_IJK=label, spacing_mm=(1, 1, 1)), (1.0, 1.0, 3.0))
    # 1 has two of three; 0, 3 and 0; unknown has two of three; 2 has two of three.
    assert new.label_IJK is not None and new.label_IJK.flatten().tolist() == [1, 0, 255, 2]
    tied = resample_case(make(label, label_IJK=label), (1.0, 1.0, 4.0))
    # 1 leads; 0, 3 and 255 against 255 with two; 2 leads with two of four.
    assert tied.label_IJK is not None and tied.label_IJK.flatten().tolist() == [1, 255, 2]


def test_the_lower_class_wins_a_tie() -> None:
    label = along_k([3, 1, 255, 2, 2, 0, 1, 1, 3, 3]).to(torch.uint8)
    new = resample_case(make(label, label_IJK=label), (1.0, 1.0, 2.0))
    assert new.label_IJK is not None and new.label_IJK.dtype == torch.uint8
    assert new.label_IJK.flatten().tolist() == [1, 2, 0, 1, 3]


def test_a_tie_survives_rounding() -> None:
    """Classes 1 and 2 mirrored in the middle share a voxel equally, though their sums in single precision may differ."""
    rng = numpy_generator(0, "test")
    for _ in range(60):
        half = torch.from_numpy(rng.integers(1, 3, (5, 3, 7)).astype(np.uint8))
        label = torch.cat([half, 3 - half.flip(2)], dim=2)
        new = resample_case(make(label, (0.3, 0.3, 0.3), label_IJK=label), (0.3 * 5, 0.3 * 3, 0.3 * 14))
        assert new.label_IJK is not None and new.label_IJK.flatten().tolist() == [1]


def test_sphere_keeps_volume_and_place() -> None:
    centre_mm, radius_mm = np.array([3.0, -4.0, 2.0]), 14.0
    case = make(torch.zeros(48, 56, 40), (1.0, 0.9, 1.2))
    ball = torch.from_numpy(np.linalg.norm(points_mm(case) - centre_mm, axis=-1) <= radius_mm)
    case = make(ball, (1.0, 0.9, 1.2), ball.to(torch.uint8))
    for spacing_mm in [(1.7, 1.3, 3.5), (2.5, 2.5, 1.2), (0.8, 0.8, 0.8)]:
        new = resample_case(case, spacing_mm)
        assert new.label_IJK is not None
        weights = {"image": new.image_CIJK[0].numpy(), "label": new.label_IJK.numpy()}
        for weight in weights.values():
            volume_mm3 = float(weight.sum()) * math.prod(spacing_mm)
            assert volume_mm3 == pytest.approx(4 / 3 * math.pi * radius_mm**3, rel=0.03)
            found_mm = np.average(points_mm(new).reshape(-1, 3), axis=0, weights=weight.reshape(-1))
            np.testing.assert_allclose(found_mm, centre_mm, atol=0.1)


@pytest.mark.parametrize("seed", range(15))
def test_landmark_stays_within_half_a_voxel(seed: int) -> None:
    """A bright voxel is still where it was, whatever the orientation of the axes and the new grid."""
    rng = numpy_generator(seed, "test")
    old_mm, new_mm = rng.uniform(0.5, 3.0, 3), rng.uniform(0.5, 4.0, 3)
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * old_mm, rng.uniform(-100, 100, 3)
    image = torch.zeros(1, 21, 23, 25)
    index = tuple(int(n) for n in rng.integers(8, 13, 3))
    image[0, index[0], index[1], index[2]] = 1.0
    new = resample_case(Case("c", "p", image, None, affine), tuple(new_mm), gap_mm=0.0)
    np.testing.assert_allclose(new.spacing_mm, new_mm, rtol=1e-9)
    where_mm = affine[:3, :3] @ index + affine[:3, 3]
    weight = new.image_CIJK[0].numpy().reshape(-1)
    found_mm = np.average(points_mm(new).reshape(-1, 3), axis=0, weights=weight)
    off_voxels = rotation.T @ (found_mm - where_mm) / np.maximum(old_mm, new_mm)
    assert np.abs(off_voxels).max() <= 0.5


@pytest.mark.parametrize("spacing_mm", [(3.3, 0.7, 1.6), (0.4, 5.0, 2.0), (90.0, 1.0, 0.3)])
def test_grid_is_floored_and_centred(spacing_mm: Triple) -> None:
    case = make(torch.zeros(10, 11, 12), (1.0, 1.5, 0.7))
    new = resample_case(case, spacing_mm)
    extents = (10.0, 16.5, 8.4)
    assert new.shape == tuple(max(1, int(e / mm + 1e-9)) for e, mm in zip(extents, spacing_mm, strict=True))
    np.testing.assert_allclose(points_mm(new).mean(axis=(0, 1, 2)), points_mm(case).mean(axis=(0, 1, 2)), atol=1e-9)


def test_rounding_costs_no_voxel() -> None:
    assert resample_case(make(torch.zeros(3, 30, 6), (0.1, 0.1, 0.7)), (0.3, 0.3, 2.1)).shape == (1, 10, 2)


def test_a_case_on_the_grid_is_returned_as_it_came() -> None:
    case = make(random_image(3, (4, 5, 6)), (1.0, 1.5, 3.0))
    assert resample_case(case, (1.0005, 1.5, 2.9995), gap_mm=0.5) is case
    halved = resample_case(case, (1.0005, 1.5, 6.0))
    assert halved.spacing_mm == pytest.approx((1.0, 1.5, 6.0), abs=1e-12)
    assert resample_case(case, (2.0, 1.5, 3.0)).label_IJK is None


def test_rows_of_weights_sum_to_one() -> None:
    for new_mm, gap_mm in [(0.3, 0.0), (1.0, 0.0), (1.4, 0.5), (2.6, 2.5), (30.0, 0.0)]:
        sums = axis_weights(9, 1.0, new_mm, gap_mm).sum(dim=1)
        torch.testing.assert_close(sums, torch.ones_like(sums))


@pytest.mark.parametrize(("spacing_mm", "gap_mm"), [((1.0, 1.0, 3.0), 3.0), ((1.0, 0.0, 3.0), 0.0), ((1.0, 1.0, 3.0), -0.1)])
def test_refusals(spacing_mm: Triple, gap_mm: float) -> None:
    with pytest.raises(DataError, match=rf"case c: .* got .*3.0\) and {gap_mm}"):
        resample_case(make(torch.zeros(4, 4, 4)), spacing_mm, gap_mm)


def test_shift_is_registered_and_recorded() -> None:
    shift_class = SHIFTS.get("resolution")
    settings = shift_class.Settings.model_validate_json('{"name": "resolution", "spacing_mm": [2.0, 1.0, 1.0], "gap_mm": 0.5}')
    new = shift_class(settings, 7, "site").apply(make(torch.zeros(4, 4, 4)))
    assert new.shape == (2, 4, 4)
    assert new.record == {
        "resolution.spacing_i_mm": 2.0,
        "resolution.spacing_j_mm": 1.0,
        "resolution.spacing_k_mm": 1.0,
        "resolution.gap_mm": 0.5,
        "resolution.slice_profile": "box",
    }
    with pytest.raises(ValidationError, match="spacing_mm"):
        shift_class.Settings.model_validate_json('{"name": "resolution", "spacing_mm": "thick"}')


def site(case: Case, **settings: object) -> Case:
    """The case through the registered shift, as a site's settings have it."""
    shift_class = SHIFTS.get("resolution")
    return shift_class(shift_class.Settings(**settings), 0, "site").apply(case)


def test_one_number_is_isotropic_and_null_keeps_an_axis() -> None:
    case = make(random_image(4, (12, 10, 8)), (1.0, 1.5, 2.0))
    torch.testing.assert_close(site(case, spacing_mm=3.0).image_CIJK, resample_case(case, (3.0, 3.0, 3.0)).image_CIJK)
    thick = site(case, spacing_mm=(4.0, None, None))
    assert thick.shape == (3, 10, 8) and thick.spacing_mm == pytest.approx((4.0, 1.5, 2.0))
    torch.testing.assert_close(thick.image_CIJK[0], case.image_CIJK[0].reshape(3, 4, 10, 8).mean(dim=1))


def width_at_half_maximum(position_mm: np.ndarray, profile: np.ndarray) -> float:
    """Of a profile with one peak, between linear crossings of half its maximum."""
    half, peak = profile.max() / 2, int(profile.argmax())
    left = np.interp(half, profile[: peak + 1], position_mm[: peak + 1])
    right = np.interp(-half, -profile[peak:], position_mm[peak:])
    return float(right - left)


@pytest.mark.parametrize(("slice_profile", "gap_mm", "expected_mm"), [("gaussian", 0.0, 5.0), ("gaussian", 2.0, 3.0)])
def test_a_point_moved_through_a_slice_shows_the_profile_of_its_thickness(
    slice_profile: str, gap_mm: float, expected_mm: float
) -> None:
    """The middle slice of 5 mm sees a plane of 0.1 mm at every place in turn."""
    weights = axis_weights(250, 0.1, 5.0, gap_mm, slice_profile)[2].double().numpy()  # type: ignore[arg-type]
    position_mm = (np.arange(250) - 124.5) * 0.1
    assert width_at_half_maximum(position_mm, weights) == pytest.approx(expected_mm, abs=0.01)
    # A Gaussian's standard deviation is its width over 2.3548.
    deviation_mm = math.sqrt(np.average(position_mm**2, weights=weights))
    assert deviation_mm == pytest.approx(expected_mm / 2.3548, rel=0.01)


def test_an_edge_blurs_more_through_a_gaussian_slice_than_through_a_box() -> None:
    """An edge between two slices of 4 mm, at 2 mm from either centre: the box keeps it sharp, the Gaussian of that width gives
    Phi(2 / (4 / 2.3548)) = Phi(1.1774) = 0.8805 on the bright side.
    """
    edge = make((torch.arange(40) >= 20).float().reshape(1, 1, 40), (0.1, 0.1, 1.0))
    box = site(edge, spacing_mm=(None, None, 4.0)).image_CIJK.flatten().tolist()
    gaussian = site(edge, spacing_mm=(None, None, 4.0), slice_profile="gaussian").image_CIJK.flatten().tolist()
    assert box == pytest.approx([0.0] * 5 + [1.0] * 5)
    assert gaussian[4:6] == pytest.approx([0.1195, 0.8805], abs=2e-4)


def test_the_profile_is_of_the_coarsest_axis_and_labels_go_by_coverage() -> None:
    image = random_image(5, (12, 12, 12))
    label = (image > 0.5).to(torch.uint8)
    case = make(image, label_IJK=label)
    box, gaussian = (site(case, spacing_mm=(4.0, 2.0, 2.0), slice_profile=p) for p in ("box", "gaussian"))
    assert box.label_IJK is not None and gaussian.label_IJK is not None
    assert torch.equal(box.label_IJK, gaussian.label_IJK)
    along_i = torch.einsum("ij,jkl->ikl", axis_weights(12, 1.0, 4.0, 0.0, "gaussian"), image)
    pooled = torch.nn.functional.avg_pool3d(along_i[None], (1, 2, 2))
    torch.testing.assert_close(gaussian.image_CIJK, pooled)
    assert gaussian.record["resolution.slice_profile"] == "gaussian"


@pytest.mark.parametrize("slice_profile", ["box", "gaussian"])
def test_sphere_keeps_its_signal_and_place_under_each_profile(slice_profile: str) -> None:
    centre_mm, radius_mm = np.array([1.0, -2.0, 1.5]), 14.0
    empty = make(torch.zeros(60, 60, 60))
    ball = torch.from_numpy(np.linalg.norm(points_mm(empty) - centre_mm, axis=-1) <= radius_mm)
    new = site(make(ball, label_IJK=ball.to(torch.uint8)), spacing_mm=(4.0, 1.5, 1.5), slice_profile=slice_profile)
    assert new.label_IJK is not None
    for weight, tolerance in ((new.image_CIJK[0].numpy(), 0.01), (new.label_IJK.numpy(), 0.03)):
        assert float(weight.sum()) * 9.0 == pytest.approx(4 / 3 * math.pi * radius_mm**3, rel=tolerance)
        found_mm = np.average(points_mm(new).reshape(-1, 3), axis=0, weights=weight.reshape(-1))
        np.testing.assert_allclose(found_mm, centre_mm, atol=0.1)


def test_field_of_view_keeps_voxels_where_they_were() -> None:
    image = random_image(6, (10, 11, 12))
    label = (image * 255).to(torch.uint8)
    case = make(image, (1.0, 1.5, 0.7), label)
    # 6 mm hold 6 voxels of 1 mm; 8 mm hold 5 of 1.5 mm; the last axis stays.
    cut = site(case, field_of_view_mm=(6.0, 8.0, None))
    assert cut.label_IJK is not None
    torch.testing.assert_close(cut.image_CIJK[0], image[2:8, 3:8])
    assert torch.equal(cut.label_IJK, label[2:8, 3:8])
    np.testing.assert_allclose(points_mm(cut), points_mm(case)[2:8, 3:8], atol=1e-9)
    assert cut.record["resolution.field_of_view_j_mm"] == pytest.approx(7.5)
    assert site(case, field_of_view_mm=(500.0, None, 9.0)) is case
    assert site(case, field_of_view_mm=(0.1, None, None)).shape == (1, 11, 12)


@pytest.mark.parametrize("matrix", [(8, 9), (7, 6), (20, 5)])
@pytest.mark.parametrize("shift", [0.0, -5.0])
def test_matrix_equals_cropping_and_padding_of_the_centred_spectrum(matrix: tuple[int, int], shift: float) -> None:
    """NumPy's shifted FFT of each slice, cut out and put back into zeros."""
    image = random_image(7, (3, 16, 15)) + shift
    found = site(make(image, (4.0, 1.0, 1.0)), matrix=matrix).image_CIJK[0].numpy()
    spectrum = np.fft.fftshift(np.fft.fft2(image.double().numpy()), axes=(1, 2))
    kept = np.zeros_like(spectrum)
    rows, cols = (
        slice(n // 2 - min(m, n) // 2, n // 2 - min(m, n) // 2 + min(m, n)) for n, m in zip((16, 15), matrix, strict=True)
    )
    kept[:, rows, cols] = spectrum[:, rows, cols]
    expected = np.fft.ifft2(np.fft.ifftshift(kept, axes=(1, 2)))
    np.testing.assert_allclose(found, np.abs(expected) if shift == 0 else expected.real, atol=1e-4)


def test_a_matrix_of_the_grid_or_more_changes_nothing_and_a_smaller_one_keeps_the_grid() -> None:
    case = make(random_image(8, (4, 16, 12)), (4.0, 1.0, 1.0))
    assert site(case, matrix=(16, 12)) is case and site(case, matrix=(64, 64)) is case
    cut = site(case, matrix=(8, 12))
    assert cut.shape == case.shape and cut.affine is case.affine
    assert (cut.record["resolution.matrix_j"], cut.record["resolution.matrix_k"]) == (8.0, 12.0)
    assert float(cut.image_CIJK.mean()) == pytest.approx(float(case.image_CIJK.mean()), rel=0.01)


def test_matrix_lies_in_the_plane_of_the_slices() -> None:
    """Stripes along a fine axis blur, steps across the slices stay."""
    across = torch.zeros(6, 8, 8)
    across[::2] = 1.0
    kept = site(make(across, (5.0, 1.0, 1.0)), matrix=(4, 4)).image_CIJK[0]
    torch.testing.assert_close(kept, across, atol=1e-5, rtol=0)
    stripes = across.permute(1, 0, 2)[:, :6]
    gone = site(make(stripes, (5.0, 1.0, 1.0)), matrix=(4, 4)).image_CIJK[0]
    assert float(gone.std()) < 0.3 * float(stripes.std())


AXIS_MM = st.floats(0.6, 3.5)
TRIPLE_MM = st.tuples(AXIS_MM, AXIS_MM, AXIS_MM)
OPTIONAL_MM = st.tuples(*[st.one_of(st.none(), AXIS_MM)] * 3)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(TRIPLE_MM, OPTIONAL_MM, OPTIONAL_MM, st.sampled_from(["box", "gaussian"]), st.integers(0, 10**6))
def test_a_landmark_stays_within_half_a_voxel_under_any_chain(
    old_mm: Triple, first_mm: tuple[float | None, ...], second_mm: tuple[float | None, ...], slice_profile: str, seed: int
) -> None:
    """Grid upon grid, field of view and matrix, in any orientation of axes: the centre of a bright blob stays."""
    rng = numpy_generator(seed, "test")
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * old_mm, rng.uniform(-100, 100, 3)
    index = rng.integers(10, 15, 3)
    image = torch.zeros(1, 24, 25, 26)
    image[0, index[0], index[1], index[2]] = 1.0
    case = Case("c", "p", image, None, affine)
    new = site(case, spacing_mm=first_mm, slice_profile=slice_profile, field_of_view_mm=tuple(20 * mm for mm in old_mm))
    new = site(new, spacing_mm=second_mm, slice_profile=slice_profile)
    found_mm = np.average(points_mm(new).reshape(-1, 3), axis=0, weights=new.image_CIJK[0].numpy().reshape(-1))
    off_mm = rotation.T @ (found_mm - (affine[:3, :3] @ index + affine[:3, 3]))
    # Every grid may move the centre by half of its own voxel, or of the one before where that is larger.
    steps_mm, before_mm = np.zeros(3), np.array(old_mm)
    for grid_mm in (first_mm, second_mm):
        after_mm = np.array([old if mm is None else mm for mm, old in zip(grid_mm, before_mm, strict=True)])
        steps_mm += np.where([mm is None for mm in grid_mm], 0.0, np.maximum(before_mm, after_mm))
        before_mm = after_mm
    assert (np.abs(off_mm) <= 0.5 * steps_mm + 1e-6).all()
    # And no grid has a direction that it moves things in: the middle of the volume stays where it is on all.
    blob = Case("c", "p", torch.ones_like(image), None, affine)
    middle_mm = points_mm(blob).mean(axis=(0, 1, 2))
    cut = site(site(blob, spacing_mm=first_mm, slice_profile=slice_profile), spacing_mm=second_mm)
    np.testing.assert_allclose(points_mm(cut).mean(axis=(0, 1, 2)), middle_mm, atol=1e-6)
