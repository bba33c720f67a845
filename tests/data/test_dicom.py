"""DICOM series and their labels: geometry, gaps, copies, mixtures, and DICOM-SEG."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from layout_files import classes_at, keys, label, problems, source, write, write_dicom, write_segmentation, write_series
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from raykd.data.integrity import DamagedFile
from raykd.data.sources._dicom_segmentation import read_segmentation
from raykd.data.sources._dicom_series import read_series
from raykd.data.sources._dicom_text import decoded
from raykd.data.sources._persons import Person
from raykd.data.volume_io import LPS_TO_RAS
from raykd.scenario.errors import DataError

SHAPE = (6, 7, 8)
# Columns run to the left and rows to the back (LPS), so RAS+ flips both axes about the far end of the grid.
RAS_AFFINE = np.array([[1.0, 0, 0, -5.0], [0, 2.0, 0, -12.0], [0, 0, 3.0, 0], [0, 0, 0, 1]])


def _voxels(name: str = "a") -> np.ndarray:
    return np.arange(np.prod(SHAPE)).reshape(SHAPE) % 251 + len(name)


def _block(**settings: object) -> dict[str, object]:
    return {"name": "dicom", "images": "scans/*", **settings}


def test_a_series_is_one_volume_in_ras_whatever_its_files_are_called(tmp_path: Path) -> None:
    for case, names in (("a", None), ("bb", [f"slice-{(5 * k) % 8}" for k in range(8)])):
        write_series(tmp_path / f"scans/{case}", _voxels(case), names)
    made = source(tmp_path, ("liver",), **_block(traits={"modality": "0008|0060", "instance": "0020|0013"}))
    first, second = made.keys()
    assert [(key.case_id, key.patient_id) for key in (first, second)] == [("a", "patient-1"), ("bb", "patient-1")]
    for key in (first, second):
        case = made.load(key)
        np.testing.assert_array_equal(case.image_CIJK[0].numpy(), _voxels(key.case_id)[::-1, ::-1])
        np.testing.assert_allclose(case.affine, RAS_AFFINE, atol=1e-4)
    assert made.traits(first) == {"modality": "MR", "instance": 1.0}
    assert [path.name for path in made.files(first)] == [f"{k:03d}.dcm" for k in range(1, 9)]
    made.check()


def test_a_sagittal_series_is_turned(tmp_path: Path) -> None:
    # Columns run to the back, rows downwards, slices to the right: (I, J, K) of the file are (P, I, R).
    write_series(tmp_path / "scans/a", _voxels(), directions=("0\\1\\0", "0\\0\\-1"), origin=(9.0, 0.0, 0.0))
    made = source(tmp_path, ("liver",), **_block())
    case = made.load(made.keys()[0])
    np.testing.assert_array_equal(case.image_CIJK[0].numpy(), _voxels()[::-1, ::-1].transpose(2, 0, 1))
    assert case.spacing_mm == pytest.approx((3.0, 1.0, 2.0))


def test_a_patient_may_come_from_the_name(tmp_path: Path) -> None:
    write_series(tmp_path / "scans/p7-day1", _voxels())
    made = source(tmp_path, ("liver",), **_block(patient_pattern="^(p[0-9]+)-"))
    assert [key.patient_id for key in keys(made)] == ["p7"]


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "scans/a", _voxels())
    paths[3].unlink()
    (line,) = problems(source(tmp_path, ("liver",), **_block()))
    assert "'a'" in line and "evenly spaced, here 3.00 mm" in line and "6.00 mm between 003.dcm and 005.dcm" in line


def test_copies_mixtures_strangers_and_cut_files_are_refused(tmp_path: Path) -> None:
    for case in ("copy", "mixed", "foreign", "cut", "single", "twin", "tilted", "wide"):
        write_series(tmp_path / f"scans/{case}", _voxels(case))
    scans = tmp_path / "scans"
    (scans / "copy/009.dcm").write_bytes((scans / "copy/002.dcm").read_bytes())
    (scans / "mixed/009.dcm").write_bytes((scans / "copy/008.dcm").read_bytes())
    (scans / "foreign/notes.txt").write_text("no slice")
    (scans / "foreign/.hidden").write_text("not looked at")
    cut = scans / "cut/005.dcm"
    cut.write_bytes(cut.read_bytes()[:-40])
    for k in range(2, 9):
        (scans / f"single/{k:03d}.dcm").unlink()
    for path, change in (("twin/004.dcm", "position"), ("tilted/004.dcm", "shift"), ("wide/004.dcm", "normal")):
        slice_ = pydicom.dcmread(scans / path)
        if change == "position":
            slice_.ImagePositionPatient[2] -= 3
        elif change == "shift":
            slice_.ImagePositionPatient[0] += 1
        else:
            slice_.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        slice_.save_as(scans / path)
    found = {line.split("'")[1]: line for line in problems(source(tmp_path, ("liver",), **_block()))}
    want = {
        "copy": ("no slice may be there twice", "002.dcm, 009.dcm"),
        "mixed": ("one series", "(8 files)", "(1 files)"),
        "foreign": ("readable as DICOM", "notes.txt"),
        "cut": ("005.dcm",),
        "single": ("two slices or more", "got 1"),
        "twin": ("in one place", "003.dcm and 004.dcm"),
        "tilted": ("straight above", "1.00 mm"),
        "wide": ("parallel", "004.dcm"),
    }
    assert found.keys() == want.keys()
    for case, parts in want.items():
        for part in parts:
            assert part in found[case]


def test_a_nifti_label_lies_on_the_series(tmp_path: Path) -> None:
    write_series(tmp_path / "scans/a", _voxels())
    write(tmp_path / "seg/a.nii.gz", label(1, 2), RAS_AFFINE)
    made = source(tmp_path, ("liver", "spleen"), **_block(labels="seg/*.nii.gz"))
    assert classes_at(made, "a", (0, 0, 0), (1, 0, 0), (2, 0, 0)) == [1, 2, 0]
    moved = RAS_AFFINE.copy()
    moved[0, 3] += 1
    write(tmp_path / "seg/a.nii.gz", label(1, 2), moved)
    (line,) = problems(source(tmp_path, ("liver", "spleen"), **_block(labels="seg/*.nii.gz")))
    assert "image's affine" in line


STORED = np.arange(4 * 5, dtype=np.uint16).reshape(4, 5)
"""Rows and columns of a slice of `_slices`."""


def _slices(
    folder: Path, num: int = 4, stored: np.ndarray = STORED, changes: dict[int, dict[str, Any]] | None = None, **tags: Any
) -> Path:
    """A series of slices of 1 x 2 mm, 3 mm apart, numbered 1, 2, ..., with tags of all and tags of some."""
    for k in range(num):
        position = {"InstanceNumber": k + 1, "ImagePositionPatient": [0.0, 0.0, 3.0 * k]}
        write_dicom(folder / f"{k + 1}.dcm", stored, **{**position, **tags, **(changes or {}).get(k, {})})
    return folder


def _refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_series(folder, "a")
    return str(caught.value)


def test_every_slice_has_its_own_slope_and_intercept(tmp_path: Path) -> None:
    # The first slice is of whole numbers above 0: its type holds neither the negative nor the fractional ones of the others.
    scales = [(1, 0), (1, -20.5), (0.5, 0), (-2, 70000)]
    changes = {k: {"RescaleSlope": slope, "RescaleIntercept": intercept} for k, (slope, intercept) in enumerate(scales)}
    image_CIJK, _ = read_series(_slices(tmp_path / "a", changes=changes), "a")
    # Columns run to the left and rows to the back: the first stored voxel is the last along I and J.
    assert image_CIJK[0, -1, -1].tolist() == [0, -20.5, 0, 70000]
    assert image_CIJK[0, 0, 0].tolist() == [19, -1.5, 9.5, 69962]


@pytest.mark.parametrize(
    ("tags", "parts"),
    [
        ({"PixelSpacing": [2.0, 1.2]}, ("one PixelSpacing", "slice 3 (3.dcm)", "2.0\\1.2")),
        ({"PixelSpacing": [1.0, 2.0]}, ("one PixelSpacing", "slice 3 (3.dcm)")),
        ({"PixelSpacing": None}, ("(0028,0030)", "slice 3 (3.dcm)")),
        ({"PixelSpacing": [0.0, 1.0]}, ("spacing must be",)),
        ({"ImageOrientationPatient": [0, 1, 0, -1, 0, 0]}, ("turned alike in their plane", "slice 3 (3.dcm)")),
        ({"ImageOrientationPatient": [0.9998, 0.02, 0, -0.02, 0.9998, 0]}, ("turned alike in their plane", "slice 3 (3.dcm)")),
        ({"ImageOrientationPatient": [-1, 0, 0, 0, 1, 0]}, ("parallel", "slice 3 (3.dcm)")),
        ({"ImageOrientationPatient": [1, 0, 0, 0.1, 0.995, 0]}, ("right angles", "slice 3 (3.dcm)")),
        ({"ImagePositionPatient": None}, ("(0020,0032)", "slice 3 (3.dcm)")),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, ("slope of a slice must not be 0", "slice 3 (3.dcm)")),
        ({"PhotometricInterpretation": "MONOCHROME1"}, ("bright must be high", "slice 3 (3.dcm)", "invert")),
        ({"FrameOfReferenceUID": "1.2.9"}, ("frame of reference", "1.2.9 (1 files)")),
        ({"RescaleType": "US"}, ("kind of rescaling", "US (1 files)")),
    ],
)
def test_a_slice_unlike_the_others_is_refused_with_its_number(tmp_path: Path, tags: dict[str, Any], parts: tuple[str, ...]) -> None:
    told = _refusal(_slices(tmp_path / "a", changes={2: tags}))
    for part in parts:
        assert part in told


def test_a_slice_of_another_size_is_refused_with_its_number(tmp_path: Path) -> None:
    write_dicom(_slices(tmp_path / "a") / "3.dcm", STORED[:, :4], InstanceNumber=3, ImagePositionPatient=[0, 0, 6])
    told = _refusal(tmp_path / "a")
    assert "of one size, got (4, 4) in slice 3 (3.dcm)" in told


def test_positions_make_the_grid_and_no_other_tag(tmp_path: Path) -> None:
    """Slices that overlap, share an instance number, or lie upside down."""
    upwards, affine = read_series(_slices(tmp_path / "a", InstanceNumber=7, SliceThickness=9, SpacingBetweenSlices=1), "a")
    assert np.linalg.norm(affine[:3, :3], axis=0).tolist() == [1, 2, 3]
    changes = {k: {"ImagePositionPatient": [0, 0, -3.0 * k]} for k in range(4)}
    downwards, affine = read_series(_slices(tmp_path / "b", stored=STORED, changes=changes), "a")
    np.testing.assert_array_equal(upwards, downwards[..., ::-1])
    assert affine[2, 3] == -9


@pytest.mark.parametrize(("missing", "is_fine"), [(None, True), (7, False)])
def test_places_that_a_scanner_rounded_to_a_tenth_are_even(tmp_path: Path, missing: int | None, is_fine: bool) -> None:
    """0, 0.6, 1.2, 1.9, ... for gaps of 0.625 mm; a missing slice is found all the same."""
    places = [round(0.625 * k, 1) for k in range(21) if k != missing]
    changes = {k: {"ImagePositionPatient": [0, 0, place]} for k, place in enumerate(places)}
    folder = _slices(tmp_path / "a", len(places), changes=changes)
    if is_fine:
        assert np.linalg.norm(read_series(folder, "a")[1][:3, 2]) == pytest.approx(0.625)
    else:
        assert "evenly spaced" in _refusal(folder)


def test_gaps_that_grow_slowly_are_no_even_grid(tmp_path: Path) -> None:
    # Each gap is within 5 % of the usual one, and in the middle a slice is 0.3 mm from its place.
    places = np.cumsum([0, *np.linspace(2.88, 3.12, 20)])
    changes = {k: {"ImagePositionPatient": [0, 0, round(place, 4)]} for k, place in enumerate(places)}
    assert "evenly spaced from the first to the last" in _refusal(_slices(tmp_path / "a", 21, changes=changes))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
@pytest.mark.parametrize(("dtype", "bits"), [("u1", None), ("i1", None), ("u2", 12), ("i2", 12), ("u2", None), ("i4", None)])
def test_stored_types_keep_their_values(tmp_path: Path, syntax: str, dtype: str, bits: int | None) -> None:
    width = bits or 8 * np.dtype(dtype).itemsize
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if dtype[0] == "i" else (0, (1 << width) - 1)
    stored = np.array([[low, high, 1], [0, low + 1, high - 1]]).astype(dtype)
    folder = _slices(tmp_path / "a", 2, stored, bits=bits, syntax=syntax)
    if dtype == "i4" and syntax.endswith(".2.2"):
        assert "big-endian" in _refusal(folder)
        return
    np.testing.assert_array_equal(read_series(folder, "a")[0][0, ::-1, ::-1, 0].T, stored.astype(np.float32))


def test_a_compressed_slice_may_be_shorter_than_its_voxels(tmp_path: Path) -> None:
    stored = np.zeros((64, 64), dtype=np.int16)
    stored[5, 9] = -7
    for path in _slices(tmp_path / "a", 2, stored).iterdir():
        slice_ = pydicom.dcmread(path)
        slice_.compress(pydicom.uid.RLELossless)
        slice_.save_as(path)
        assert path.stat().st_size < stored.nbytes
    np.testing.assert_array_equal(read_series(tmp_path / "a", "a")[0][0, ::-1, ::-1, 1].T, stored)


def test_bits_above_those_stored_are_an_overlay_and_no_intensity(tmp_path: Path) -> None:
    image_CIJK, _ = read_series(_slices(tmp_path / "a", 2, STORED | 0xF000, bits=12), "a")
    assert image_CIJK.max() == STORED.max()


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
def test_a_table_from_voxels_to_intensities_is_refused(tmp_path: Path, syntax: str) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [20, 0, 16], "HU"
    table.add_new("LUTData", "OW", np.arange(20, dtype="<u2").tobytes())
    folder = _slices(tmp_path / "a", syntax=syntax, ModalityLUTSequence=DicomSequence([table]))
    assert "Modality LUT Sequence in slice 1" in _refusal(folder)


def test_several_frames_colours_and_voxels_that_are_no_integers_are_refused(tmp_path: Path) -> None:
    write_dicom(_slices(tmp_path / "frames") / "2.dcm", np.stack([STORED] * 2), NumberOfFrames=2)
    assert "must hold one grey slice" in _refusal(tmp_path / "frames")
    floats = pydicom.dcmread(_slices(tmp_path / "floats") / "2.dcm")
    del floats.PixelData
    floats.FloatPixelData, floats.BitsAllocated = STORED.astype("<f4").tobytes(), 32
    floats.save_as(tmp_path / "floats/2.dcm")
    assert "2.dcm" in _refusal(tmp_path / "floats")


def _mask(*places: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    for place in places:
        mask[place] = True
    return mask


def test_segments_are_matched_by_name_though_each_file_numbers_its_own(tmp_path: Path) -> None:
    for case in ("a", "bb"):
        write_series(tmp_path / f"scans/{case}", _voxels(case))
    liver, spleen = _mask((0, 0, 0), (1, 0, 5)), _mask((2, 3, 5))
    write_segmentation(tmp_path / "seg/a.dcm", {1: ("Liver", liver), 2: ("Spleen", spleen)})
    write_segmentation(tmp_path / "seg/bb.dcm", {1: ("Spleen", spleen), 2: ("Gall bladder", _mask((3, 3, 3))), 3: ("Liver", liver)})
    # A voxel (i, j, k) of the file is (5 - i, 6 - j, k) in RAS+.
    places = (5, 6, 0), (4, 6, 5), (3, 3, 5), (2, 3, 3)
    made = source(tmp_path, ("spleen", "liver"), **_block(labels="seg/*.dcm"))
    assert classes_at(made, "a", *places) == [2, 2, 1, 0]
    assert classes_at(made, "bb", *places) == [2, 2, 1, 0]
    made.check()
    by_number = source(tmp_path, ("spleen", "liver"), **_block(labels="seg/*.dcm", label_values={"liver": [1], "spleen": [3]}))
    assert classes_at(by_number, "bb", *places) == [1, 1, 2, 0]


def test_a_class_without_a_segment_was_not_outlined_and_one_without_voxels_is_empty(tmp_path: Path) -> None:
    for case in ("a", "b"):
        write_series(tmp_path / f"scans/{case}", _voxels(case))
    liver, nothing = _mask((0, 0, 0)), _mask()
    write_segmentation(tmp_path / "seg/a.dcm", {1: ("Liver", liver)})
    write_segmentation(tmp_path / "seg/b.dcm", {1: ("Spleen", nothing), 2: ("Liver", liver)})
    made = source(tmp_path, ("spleen", "liver"), **_block(labels="seg/*.dcm"))
    assert [made.outlined(key) for key in keys(made)] == [(2,), None] == [made.load(key).outlined for key in keys(made)]
    by_number = source(tmp_path, ("spleen", "liver"), **_block(labels="seg/*.dcm", label_values={"liver": [2], "spleen": [1]}))
    assert [by_number.outlined(key) for key in keys(by_number)] == [(1,), None]


def test_segmentations_off_the_grid_overlapping_or_cut_are_refused(tmp_path: Path) -> None:
    for case in ("grid", "overlap", "outside", "cut"):
        write_series(tmp_path / f"scans/{case}", _voxels(case))
    mask = _mask((1, 1, 1))
    write_segmentation(tmp_path / "seg/grid.dcm", {1: ("liver", mask)}, shift_mm=0.4)
    write_segmentation(tmp_path / "seg/outside.dcm", {1: ("liver", mask)}, shift_mm=30.0)
    write_segmentation(tmp_path / "seg/overlap.dcm", {1: ("liver", mask), 2: ("spleen", mask)})
    write_segmentation(tmp_path / "seg/cut.dcm", {1: ("liver", mask)})
    cut = tmp_path / "seg/cut.dcm"
    cut.write_bytes(cut.read_bytes()[:-4])
    found = {line.split("'")[1]: line for line in problems(source(tmp_path, ("liver", "spleen"), **_block(labels="seg/*.dcm")))}
    want = {"grid": "image's grid", "outside": "lie on the image", "overlap": "share a voxel", "cut": "whole frames"}
    assert found.keys() == want.keys()
    for case, part in want.items():
        assert part in found[case] and f"{case}.dcm" in found[case]


@pytest.mark.parametrize(("scale", "is_fine"), [(1.0, True), (1.00001, True), (1.001, False), (1.009, False)])
def test_a_segmentation_lies_on_its_image_up_to_the_far_corner(tmp_path: Path, scale: float, is_fine: bool) -> None:
    # 0.9 % of a spacing of 1 mm is 0.009 mm a step, and 2.3 mm at the end of 256 columns.
    image = np.zeros((1, 256, 4, 2), dtype=np.float32), LPS_TO_RAS @ np.diag([1.0, 2.0, 3.0, 1.0])
    mask = np.zeros((256, 4, 2), dtype=bool)
    mask[0, 0, 0] = True
    write_segmentation(tmp_path / "seg.dcm", {1: ("liver", mask)}, pixel_spacing=(2.0, scale))
    if is_fine:
        assert read_segmentation(tmp_path / "seg.dcm", image)[0, 0, 0] == 1
    else:
        with pytest.raises(DamagedFile, match=r"image's grid to within 0\.03 mm"):
            read_segmentation(tmp_path / "seg.dcm", image)


def test_a_segmentation_of_other_coordinates_is_refused(tmp_path: Path) -> None:
    _slices(tmp_path / "scans/a", stored=np.arange(42, dtype=np.uint16).reshape(7, 6), FrameOfReferenceUID="1.2.1")
    write_segmentation(tmp_path / "seg/a.dcm", {1: ("liver", _mask((1, 1, 1)))}, FrameOfReferenceUID="1.2.2")
    (line,) = problems(source(tmp_path, ("liver",), **_block(labels="seg/*.dcm")))
    assert "frame of reference" in line and "1.2.1" in line and "1.2.2" in line
    write_segmentation(tmp_path / "seg/a.dcm", {1: ("liver", _mask((1, 1, 1)))}, FrameOfReferenceUID="1.2.1")
    assert classes_at(source(tmp_path, ("liver",), **_block(labels="seg/*.dcm")), "a", (4, 5, 1)) == [1]


def test_without_pydicom_a_segmentation_is_refused_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "scans/a", _voxels())
    write_segmentation(tmp_path / "seg/a.dcm", {1: ("liver", _mask((1, 1, 1)))})
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r"install raykd\[dicom\]"):
        source(tmp_path, ("liver",), **_block(labels="seg/*.dcm")).keys()


def test_pairs_and_patterns_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must match a folder"):
        source(tmp_path, ("liver",), **_block()).keys()
    write_series(tmp_path / "scans/a", _voxels())
    write(tmp_path / "seg/b.nii.gz", label(1))
    lines = problems(source(tmp_path, ("liver",), **_block(labels="seg/*.nii.gz")))
    assert any("'b'" in line and "must have an image" in line for line in lines)
    assert any("'a'" in line and "must have its label" in line for line in lines)


@pytest.mark.parametrize(
    ("raw", "character_set", "want"),
    [
        (b"M\xfcller", "ISO_IR 100", "M\u00fcller"),
        (b"M\xfcller", "ISO 2022 IR 100", "M\u00fcller"),
        ("M\u00fcller".encode(), "ISO_IR 192", "M\u00fcller"),
        (b"\xb7\xd9\xc0", "ISO_IR 13", "\uff77\uff99\uff80"),
        (b"\x1b$B;3ED\x1b(B", "\\ISO 2022 IR 87", "\u5c71\u7530"),
        (b"\x1b$)C\xb1\xe8", "\\ISO 2022 IR 149", "\uae40"),
        ("\u738b".encode("gb18030"), "GB18030", "\u738b"),
        (b"\xb8\xe0", "ISO_IR 144", "\u0418\u0440"),
        (b"plain", "", "plain"),
        (b"M\xfcller", "", "M\udcfcller"),
        (b"M\xfcller", "ISO_IR 192", "M\udcfcller"),
        (b"M\xfcller", "unheard of", "M\udcfcller"),
    ],
)
def test_text_is_decoded_by_the_character_set_that_is_declared(raw: bytes, character_set: str, want: str) -> None:
    assert decoded(raw.decode("utf-8", "surrogateescape"), character_set) == want


@pytest.mark.parametrize(("character_set", "is_fine"), [("ISO_IR 100", True), (None, False)])
def test_patients_are_read_as_declared_or_refused_before_a_run(tmp_path: Path, character_set: str | None, is_fine: bool) -> None:
    for path in write_series(tmp_path / "scans/a", _voxels()):
        data = pydicom.dcmread(path)
        data.SpecificCharacterSet = "ISO_IR 100"
        data.PatientID = "M\u00fcller"
        data.IssuerOfPatientID = "Ulm"
        data.save_as(path)
        if character_set is None:
            raw = path.read_bytes()
            path.write_bytes(raw.replace(b"ISO_IR 100", b"ISO_IR 6  "))
    made = source(tmp_path, ("liver",), **_block())
    if not is_fine:
        with pytest.raises(DataError, match="must be text in UTF-8") as refused:
            made.keys()
        assert "case 'a'" in str(refused.value)
        return
    (key,) = made.keys()
    assert key.patient_id == "M\u00fcller" and not made.is_guessed(key)
    assert made.persons(key) == (Person("of the scenario", "m\u00fcller", "Ulm"),)
