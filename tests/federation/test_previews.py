"""Slices for the eye: the right ones, the right way up, with the numbers that a picture needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raykd.data.case import Case, affine_from_spacing
from raykd.data.heterogeneity.resolution import crop_field_of_view, resample_case
from raykd.federation.previews import preview_rows, previewed

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
    [([0, 10, 1, 10, 10, 0], [1, 2, 3, 4]), ([0, 0, 0, 0, 9, 0], [4]), ([5, 0, 0, 0, 0, 5], [0, 5])],
)
def test_every_slice_that_is_labelled_is_shown(counts: list[int], expected: list[int]) -> None:
    assert slices_of(counts) == expected


def test_of_many_slices_some_are_kept_evenly_and_the_fullest_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six, three are the first, the middle (2.5, to the even 2) and the last; the fullest takes the place of the nearest."""
    monkeypatch.setattr("raykd.federation.previews.NUM_SLICES", 3)
    assert slices_of([4, 4, 9, 4, 4, 4]) == [0, 2, 5]
    assert slices_of([4, 4, 4, 9, 4, 4]) == [0, 3, 5]
    assert slices_of([4, 9, 4, 4, 4, 4]) == [1, 2, 5]
    monkeypatch.setattr("raykd.federation.previews.NUM_SLICES", 12)
    monkeypatch.setattr("raykd.federation.previews.NUM_PIXELS", 4 * 7 * 8)  # slices are 7 by 8
    assert slices_of([4] * 6) == [0, 2, 3, 5]


def test_the_case_that_students_do_worst_on_is_kept_beside_the_first() -> None:
    cases = [replace(a_case(), case_id=name) for name in ("a", "b", "c")]
    scores = [("a", "global", 0.9), ("b", "global", 0.8), ("b", "personal", 0.1), ("c", "global", 0.5), ("c", "teacher", 0.0)]
    rows = [{"split": "test", "case_id": name, "model": model, "dsc": dsc} for name, model, dsc in scores]
    rows.append({"split": "validation", "case_id": "c", "model": "global", "dsc": 0.0})
    assert [case.case_id for case in previewed(cases, rows, 1)] == ["a", "b"]  # means of b and c: 0.45 and 0.5
    assert [case.case_id for case in previewed(cases, rows, 2)] == ["a", "b"]
    assert previewed(cases, rows, 0) == []
    assert [case.case_id for case in previewed(cases, [], 1)] == ["a"]


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


