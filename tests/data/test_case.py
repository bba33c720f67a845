"""A case, its place in space, and the bridge to TorchIO."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from raykd.data.case import Case, affine_from_spacing
from raykd.scenario.errors import DataError

SHAPE = (3, 4, 5)


def a_case(label: bool = True) -> Case:
    voxels = torch.arange(60.0).reshape(1, *SHAPE)
    labels = (voxels[0] % 3).to(torch.uint8)
    labels[0, 0, 0] = 255
    return Case("c-1", "p-1", voxels, labels if label else None, affine_from_spacing((3.5, 1.25, 0.5), SHAPE), {"source.age": 50.0})


def test_spacing_and_shape_are_read_from_affine_and_image() -> None:
    assert a_case().spacing_mm == (3.5, 1.25, 0.5) and a_case().shape == SHAPE


def test_spacing_of_a_turned_grid_is_the_length_of_its_edges() -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[0.6, -0.8], [0.8, 0.6]]
    turned = dataclasses.replace(a_case(), affine=turn @ a_case().affine)
    assert turned.spacing_mm == pytest.approx((3.5, 1.25, 0.5))


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1, 1), (2, 7, 8)])
def test_the_centre_of_the_grid_lies_at_the_origin(shape: tuple[int, int, int]) -> None:
    affine = affine_from_spacing((3.5, 1.25, 0.5), shape)
    first, last = affine @ [0, 0, 0, 1], affine @ [*(n - 1 for n in shape), 1]
    assert np.allclose((first + last) / 2, [0, 0, 0, 1])


def test_axes_run_to_the_right_the_front_and_up() -> None:
    affine = affine_from_spacing((3.5, 1.25, 0.5), SHAPE)
    assert np.array_equal(affine[:3, :3], np.diag([3.5, 1.25, 0.5]))


def test_a_record_grows_and_the_case_before_stays_as_it_was() -> None:
    case = a_case()
    longer = case.with_record(**{"scanner.noise": 0.1, "source.age": 51.0})
    assert longer.record == {"source.age": 51.0, "scanner.noise": 0.1} and case.record == {"source.age": 50.0}
    assert longer.image_CIJK is case.image_CIJK


@pytest.mark.parametrize("label", [True, False])
def test_a_case_survives_the_way_through_torchio(label: bool) -> None:
    case = a_case(label)
    subject = case.to_subject()
    assert ("label" in subject) is label and subject["image"].spacing == pytest.approx((3.5, 1.25, 0.5))
    back = case.from_subject(subject)
    assert torch.equal(back.image_CIJK, case.image_CIJK) and back.image_CIJK.dtype == torch.float32
    assert np.array_equal(back.affine, case.affine) and back.record == case.record and back.case_id == "c-1"
    if case.label_IJK is None:
        assert back.label_IJK is None
    else:
        assert back.label_IJK is not None and torch.equal(back.label_IJK, case.label_IJK) and back.label_IJK.dtype == torch.uint8


def test_what_a_transform_did_to_image_label_and_affine_comes_back() -> None:
    import torchio

    case = a_case()
    cropped = case.from_subject(torchio.Crop((1, 0, 0, 2, 0, 0))(case.to_subject()))
    assert cropped.shape == (2, 2, 5)
    assert torch.equal(cropped.image_CIJK, case.image_CIJK[:, 1:, :2])
    assert cropped.label_IJK is not None and torch.equal(cropped.label_IJK, case.label_IJK[1:, :2])  # type: ignore[index]
    # The first voxel kept is the one that had index (1, 0, 0).
    assert np.allclose(cropped.affine[:, 3], case.affine @ [1, 0, 0, 1])


def test_an_image_that_a_shift_left_constant_is_refused() -> None:
    case = Case("c7", "p", torch.full((1, 2, 2, 2), 3.0), None, affine_from_spacing((1.0, 1.0, 1.0), (2, 2, 2)))
    with pytest.raises(DataError, match=r"rural: case c7: an image must not be constant .* got 3 everywhere"):
        case.check_contrast("rural")
    dataclasses.replace(case, image_CIJK=torch.arange(8.0).reshape(1, 2, 2, 2)).check_contrast("rural")
