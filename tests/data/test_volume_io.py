"""Every defect of a file is reported with the rule, the file and the case; equal volumes are read equally from every format."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from raykd.data.integrity import DamagedFile
from raykd.data.volume_io import as_label, file_digest, read_volume, write_nifti
from raykd.numerics.rng import numpy_generator
from raykd.scenario.errors import DataError

ROTATION = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])


def _volume(shape: tuple[int, ...] = (6, 7, 8)) -> np.ndarray:
    return numpy_generator(0, "test volume", *shape).normal(100, 20, size=shape).astype(np.float32)


def _affine(spacing: tuple[float, float, float] = (1.0, 2.0, 3.0)) -> np.ndarray:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-10.0, 20.0, 5.0]
    return affine


def _refused(path: Path, *parts: str, kind: str = "image") -> None:
    with pytest.raises(DataError) as caught:
        read_volume(path, "case-7", kind)
    for part in ("'case-7'", path.name, *parts):
        assert part in str(caught.value)


def _patched(path: Path, offset: int, data: bytes) -> Path:
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(data)] = data
    path.write_bytes(raw)
    return path


@pytest.fixture
def nii(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii"
    write_nifti(path, _volume(), _affine())
    return path


@pytest.fixture
def nii_gz(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii.gz"
    write_nifti(path, _volume(), _affine())
    return path


def _write_itk(path: Path, array_IJK: np.ndarray, affine: np.ndarray, compressed: bool) -> None:
    """The volume through ITK's own conventions: axes reversed, millimetres in LPS."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array_IJK.transpose(2, 1, 0)))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).flatten().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path), compressed)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "SAR", "IPL"])