def site_grid(spacing_mm: tuple[float, float, float], shape: tuple[int, int, int], centre_mm: tuple[float, float, float]) -> Case:
    """A dark site's case on a grid somewhere in the world, labelled in the slice in the middle of the coarsest axis."""
    affine = affine_from_spacing(spacing_mm, shape)
    affine[:3, 3] += centre_mm
    label, axis = torch.zeros(shape, dtype=torch.uint8), int(np.argmax(spacing_mm))
    label.select(axis, shape[axis] // 2).fill_(1)
    return Case("c-1", "p-1", torch.zeros(shape)[None], label, affine)


def source_of(image: Tensor, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Case:
    shape = (image.shape[0], image.shape[1], image.shape[2])
    return Case("c-1", "p-1", image[None].float(), None, affine_from_spacing(spacing_mm, shape))


def with_source(site: Case, source: Case) -> dict[str, dict[str, Any]]:
    return {row["layer"]: row for row in preview_rows(site, {}, round_index=0, client_id=0, source=source)}


def test_a_bright_line_of_the_body_is_at_the_same_place_in_both_pictures() -> None:
    image = torch.zeros(40, 36, 44)
    image[:, 12, 30] = 1.0  # at J = 12 - 17.5 = -5.5 mm and K = 30 - 21.5 = 8.5 mm
    source = source_of(image)
    site = resample_case(crop_field_of_view(replace(source, label_IJK=(image > 0).to(torch.uint8)), (36, 30, 40)), (4.0, 1.5, 1.5))
    layers = with_source(replace(site, label_IJK=torch.ones(site.shape, dtype=torch.uint8)), source)
    # The site's block: 30 mm of J and 26 whole voxels of 1.5 mm, 39 mm, of K, both about 0. Down from the top (19.5 mm) and right
    # from the front (15 mm) the line lies 11 and 20.5 mm away.
    for layer, voxel_mm in (("source", 1.0), ("image", 1.5)):
        row = layers[layer]
        down, right = np.unravel_index(int(pixels(row).argmax()), pixels(row).shape)
        assert (down + 0.5) * row["row_mm"] == pytest.approx(11.0, abs=voxel_mm / 2 + 1e-6)
        assert (right + 0.5) * row["col_mm"] == pytest.approx(20.5, abs=voxel_mm / 2 + 1e-6)


@pytest.mark.parametrize(("axis", "centre_mm"), [(0, 3.2), (1, -4.0), (2, 0.0)])
def test_the_source_is_shown_in_the_plane_of_the_site_s_slice(axis: int, centre_mm: float) -> None:
    """A source that is as bright as its voxel's number along the axis shows the one nearest to the slice's centre."""
    source = source_of(torch.arange(20.0).view([-1 if a == axis else 1 for a in range(3)]).expand(20, 20, 20))
    place = (centre_mm, 0.0, 0.0) if axis == 0 else (0.0, centre_mm, 0.0) if axis == 1 else (0.0, 0.0, centre_mm)
    spacing_mm = (5.0, 2.0, 2.0) if axis == 0 else (2.0, 5.0, 2.0) if axis == 1 else (2.0, 2.0, 5.0)
    row = with_source(site_grid(spacing_mm, (3, 3, 3), place), source)["source"]
    nearest = math.floor(centre_mm + 9.5 + 0.5 - 1e-3)  # voxel n of the source lies at n - 9.5 mm
    low, high = np.percentile(np.repeat(np.arange(20), 400), [1, 99.5])
    assert set(pixels(row).ravel().tolist()) == {round((nearest - low) / (high - low) * 255)}


def test_source_and_image_cover_the_same_millimetres_each_on_voxels_of_its_own() -> None:
    layers = with_source(site_grid((6.0, 2.0, 3.0), (3, 9, 5), (0.0, 0.0, 0.0)), source_of(torch.rand(30, 50, 40), (1.0, 0.4, 0.6)))
    image, source = layers["image"], layers["source"]
    assert (image["rows"], image["cols"], image["slice_mm"], image["row_mm"], image["col_mm"]) == (5, 9, 6.0, 3.0, 2.0)
    # 15 mm in voxels of 0.6 mm and 18 mm in voxels of 0.4 mm.
    assert (source["rows"], source["cols"]) == (25, 45)
    assert (source["slice_mm"], source["row_mm"], source["col_mm"]) == pytest.approx((1.0, 0.6, 0.4))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_case_that_no_shift_changed_looks_like_its_source(axis: int) -> None:
    case = a_case(axis)
    rows = preview_rows(case, {}, round_index=0, client_id=0, source=case)
    pairs = {(row["slice_index"], row["layer"]): pixels(row) for row in rows}
    (fullest,) = (index for index, layer in pairs if layer == "source")
    assert np.array_equal(pairs[fullest, "image"], pairs[fullest, "source"])


def test_every_voxel_between_two_places_is_shown_once() -> None:
    """Three site voxels of 3 mm lie half a source voxel off the source's ten: nine neighbours, none twice."""
    ramp = torch.arange(10.0).view(1, 10, 1).expand(10, 10, 10)
    row = with_source(site_grid((5.0, 3.0, 3.0), (1, 3, 3), (0.0, 0.0, 0.0)), source_of(ramp))["source"]
    assert (np.diff(pixels(row)[0].astype(int)) < 0).all() and pixels(row).shape == (9, 9)


def test_what_lies_outside_the_source_is_dark_also_where_air_is_negative() -> None:
    source = source_of(torch.linspace(-1000.0, 500.0, 1000).reshape(10, 10, 10))
    row = with_source(site_grid((5.0, 1.0, 1.0), (1, 30, 10), (3.0, 0.0, 0.0)), source)["source"]
    assert pixels(row).shape == (10, 30)
    assert not pixels(row)[:, :10].any() and not pixels(row)[:, 20:].any() and pixels(row)[:, 10:20].all()


def test_sites_show_their_source_and_the_repository_a_case_of_its_own(run: Callable[..., Any]) -> None:
    previews = run("method={name: teacher_only}", "evaluation.previews=1").table("previews")
    layers = previews.groupby("client_id")["layer"].agg(lambda names: set(names.astype(str)))
    assert layers[-1] == {"image", "reference", "teacher"}
    assert sorted(layers.index) == [-1, 0, 1, 2]
    assert all({"source", "image", "reference"} < layers[client_id] for client_id in (0, 1, 2))
    assert set(previews.loc[previews["client_id"] == -1, "round"]) == {-1}
    assert previews.loc[previews["client_id"] == -1, "case_id"].nunique() == 1
    assert (previews["slice_mm"] > 0).all()


def test_no_previews_are_kept_where_none_are_asked_for(run: Callable[..., Any]) -> None:
    assert run("method={name: teacher_only}").table("previews").empty
