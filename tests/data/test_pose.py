"""Where voxels lie is read as it is written: units, the two poses of a NIfTI, NRRD's spaces; doubts are told or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from layout_files import image, source, write

from raykd.data import volume_io
from raykd.data.inspection import inspect_source
from raykd.data.integrity import DamagedFile
from raykd.data.pose import check_right_angles, distance_mm, tolerance_mm
from raykd.data.volume_io import read_volume
from raykd.scenario.errors import DataError

AFFINE = np.array([[1.0, 0, 0, -10], [0, 2.0, 0, 20], [0, 0, 3.0, 5], [0, 0, 0, 1]])
ROTATION = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


def _nifti(path: Path, sform: tuple[np.ndarray, int], qform: tuple[np.ndarray, int], unit: int = 2) -> Path:
    """A volume whose header says where it is twice: an affine and its code each."""
    header = nibabel.Nifti1Header()
    made = nibabel.Nifti1Image(image("a"), None, header)
    made.header.set_qform(*qform)
    made.header.set_sform(*sform)
    made.header["xyzt_units"] = unit
    nibabel.save(made, path)
    return path


def _nrrd(path: Path, *lines: str) -> Path:
    header = ["NRRD0005", "type: int16", "dimension: 3", "sizes: 3 4 5", "encoding: raw", "endian: little", *lines, "", ""]
    path.write_bytes("\n".join(header).encode() + np.arange(60, dtype="<i2").tobytes())
    return path


def _mha(path: Path, *lines: str) -> Path:
    header = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False", *lines]
    header += ["DimSize = 3 4 5", "ElementType = MET_SHORT", "ElementDataFile = LOCAL", ""]
    path.write_bytes("\n".join(header).encode() + np.arange(60, dtype="<i2").tobytes())
    return path


def pose_notes(path: Path) -> list[str]:
    return [f"{what} {got}" for what, got in volume_io.pose_notes(path)]


def _refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_volume(path, "case-7")
    return str(caught.value)


def test_two_grids_are_as_far_apart_as_their_furthest_corner() -> None:
    wider = AFFINE @ np.diag([1.01, 1, 1, 1])
    assert distance_mm(AFFINE, wider, (301, 4, 5)) == pytest.approx(3.0)
    moved = AFFINE.copy()
    moved[:3, 3] += (3, 4, 0)
    assert distance_mm(AFFINE, moved, (301, 4, 5)) == pytest.approx(5.0)
    assert tolerance_mm(AFFINE) == pytest.approx(0.03) and tolerance_mm(np.diag([0.1, 1, 1, 1])) == pytest.approx(0.003)


@pytest.mark.parametrize(
    ("unit", "scale", "note"), [(2, 1.0, ""), (0, 1.0, ""), (1, 1000.0, "metre"), (3, 0.001, "micron"), (10, 1.0, "")]
)
def test_the_unit_of_a_nifti_is_read(tmp_path: Path, unit: int, scale: float, note: str) -> None:
    """10 is mm and seconds."""
    written = AFFINE.copy()
    written[:3] /= scale
    path = _nifti(tmp_path / "a.nii", (written, 1), (written, 1), unit)
    np.testing.assert_allclose(read_volume(path)[1], AFFINE, rtol=1e-5)
    notes = pose_notes(path)
    assert len(notes) == bool(note) and all(note in told for told in notes)


def test_a_unit_that_is_none_of_length_is_refused(tmp_path: Path) -> None:
    assert "xyzt_units must be" in _refusal(_nifti(tmp_path / "a.nii", (AFFINE, 1), (AFFINE, 1), 5))


def test_a_nifti_in_metres_that_means_millimetres_is_refused(tmp_path: Path) -> None:
    assert "spacing must be 0.01 to 50.0 mm" in _refusal(_nifti(tmp_path / "a.nii", (AFFINE, 1), (AFFINE, 1), 1))


@pytest.mark.parametrize("code", [1, 2, 4])
def test_the_sform_counts_and_another_qform_is_told(tmp_path: Path, code: int) -> None:
    turned = AFFINE.copy()
    turned[:3, :3] = ROTATION @ turned[:3, :3]
    path = _nifti(tmp_path / "a.nii", (AFFINE, code), (turned, 1))
    np.testing.assert_allclose(read_volume(path)[1], AFFINE, atol=1e-5)
    (note,) = pose_notes(path)
    # The corner (5, 6, 0) lies at (5, 12) mm, 13 mm from the axis; a turn by 16.26 degrees moves it by 2 * 13 * sin(8.13 degrees).
    assert "3.7 mm apart" in note and "0.96" in note and "sform" in note and "qform" in note
    path = _nifti(tmp_path / "b.nii", (AFFINE, 0), (turned, 1))
    np.testing.assert_allclose(read_volume(path)[1], turned, atol=1e-5)
    assert pose_notes(path) == []


@pytest.mark.parametrize("qform_code", [0, 1])
def test_two_spacings_are_refused_with_both(tmp_path: Path, qform_code: int) -> None:
    told = _refusal(_nifti(tmp_path / "a.nii", (AFFINE @ np.diag([1.02, 1, 1, 1]), 1), (AFFINE, qform_code)))
    assert "spacing must be the same in sform and pixdim" in told and "[1.02, 2.0, 3.0] and [1.0, 2.0, 3.0]" in told


@pytest.mark.parametrize(("factor", "is_fine"), [(1.0045, True), (1.0055, False)])
@pytest.mark.parametrize("qform_code", [0, 1])
def test_a_spacing_that_was_rounded_is_told_and_the_sform_counts(
    tmp_path: Path, factor: float, is_fine: bool, qform_code: int
) -> None:
    """As pixdim 0.98 beside an sform of 0.9766."""
    path = _nifti(tmp_path / "a.nii", (AFFINE @ np.diag([1, 1, factor, 1]), 1), (AFFINE, qform_code))
    if not is_fine:
        assert "spacing must be the same in sform and pixdim" in _refusal(path)
        return
    assert np.linalg.norm(read_volume(path)[1][:3, 2]) == pytest.approx(3 * factor)
    (note,) = pose_notes(path)
    assert "and the sform counts" in note


def test_a_qform_that_is_no_rotation_is_told_where_the_sform_counts_and_else_refused(tmp_path: Path) -> None:
    for code in (1, 0):
        path = _nifti(tmp_path / "a.nii", (AFFINE, 1), (AFFINE, 1))
        content = bytearray(path.read_bytes())
        content[256:260] = np.float32(1.001).tobytes()  # quatern_b
        content[254:256] = np.int16(code).tobytes()  # sform_code
        path.write_bytes(content)
        if code:
            np.testing.assert_allclose(read_volume(path)[1], AFFINE)
            (note,) = pose_notes(path)
            assert "the qform is no rotation, and the sform counts" in note and "1.001" in note
        else:
            assert "readable as NIfTI" in _refusal(path)


def test_poses_that_mirror_one_another_are_refused_with_both(tmp_path: Path) -> None:
    told = _refusal(_nifti(tmp_path / "a.nii", (AFFINE, 1), (AFFINE @ MIRROR, 1)))
    assert "must not mirror one another" in told and "[-1.0, " in told and "[1.0, " in told


def test_a_nifti_without_pose_is_told_with_both_poses(tmp_path: Path) -> None:
    path = _nifti(tmp_path / "a.nii", (AFFINE, 0), (AFFINE, 0))
    (note,) = pose_notes(path)
    assert "pose is not known" in note and note.count("(code 0)") == 2
    _, affine = read_volume(path)
    assert np.linalg.norm(affine[:3, :3], axis=0) == pytest.approx([1, 2, 3])


def test_what_is_told_names_case_and_file(tmp_path: Path) -> None:
    _nifti(tmp_path / "a_t1.nii", (AFFINE, 0), (AFFINE, 0))
    write(tmp_path / "b_t1.nii", image("b"), AFFINE)
    made = source(tmp_path, ("liver",), name="folder", images="*_t1.nii")
    (note,) = [note for key in made.keys() for note in made.notes(key)]  # noqa: SIM118 (not a mapping)
    assert (note.case_id, note.path.name) == ("a", "a_t1.nii")


def test_what_is_told_of_many_files_is_one_sentence(tmp_path: Path) -> None:
    for name in "abc":
        _nifti(tmp_path / f"{name}_t1.nii", (AFFINE, 0), (AFFINE, 0))
    made = source(tmp_path, ("liver",), name="folder", images="*_t1.nii")
    (note,) = inspect_source(made, made.load, {}).notes
    assert "a_t1.nii: case 'a' and 2 more files: the pose is not known" in note and "(code 0)" in note


@pytest.mark.parametrize(
    ("lines", "affine"),
    [
        (("space: right-anterior-superior",), [[1, 0, 0, 10], [0, 2, 0, 20], [0, 0, 3, 30]]),
        (("space: RAS",), [[1, 0, 0, 10], [0, 2, 0, 20], [0, 0, 3, 30]]),
        (("space: left-anterior-superior",), [[1, 0, 0, -12], [0, 2, 0, 20], [0, 0, 3, 30]]),
        (("space: left-posterior-superior",), [[1, 0, 0, -12], [0, 2, 0, -26], [0, 0, 3, 30]]),
        (("space: RAS", 'space units: "mm" "mm" "mm"'), [[1, 0, 0, 10], [0, 2, 0, 20], [0, 0, 3, 30]]),
        (("space: RAS", 'space units: "cm" "cm" "cm"'), [[10, 0, 0, 100], [0, 20, 0, 200], [0, 0, 30, 300]]),
        (("space: RAS", 'space units: "microns" "microns" "microns"'), None),
        (("space: RAS", 'space units: "mm" "mm" "cm"'), None),
        (("space: RAS", 'space units: "in" "in" "in"'), None),
    ],
)
def test_space_and_units_of_an_nrrd_are_read(tmp_path: Path, lines: tuple[str, ...], affine: list[list[int]] | None) -> None:
    path = _nrrd(tmp_path / "a.nrrd", *lines, "space directions: (1,0,0) (0,2,0) (0,0,3)", "space origin: (10,20,30)")
    if affine is None:
        assert "spacing must be" in (told := _refusal(path)) or "one unit of length" in told
    else:
        np.testing.assert_allclose(read_volume(path)[1][:3], affine)
        assert len(pose_notes(path)) == any("cm" in line for line in lines)


@pytest.mark.parametrize("lines", [(), ("spacings: 1 2 3",), ("space: scanner-xyz", "space directions: (1,0,0) (0,2,0) (0,0,3)")])
def test_an_nrrd_without_a_patients_space_is_told(tmp_path: Path, lines: tuple[str, ...]) -> None:
    (note,) = pose_notes(_nrrd(tmp_path / "a.nrrd", *lines))
    assert "pose is not known" in note and "left, to the back and upwards" in note


def test_an_nrrd_axis_without_direction_is_refused(tmp_path: Path) -> None:
    assert "direction in space" in _refusal(_nrrd(tmp_path / "a.nrrd", "space: RAS", "space directions: none (0,2,0) (0,0,3)"))


MATRIX = "TransformMatrix = 1 0 0 0 1 0 0 0 1"


@pytest.mark.parametrize(("unit", "scale"), [("", 1.0), ("mm", 1.0), ("cm", 10.0), ("um", 0.001), ("inch", None)])
def test_the_unit_of_a_metaimage_is_read(tmp_path: Path, unit: str, scale: float | None) -> None:
    edges = [edge / scale if scale is not None and scale < 1 else edge for edge in (1, 2, 3)]
    lines = [
        MATRIX,
        "Offset = 0 0 0",
        f"ElementSpacing = {edges[0]} {edges[1]} {edges[2]}",
        *([f"DistanceUnits = {unit}"] if unit else []),
    ]
    path = _mha(tmp_path / "a.mha", *lines)
    if scale is None:
        assert "one unit of length" in _refusal(path)
    else:
        expected = np.multiply(edges, scale)
        np.testing.assert_allclose(np.linalg.norm(read_volume(path)[1][:3, :3], axis=0), expected)
        assert len(pose_notes(path)) == (scale != 1)


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        (("ElementToIntensityFunctionSlope = 2",), "voxels must be intensities"),
        (("ElementToIntensityFunctionOffset = -1024",), "voxels must be intensities"),
        (("TransformMatrix = 2 0 0 0 1 0 0 0 1",), "must have length 1"),
        (("TransformMatrix = 1 0 0 0.6 0.8 0 0 0 1", "ElementSpacing = 1 2 3"), "right angles"),
    ],
)
def test_what_a_metaimage_says_that_itk_does_not_is_refused(tmp_path: Path, lines: tuple[str, ...], part: str) -> None:
    assert part in _refusal(_mha(tmp_path / "a.mha", *lines))


def test_a_metaimage_without_pose_is_told(tmp_path: Path) -> None:
    (note,) = pose_notes(_mha(tmp_path / "a.mha", "ElementSpacing = 1 2 3", "AnatomicalOrientation = RAS"))
    assert "pose is not known" in note and "AnatomicalOrientation RAS" in note
    assert pose_notes(_mha(tmp_path / "b.mha", "ElementSpacing = 1 2 3", MATRIX)) == []


def _tilted(degrees: float) -> np.ndarray:
    """Slices 3 mm apart along an axis that leans towards the back, as a tilted gantry stacks them."""
    affine = AFFINE.copy()
    affine[1, 2] = 3.0 * np.tan(np.deg2rad(degrees))
    return affine


@pytest.mark.parametrize("degrees", [16.0, 5.0, 1.0])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_a_tilted_gantry_is_refused_with_what_it_would_cost(tmp_path: Path, degrees: float, suffix: str) -> None:
    affine = _tilted(degrees)
    # The edge along the slices is longer by 1 / cos(tilt), and so would be every volume: 4.0 % at 16 degrees.
    surplus = 100 * (1 / np.cos(np.deg2rad(degrees)) - 1)
    with pytest.raises(DamagedFile) as caught:
        check_right_angles(affine, (40, 40, 80))
    assert f"volumes {surplus:.1f} % too large" in caught.value.got
    if suffix == ".nrrd":
        vectors = " ".join("({})".format(",".join(map(str, column))) for column in affine[:3, :3].T)
        path = _nrrd(tmp_path / "a.nrrd", "space: RAS", f"space directions: {vectors}", "space origin: (0,0,0)")
    else:
        path = tmp_path / "a.nii.gz"
        made = nibabel.Nifti1Image(np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32), affine)
        made.header.set_qform(AFFINE, 0)
        made.header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
        nibabel.save(made, path)
    if degrees > 1:  # over eight slices a tilt of one degree moves nothing by a quarter of a voxel
        assert "right angles" in _refusal(path)


@pytest.mark.parametrize("turn", [np.eye(3), ROTATION])
def test_rounding_is_no_shear(turn: Any) -> None:
    affine = AFFINE.copy()
    affine[:3, :3] = (turn @ affine[:3, :3]).astype(np.float32)
    check_right_angles(affine, (512, 512, 512))


@pytest.mark.parametrize(("factor", "is_fine"), [(1.0, True), (1.000_01, True), (1.0005, False)])
def test_a_label_lies_on_its_image_up_to_the_far_corner(tmp_path: Path, factor: float, is_fine: bool) -> None:
    # 0.05 % of 1 mm is far below a thousandth of a voxel a step, and 0.1 mm at the end of 201 voxels.
    shape = (201, 3, 3)
    write(tmp_path / "a_t1.nii.gz", image("a", shape), AFFINE)
    write(tmp_path / "a_seg.nii.gz", np.ones(shape, np.uint8), AFFINE @ np.diag([factor, 1, 1, 1]))
    made = source(tmp_path, ("liver",), name="folder", images="*_t1.nii.gz", labels="*_seg.nii.gz")
    if is_fine:
        made.check()
    else:
        with pytest.raises(DataError, match=r"to within 0\.03 mm at every corner.*0\.1 mm off"):
            made.check()