@pytest.mark.parametrize("is_oblique", [False, True])
def test_every_format_and_orientation_gives_the_same_ras_volume(tmp_path: Path, axes: str, is_oblique: bool) -> None:
    ras_array, ras_affine = _volume(), _affine()
    if is_oblique:
        ras_affine[:3, :3] = ROTATION @ ras_affine[:3, :3]
    landmark = (4, 1, 6)
    place_mm = (ras_affine @ [*landmark, 1])[:3]
    # The stored grid: axis a of the file runs along axis source[a] of RAS, backwards where the letter is L, P or I.
    source = [{"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}[letter] for letter in axes]
    stored, turn = ras_array.transpose(source), np.zeros((4, 4))
    turn[3, 3] = 1
    for axis, (letter, ras_axis) in enumerate(zip(axes, source, strict=True)):
        backwards = letter in "LPI"
        stored = np.flip(stored, axis) if backwards else stored
        turn[ras_axis, axis] = -1 if backwards else 1
        turn[ras_axis, 3] = ras_array.shape[ras_axis] - 1 if backwards else 0
    files = {"a.nii.gz": None, "b.nrrd": True, "c.nrrd": False, "d.mha": True, "e.mha": False}
    for name, compressed in files.items():
        path = tmp_path / name
        if compressed is None:
            write_nifti(path, stored, ras_affine @ turn)
        else:
            _write_itk(path, stored, ras_affine @ turn, compressed)
        image_CIJK, affine = read_volume(path)
        assert image_CIJK.dtype == np.float32
        np.testing.assert_array_equal(image_CIJK, ras_array[None])
        np.testing.assert_allclose(affine, ras_affine, atol=1e-4)
        np.testing.assert_allclose((affine @ [*landmark, 1])[:3], place_mm, atol=1e-4)


def test_every_flipped_bit_of_the_compressed_voxels_is_reported(nii_gz: Path) -> None:
    clean = nii_gz.read_bytes()
    rng = numpy_generator(0, "flips")
    # The first ten bytes are gzip's own header, tested below; there is no file name after it.
    for position in rng.choice(np.arange(80, 8 * len(clean)), size=200, replace=False):
        damaged = bytearray(clean)
        damaged[position // 8] ^= 1 << (position % 8)
        nii_gz.write_bytes(damaged)
        _refused(nii_gz, "scan.nii.gz")


def test_a_flipped_bit_of_the_gzip_header_is_reported_or_changes_nothing(nii_gz: Path) -> None:
    clean, (expected, _) = nii_gz.read_bytes(), read_volume(nii_gz)
    num_reported = 0
    for position in range(80):
        damaged = bytearray(clean)
        damaged[position // 8] ^= 1 << (position % 8)
        nii_gz.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(read_volume(nii_gz)[0], expected)
        except DataError:
            num_reported += 1
    # Magic number and method are 24 bits; time, level and system are 48 bits that say nothing of the voxels.
    assert 24 <= num_reported <= 32


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nrrd", "scan.mha"])
def test_every_truncation_of_a_compressed_file_is_reported(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_nifti(path, _volume(), _affine()) if name.endswith("gz") else _write_itk(path, _volume(), _affine(), compressed=True)
    clean = path.read_bytes()
    for size in [0, len(clean) - 1, *numpy_generator(0, "cuts").integers(1, len(clean) - 1, size=20)]:
        path.write_bytes(clean[:size])
        _refused(path)


@pytest.mark.parametrize("name", ["scan.nrrd", "scan.mha"])
def test_a_flipped_bit_of_compressed_nrrd_and_mha_voxels_is_reported(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    _write_itk(path, _volume(), _affine(), compressed=True)
    clean = path.read_bytes()
    for byte in numpy_generator(0, "flips").integers(len(clean) - 500, len(clean), size=20):
        path.write_bytes(clean[:byte] + bytes([clean[byte] ^ 4]) + clean[byte + 1 :])
        _refused(path)


@pytest.mark.parametrize("name", ["scan.nii", "scan.nrrd", "scan.mha"])
def test_a_truncated_uncompressed_file_is_reported_with_both_sizes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_nifti(path, _volume(), _affine()) if name.endswith("nii") else _write_itk(path, _volume(), _affine(), compressed=False)
    path.write_bytes(path.read_bytes()[:-100])
    num_bytes = 6 * 7 * 8 * 4 + (352 if name.endswith("nii") else 0)
    _refused(path, "as long as its header says", f"{num_bytes - 100} of {num_bytes} bytes")


def test_absurd_dimensions_are_refused_before_anything_is_allocated(nii: Path, nii_gz: Path) -> None:
    dims = np.array([3, 30000, 30000, 30000], dtype="<i2").tobytes()
    _refused(_patched(nii, 40, dims), "(30000, 30000, 30000)", "1073741824 voxels")
    raw = bytearray(gzip.decompress(nii_gz.read_bytes()))
    raw[40:48] = dims
    nii_gz.write_bytes(gzip.compress(raw))
    _refused(nii_gz, "(30000, 30000, 30000)")


def test_dimensions_below_the_cap_that_the_file_cannot_hold_are_refused(nii: Path) -> None:
    _refused(_patched(nii, 40, np.array([3, 1000, 1000, 1000], dtype="<i2").tobytes()), "1696 of 4000000352 bytes")


@pytest.mark.parametrize("dims", [(3, 0, 7, 8), (3, -6, 7, 8), (2, 6, 56, 1)])
def test_empty_negative_or_missing_axes_are_refused(nii: Path, dims: tuple[int, ...]) -> None:
    _refused(_patched(nii, 40, np.array(dims, dtype="<i2").tobytes()), "shape")


def test_four_axes_are_refused_and_a_fourth_of_length_one_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "series.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.stack([_volume()] * 2, axis=-1), _affine()), path)
    _refused(path, "three axes", "(6, 7, 8, 2)", "split")
    nibabel.save(nibabel.Nifti1Image(_volume()[..., None], _affine()), path)
    np.testing.assert_array_equal(read_volume(path)[0][0], _volume())
    nrrd = tmp_path / "colours.nrrd"
    SimpleITK.WriteImage(SimpleITK.Image([4, 5, 6], SimpleITK.sitkVectorFloat32, 3), str(nrrd))
    _refused(nrrd, "three axes", "(4, 5, 6, 3)")


@pytest.mark.parametrize(("bad", "num"), [(np.nan, 1), (np.inf, 1), (-np.inf, 1), (1e300, 1)])
def test_voxels_that_are_not_finite_are_counted_and_refused(tmp_path: Path, bad: float, num: int) -> None:
    array = _volume().astype(np.float64)
    array[1, 2, 3] = bad
    path = tmp_path / "scan.nii.gz"
    write_nifti(path, array, _affine())
    _refused(path, "finite float32", f"{num} NaN or infinite")


@pytest.mark.parametrize("spacing", [0.0, 1e-4, 400.0, np.nan, np.inf])
def test_absurd_spacing_of_the_raw_header_is_refused(nii: Path, spacing: float) -> None:
    # pixdim[2]; nibabel alone would read a 0 as 1.
    _refused(_patched(nii, 84, np.float32(spacing).tobytes()), "spacing must be 0.01 to 50.0 mm")


def test_absurd_spacing_or_a_singular_affine_of_the_sform_is_refused(nii: Path) -> None:
    row = np.array([0.001, 0, 0, 0], dtype="<f4").tobytes()
    _refused(_patched(nii, 280, row), "spacing must be")
    _refused(_patched(nii, 280, bytes(16)), "affine must be finite and invertible")


def test_labels_are_integers_of_any_stored_type(tmp_path: Path) -> None:
    path = tmp_path / "label.nii.gz"
    label = np.arange(6 * 7 * 8).reshape(6, 7, 8) % 5
    for dtype in (np.uint8, np.int16, np.int64, np.float32, np.float64):
        write_nifti(path, label.astype(dtype), _affine())
        values_IJK, _ = read_volume(path, kind="label")
        assert values_IJK.dtype == np.int32
        np.testing.assert_array_equal(values_IJK, label)
    half = label.astype(np.float32)
    half[0, 0, :3] = 0.5
    write_nifti(path, half, _affine())
    _refused(path, "a label must be an integer", "3 voxels", "nearest neighbour", kind="label")


def test_scaled_integers_are_read_as_their_true_values(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.full((4, 4, 4), 10, dtype=np.int16), np.eye(4))
    image.header.set_slope_inter(2.0, -1000.0)
    nibabel.save(image, tmp_path / "scaled.nii")
    raw = nibabel.load(tmp_path / "scaled.nii").dataobj.get_unscaled()
    np.testing.assert_array_equal(read_volume(tmp_path / "scaled.nii")[0], raw[None] * 2.0 - 1000.0)


def test_missing_foreign_and_detached_files_are_refused(tmp_path: Path) -> None:
    _refused(tmp_path / "none.nii.gz", "must exist", "no such file")
    for name, content in {"a.txt": b"x", "b.nii": b"no volume" * 100, "c.nrrd": b"NRRD0004\n\n", "d.mha": b""}.items():
        (tmp_path / name).write_bytes(content)
        _refused(tmp_path / name, "must")
    (tmp_path / "voxels.raw").write_bytes(bytes(27))
    header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 3 3 3\nspacings: 1 1 1\nencoding: raw\ndata file: voxels.raw\n"
    (tmp_path / "away.nrrd").write_text(header)
    _refused(tmp_path / "away.nrrd", "hold its voxels itself")
    meta = "NDims = 3\nDimSize = 3 3 3\nElementSpacing = 1 1 1\nElementType = MET_UCHAR\nElementDataFile = voxels.raw\n"
    (tmp_path / "away.mha").write_text(meta)
    _refused(tmp_path / "away.mha", "hold its voxels itself")


def test_random_damage_anywhere_in_an_uncompressed_file_never_escapes_as_another_error(nii: Path, tmp_path: Path) -> None:
    itk = tmp_path / "scan.nrrd"
    _write_itk(itk, _volume(), _affine(), compressed=False)
    rng = numpy_generator(0, "fuzz")
    for path in (nii, itk):
        clean = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(clean)
            for position in rng.integers(0, 352, size=3):
                damaged[position] = rng.integers(256)
            path.write_bytes(damaged)
            try:
                assert np.isfinite(read_volume(path)[0]).all()
            except DataError as error:
                assert path.name in str(error)


def test_a_gzip_of_several_members_is_read_whole(nii: Path, tmp_path: Path) -> None:
    raw, path = nii.read_bytes(), tmp_path / "members.nii.gz"
    path.write_bytes(gzip.compress(raw[:700]) + gzip.compress(raw[700:]) + bytes(5))
    np.testing.assert_array_equal(read_volume(path)[0][0], _volume())
    assert file_digest(path).num_payload_bytes == len(raw)
    path.write_bytes(gzip.compress(raw) + b"rest")
    _refused(path, "checksum")


def test_a_digest_is_renewed_when_the_file_changes(nii_gz: Path) -> None:
    first = file_digest(nii_gz)
    write_nifti(nii_gz, _volume() + 1, _affine())
    assert file_digest(nii_gz).sha256 != first.sha256
    nii_gz.write_bytes(zlib.compress(b"not gzip")[:-2])
    with pytest.raises(DataError, match="checksum"):
        file_digest(nii_gz)


def test_writing_is_deterministic_and_refuses_what_is_no_volume(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_nifti(tmp_path / folder / "x.nii.gz", _volume(), _affine())
    assert (tmp_path / "one/x.nii.gz").read_bytes() == (tmp_path / "two/x.nii.gz").read_bytes()
    with pytest.raises(ValueError, match="3D array"):
        write_nifti(tmp_path / "x.nrrd", _volume(), _affine())


def test_one_channel_of_a_fourth_axis_is_read(tmp_path: Path) -> None:
    path = tmp_path / "channels.nii.gz"
    stack = np.stack([_volume() + c for c in range(3)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(np.flip(stack, 0), _affine() @ np.diag([-1.0, 1, 1, 1])), path)
    for channel in (0, 2):
        np.testing.assert_array_equal(read_volume(path, channel=channel)[0][0], stack[..., channel])
    with pytest.raises(DataError, match="channel 3 of 3"):
        read_volume(path, channel=3)
    write_nifti(path, _volume(), _affine())
    np.testing.assert_array_equal(read_volume(path, channel=0)[0][0], _volume())
    with pytest.raises(DataError, match="four axes"):
        read_volume(path, channel=1)


def test_a_metaimage_with_voxels_beside_it_is_read_and_every_change_of_them_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "scan.mhd"
    _write_itk(path, _volume(), _affine(), compressed=False)
    np.testing.assert_array_equal(read_volume(path)[0][0], _volume())
    first, voxels = file_digest(path), tmp_path / "scan.raw"
    clean = voxels.read_bytes()
    assert (first.num_payload_bytes, first.num_bytes) == (6 * 7 * 8 * 4, len(clean) + path.stat().st_size)
    voxels.write_bytes(clean[:-4] + bytes(4))
    assert file_digest(path).sha256 != first.sha256
    voxels.write_bytes(clean[:-1])
    _refused(path, "1343 of 1344 bytes")
    voxels.unlink()
    _refused(path)
    path.write_text(path.read_text().replace("scan.raw", "../scan.raw"))
    _refused(path, "one file of voxels beside it")


def test_a_compressed_metaimage_beside_its_header_is_read_against_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "scan.mhd"
    _write_itk(path, _volume(), _affine(), compressed=True)
    np.testing.assert_array_equal(read_volume(path)[0][0], _volume())
    voxels = tmp_path / "scan.zraw"
    clean = voxels.read_bytes()
    for byte in numpy_generator(0, "flips").integers(2, len(clean), size=20):
        voxels.write_bytes(clean[:byte] + bytes([clean[byte] ^ 4]) + clean[byte + 1 :])
        _refused(path)


@pytest.mark.parametrize(
    ("value", "got", "hint"),
    [
        (2.0**33, "8589934592", "number the classes 1, 2"),
        (-(2.0**40), "-1099511627776", "number the classes 1, 2"),
        (0.9999, "1 voxels that are not, as 0.9999", "round the values"),
        (0.5, "1 voxels that are not, as 0.5", "nearest neighbour"),
    ],
)
def test_labels_that_are_no_integers_are_refused_with_what_to_do(value: float, got: str, hint: str) -> None:
    values_IJK = np.array([[[0.0, 1.0, value]]])
    with pytest.raises(DamagedFile, match="a label must be") as refused:
        as_label(values_IJK)
    assert got in refused.value.got and hint in refused.value.hint
    assert as_label(np.array([[[0.0, 3.0, 2.0**31 - 1]]])).tolist() == [[[0, 3, 2**31 - 1]]]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_what_a_float32_cannot_hold_is_refused(tmp_path: Path, suffix: str) -> None:
    path, array = tmp_path / f"a{suffix}", _volume().astype(np.float64)
    array[0, 0, 0] = 1e300
    if suffix == ".nii.gz":
        nibabel.save(nibabel.Nifti1Image(array, _affine()), path)
    else:
        _write_itk(path, array, _affine(), True)
    _refused(path, "every voxel must be a finite float32", "1 NaN or infinite")


def test_a_label_beyond_32_bits_is_refused_and_not_wrapped(tmp_path: Path) -> None:
    path, array = tmp_path / "a.nii.gz", np.zeros((4, 4, 4), dtype=np.int64)
    array[0, 0, 0] = 2**32 + 1
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4), dtype=np.int64), path)
    _refused(path, "a label must be a whole number of 32 bits", "4294967297", kind="label")
