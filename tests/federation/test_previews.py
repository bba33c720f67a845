"""Slices for the eye: the right ones, the right way up, with the numbers that a picture needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raykd.data.case import Case, affine_from_spacing
from raykd.federation.previews import preview_rows

SHAPE = (6, 7, 8)
SPACINGS = {0: (3.0, 1.0, 1.5), 1: (1.0, 3.0, 1.5), 2: (1.0, 1.5, 3.0)}


def coordinate_along(axis: int) -> Tensor:
    return torch.arange(SHAPE[axis]).view([-1 if a == axis else 1 for a in range(3)]).expand(SHAPE).to(torch.uint8)


def a_case(axis: int = 0, label: Tensor | None = None, image: Tensor | None = None) -> Case:
    voxels = torch.rand(SHAPE) if image is None else image
    labels = torch.ones(SHAPE, dtype=torch.uint8) if label is None else label
    return Case("c-1", "p-1", voxels[None], labels, affine_from_spacing(SPACINGS[axis], SHAPE))


def previews(case: Case, **predictions: Tensor) -> list[dict[str, Any]]:
    return preview_rows(case, predictions, round_index=3, client_id=1)


def pixels(row: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(row["pixels"], dtype=np.uint8).reshape(row["rows"], row["cols"])


def test_each_slice_has_a_row_for_image_reference_and_every_prediction() -> None:
    zeros = torch.zeros(SHAPE, dtype=torch.uint8)
    rows = previews(a_case(), **{"global": zeros, "teacher": zeros})
    slices = [row["slice_index"] for row in rows if row["layer"] == "image"]
    assert [(row["slice_index"], row["layer"]) for row in rows] == [
        (at, layer) for at in slices for layer in ("image", "reference", "global", "teacher")
    ]
    assert all((row["round"], row["client_id"], row["case_id"]) == (3, 1, "c-1") for row in rows)


# Which coordinate runs down and which to the right, both falling from the top left corner.
@pytest.mark.parametrize(("axis", "down", "right"), [(0, 2, 1), (1, 2, 0), (2, 1, 0)], ids=["sagittal", "coronal", "axial"])
def test_slices_lie_across_the_coarsest_axis_head_or_front_up(axis: int, down: int, right: int) -> None:
    runs_down, runs_right = coordinate_along(down), coordinate_along(right)
    rows = previews(a_case(axis), **{"down": runs_down, "right": runs_right, "across": coordinate_along(axis)})
    assert rows
    for row in rows:
        assert row["axis"] == axis and (row["rows"], row["cols"]) == (SHAPE[down], SHAPE[right])
        assert (row["row_mm"], row["col_mm"]) == pytest.approx((SPACINGS[axis][down], SPACINGS[axis][right]))
        if row["layer"] == "down":
            assert np.array_equal(pixels(row)[:, 0], np.arange(SHAPE[down])[::-1]) and (np.ptp(pixels(row), axis=1) == 0).all()
        if row["layer"] == "right":
            assert np.array_equal(pixels(row)[0], np.arange(SHAPE[right])[::-1]) and (np.ptp(pixels(row), axis=0) == 0).all()
        if row["layer"] == "across":
            assert (pixels(row) == row["slice_index"]).all()


def slices_of(counts: list[int]) -> list[int]:
    """The slices shown of a label with so many voxels in each."""
    label = torch.zeros(SHAPE, dtype=torch.uint8)
    for index, count in enumerate(counts):
        label[index].view(-1)[:count] = 1 + index % 2
    return [row["slice_index"] for row in previews(a_case(label=label)) if row["layer"] == "reference"]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # Running totals reach 1/4, 2/4 and 3/4 of all voxels at these slices.
        ([0, 10, 10, 10, 10, 0], [1, 2, 3]),
        ([0, 0, 28, 7, 5, 0], [2, 3]),
        ([1, 1, 2, 8, 2, 2], [2, 3]),
        ([0, 0, 0, 0, 9, 0], [4]),
        ([5, 0, 0, 0, 0, 5], [0, 5]),
    ],
)
def test_slices_are_spread_over_the_labelled_voxels_and_shown_once(counts: list[int], expected: list[int]) -> None:
    assert slices_of(counts) == expected


def test_the_middle_slice_is_shown_where_nothing_is_labelled() -> None:
    assert slices_of([0] * 6) == [3]


def test_intensities_between_the_percentiles_are_spread_over_a_byte() -> None:
    ramp = torch.linspace(-50.0, 150.0, 6 * 7 * 8).reshape(SHAPE)
    label = torch.zeros(SHAPE, dtype=torch.uint8)
    label[2] = 1
    (row,) = (row for row in previews(a_case(label=label, image=ramp)) if row["layer"] == "image")
    low, high = np.percentile(ramp.numpy(), [1, 99.5])
    expected = np.clip((ramp[2].numpy() - low) / (high - low) * 255, 0, 255)
    assert np.abs(pixels(row) - expected.T[::-1, ::-1]).max() <= 0.51


def test_a_constant_image_is_black() -> None:
    rows = previews(a_case(image=torch.full(SHAPE, 5.0)))
    assert not any(pixels(row).any() for row in rows if row["layer"] == "image")
