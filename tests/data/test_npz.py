"""Archives of stacked volumes: order of cases, axes, checksums, and headers that lie."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layout_files import classes_at, keys, problems, source
from numpy.lib import format as npy
from pydantic import ValidationError

from raykd.scenario.errors import DataError

SHAPE = (4, 3, 5, 6)
IMAGES = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
LABELS = np.zeros(SHAPE, dtype=np.uint8)
LABELS[2, 0, 1, 2], LABELS[2, 2, 4, 5] = 1, 2


def _save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, **{"images": IMAGES, "labels": LABELS, "spacing_mm": np.array([1.0, 2.0, 3.0]), **arrays})
    return path


def _source(root: Path, **settings: Any) -> Any:
    return source(root, ("liver", "spleen"), name="npz", file="a.npz", **settings)


def test_cases_are_the_volumes_of_the_stack(tmp_path: Path) -> None:
    _save(tmp_path / "a.npz", people=np.array(["p", "q", "p", "r"]))
    made = _source(tmp_path, patients="people")
    assert [(key.case_id, key.patient_id) for key in keys(made)] == [("a-0", "p"), ("a-1", "q"), ("a-2", "p"), ("a-3", "r")]
    for index, key in enumerate(keys(made)):
        case = made.load(key)
        np.testing.assert_array_equal(case.image_CIJK[0].numpy(), IMAGES[index])
        assert case.spacing_mm == (1.0, 2.0, 3.0)
    assert classes_at(made, "a-2", (0, 1, 2), (2, 4, 5), (0, 0, 0)) == [1, 2, 0]
    made.check()


def test_axes_and_spacing_are_turned_to_ras(tmp_path: Path) -> None:
    _save(tmp_path / "a.npz", spacing_mm=np.arange(12).reshape(4, 3) + 1.0)
    made = _source(tmp_path, axes="SLP")
    case = made.load(made.keys()[2])
    # i runs upwards, j to the left, k to the back.
    np.testing.assert_array_equal(case.image_CIJK[0].numpy(), IMAGES[2].transpose(1, 2, 0)[::-1, ::-1])
    assert case.spacing_mm == (8.0, 9.0, 7.0)
    assert int(case.label_IJK[5 - 1 - 1, 6 - 1 - 2, 0]) == 1
    assert _source(tmp_path, spacing_mm=[3.0, 1.0, 1.0]).load(made.keys()[0]).spacing_mm == (3.0, 1.0, 1.0)
    for wrong in ("RAX", "RRS", "RA"):
        with pytest.raises(ValidationError, match="three letters"):
            _source(tmp_path, axes=wrong)


def test_every_flipped_bit_of_the_arrays_and_every_cut_is_reported(tmp_path: Path) -> None:
    # Large enough that reading one volume does not happen to read the whole array.
    shape = (4, 10, 20, 20)
    path = _save(tmp_path / "a.npz", images=np.random.default_rng(2).normal(size=shape), labels=np.zeros(shape, np.uint8))
    clean = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        first = archive.infolist()[0]
        start, size = first.header_offset + 100, first.compress_size - 100
    rng = np.random.default_rng(1)
    for position in rng.integers(start, start + size, size=25):
        path.write_bytes(clean[:position] + bytes([clean[position] ^ 16]) + clean[position + 1 :])
        assert any("a.npz" in line for line in problems(_source(tmp_path)))
    for length in rng.integers(0, len(clean), size=10):
        path.write_bytes(clean[:length])
        assert any("readable .npz archive" in line for line in problems(_source(tmp_path)))


def test_an_absurd_header_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1000, 2000, 2000, 2000)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(64))
    with pytest.raises(DataError, match=r"as long as its header says.*\(1000, 2000, 2000, 2000\)"):
        _source(tmp_path, labels=None).keys()


@pytest.mark.parametrize(
    ("arrays", "settings", "parts"),
    [
        ({}, {"images": "image"}, ("array 'image'", "did you mean 'images'?")),
        ({"labels": LABELS[:3]}, {}, ("a label for each of 4", "got 3")),
        ({"labels": LABELS[:, :2]}, {}, ("image's shape (3, 5, 6)", "(2, 5, 6)")),
        ({"labels": LABELS + 0.5}, {}, ("a label must be an integer",)),
        ({"images": IMAGES[0]}, {}, ("shape (cases, i, j, k)", "(3, 5, 6)")),
        ({"images": np.where(LABELS == 2, np.nan, IMAGES)}, {}, ("'a-2'", "finite")),
        ({"images": np.zeros(SHAPE)}, {}, ("must not be constant",)),
        ({"images": np.asfortranarray(IMAGES)}, {}, ("C order",)),
        ({"images": IMAGES[[0, 1, 2, 1]]}, {}, ("'a-3'", "the bytes of case 'a-1'")),
        ({"spacing_mm": np.ones((2, 3))}, {}, ("(3,) or (cases, 3)",)),
        ({"spacing_mm": np.array([1.0, 0.0, 1.0])}, {}, ("spacing must be",)),
        ({"people": np.arange(3)}, {"patients": "people"}, ("a patient for each of 4",)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], settings: dict[str, Any], parts: tuple[str, ...]
) -> None:
    _save(tmp_path / "a.npz", **arrays)
    report = "\n".join(problems(_source(tmp_path, **settings)))
    for part in parts:
        assert part in report


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    _save(tmp_path / "a.npz", people=np.array([{"a": 1}] * 4, dtype=object))
    with pytest.raises(DataError, match="Python objects"):
        _source(tmp_path, patients="people").keys()


def test_missing_spacing_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES)
    (first, *_) = problems(_source(tmp_path, labels=None))
    assert "'spacing_mm' of voxel edges" in first and "set spacing_mm" in first
    (tmp_path / "a.npz").unlink()
    (line,) = problems(_source(tmp_path))
    assert "a.npz" in line and "readable" in line


def _affine() -> np.ndarray:
    """Axes to the back, to the left and upwards, of 2, 1 and 3 mm."""
    return np.array([[0.0, -1.0, 0, 7], [-2.0, 0, 0, 8], [0, 0, 3.0, 9], [0, 0, 0, 1]])


def test_an_affine_says_spacing_axes_and_place(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS, affine=_affine())
    made = _source(tmp_path)
    case = made.load(made.keys()[2])
    assert case.spacing_mm == (1.0, 2.0, 3.0) and case.label_IJK is not None
    # Voxel (i, j, k) of the array is (J - 1 - j, I - 1 - i, k) in RAS+, and so is its label.
    np.testing.assert_array_equal(case.image_CIJK[0].numpy(), IMAGES[2][::-1, ::-1].transpose(1, 0, 2))
    np.testing.assert_array_equal(case.label_IJK.numpy() > 0, (LABELS[2] > 0)[::-1, ::-1].transpose(1, 0, 2))
    far = np.array(IMAGES[2].shape) - 1
    np.testing.assert_allclose(case.affine[:3, 3], [7 - far[1], 8 - 2 * far[0], 9])


@pytest.mark.parametrize(
    ("arrays", "settings", "part"),
    [
        ({"affine": _affine(), "spacing_mm": np.array([2.0, 1.0, 2.5])}, {}, "spacing must be the same"),
        ({"affine": _affine()}, {"spacing_mm": [1.0, 1.0, 1.0]}, "spacing must be the same"),
        ({"affine": _affine()}, {"axes": "RAS"}, "axes must be those of affine, PLS"),
        ({"affine": np.stack([_affine()])}, {}, "(4, 4) or (cases, 4, 4)"),
        ({"affine": np.zeros((4, 4))}, {}, "invertible"),
        ({"affine": _affine() + np.array([[0, 0, 1.5, 0], [0] * 4, [0] * 4, [0] * 4])}, {}, "right angles"),
        ({"spacing_mm": np.ones((1, 3))}, {}, "(3,) or (cases, 3)"),
    ],
)
def test_what_is_written_twice_must_agree(
    tmp_path: Path, arrays: dict[str, np.ndarray], settings: dict[str, Any], part: str
) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS, **arrays)
    made = _source(tmp_path, **settings)
    with pytest.raises(DataError) as caught:
        for key in made.keys():  # noqa: SIM118 (not a mapping)
            made.load(key)
    assert part in str(caught.value)


def test_truth_values_and_other_byte_orders_are_read_as_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES.astype(">f4"), labels=LABELS > 0, spacing_mm=np.array([1, 2, 3]))
    made = _source(tmp_path)
    case = made.load(made.keys()[2])
    np.testing.assert_array_equal(case.image_CIJK[0].numpy(), IMAGES[2].astype(np.float32))
    assert case.label_IJK is not None and torch.equal(case.label_IJK, torch.from_numpy((LABELS[2] > 0).astype(np.uint8)))
