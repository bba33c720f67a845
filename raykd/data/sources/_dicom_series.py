"""A folder of DICOM slices as one volume, refused where the slices do not make one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raykd.data.integrity import MAX_HEADER_BYTES, DamagedFile
from raykd.data.pose import TOLERANCE_EDGE, TOLERANCE_MM
from raykd.data.sources._dicom_text import CHARACTER_SET, decoded
from raykd.data.volume_io import LPS_TO_RAS, ImageVolume, as_image, blaming, check_geometry, refusal, to_ras

SERIES_UID, INSTANCE_UID, POSITION, ORIENTATION = "0020|000e", "0008|0018", "0020|0032", "0020|0037"
PATIENT_ID, ISSUER, SERIES_DESCRIPTION, BITS_ALLOCATED = "0010|0020", "0010|0021", "0008|103e", "0028|0100"
INSTANCE_NUMBER, PIXEL_SPACING, SLOPE, INTERCEPT = "0020|0013", "0028|0030", "0028|1053", "0028|1052"
PHOTOMETRIC, FRAME_OF_REFERENCE = "0028|0004", "0020|0052"
SHARED = {
    "a series": SERIES_UID,
    "a frame of reference": FRAME_OF_REFERENCE,
    "a kind of rescaling": "0028|1054",
    "a unit": "0054|1001",
}
"""What all slices of a folder must have in common, by tag."""
BIG_ENDIAN = "1.2.840.10008.1.2.2"
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", BIG_ENDIAN)
UNEVEN, OFF_LINE_MM = 0.05, 0.1
"""How far a slice may be from its place on an even grid, and a gap from the usual one, relative to that gap; and how far a slice
may drift away from the common normal."""
ROUNDED_MM, ROUNDED = 0.05, 0.2
"""How far a slice may be from its place because scanners write places to 0.1 mm, if that is no more than this share of the gap."""


@dataclass(frozen=True)
class Slice:
    """One file of a series: its size in voxels (columns, rows, frames), its tags as text, and where its voxels lie."""

    path: Path
    size: tuple[int, ...]
    tags: Mapping[str, str]

    @property
    def position_mm(self) -> NDArray[np.float64]:
        """In LPS."""
        return _numbers(self, POSITION, 3)

    @property
    def name(self) -> str:
        """As errors call it: its instance number and its file."""
        return f"slice {self.tags.get(INSTANCE_NUMBER, '').strip() or 'without number'} ({self.path.name})"

    @property
    def directions(self) -> NDArray[np.float64]:
        """4 x 4: where columns, rows and slices run to, in LPS. Raises `DamagedFile` where they meet at no right angle."""
        along_row, along_column = np.split(_numbers(self, ORIENTATION, 6), 2)
        lengths = np.linalg.norm([along_row, along_column], axis=1)
        if np.abs([*(lengths - 1), along_row @ along_column]).max() > 1e-3:
            got = f"{self.tags[ORIENTATION]} in {self.name}"
            raise DamagedFile(
                "the orientation of a slice must be two unit vectors at right angles", got, "convert the series again"
            )
        along_row, along_column = along_row / lengths[0], along_column / lengths[1]
        directions = np.eye(4)
        directions[:3, :3] = np.stack([along_row, along_column, np.cross(along_row, along_column)], axis=1)
        return directions

    @property
    def edges_mm(self) -> tuple[float, float]:
        """From column to column and from row to row. Raises `DamagedFile` where PixelSpacing is missing or absurd."""
        from_row, from_column = _numbers(self, PIXEL_SPACING, 2).tolist()
        check_geometry((1, 1, 1), (from_column, from_row, 1.0))
        return from_column, from_row

    @property
    def normal(self) -> NDArray[np.float64]:
        """The direction across the slice, in LPS."""
        return self.directions[:3, 2]


def series_files(folder: Path) -> tuple[Path, ...]:
    """The files of a series folder by name; hidden ones and `DICOMDIR` are none of a series."""
    there = folder.iterdir() if folder.is_dir() else ()
    return tuple(sorted(path for path in there if path.is_file() and path.name[0] != "." and path.name != "DICOMDIR"))


def read_slice(path: Path, case_id: str) -> Slice:
    """The header of a DICOM file. Raises `DataError` where it is none, or is shorter than its header says."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        hint = "copy it again, write voxels of up to 32 bits that are integers, or move it out of the folder"
        raise refusal("a file of a series must be readable as DICOM", path=path, case_id=case_id, got="none", hint=hint) from None
    tags = {tag: reader.GetMetaData(tag).strip().strip("\0") for tag in reader.GetMetaDataKeys()}
    found = Slice(path, tuple(reader.GetSize()), tags)
    num_bytes = int(np.prod(found.size)) * int(tags.get(BITS_ALLOCATED, "16")) // 8
    if _transfer_syntax(path) in UNCOMPRESSED and path.stat().st_size < num_bytes:
        got = f"{path.stat().st_size} bytes for {num_bytes} of voxels"
        raise refusal("a slice must be as long as its header says", path=path, case_id=case_id, got=got, hint="copy it again")
    if reader.GetNumberOfComponents() > 1 or found.size[2:] not in ((), (1,)):
        got = f"size {found.size}, {reader.GetNumberOfComponents()} values a voxel"
        hint = "convert multi-frame or colour DICOM to NIfTI"
        raise refusal("a file must hold one grey slice", path=path, case_id=case_id, got=got, hint=hint)
    return found


def read_slices(folder: Path, case_id: str) -> list[Slice]:
    """The slices of a folder with one series, as they lie along the normal. Raises `DataError` as `read_series` does."""
    slices = [read_slice(path, case_id) for path in series_files(folder)]
    with blaming(folder, case_id):
        return in_order(slices)


def read_series(folder: Path, case_id: str) -> ImageVolume:
    """The volume of a folder with one series, in RAS+, and its affine.

    Raises:
        DataError: the folder holds fewer than two slices or a file that is no DICOM; slices belong to several series, differ in
            size or orientation, appear twice, leave a gap or drift sideways; or the volume breaks a rule of `read_volume`.
    """
    ordered = read_slices(folder, case_id)
    with blaming(folder, case_id):
        affine, shape = _affine(ordered), (*ordered[0].size[:2], len(ordered))
        check_geometry(shape, (*ordered[0].edges_mm, float(np.linalg.norm(affine[:3, 2]))))
        array_IJK = np.empty(shape, dtype=np.float32)
        with np.errstate(over="ignore"):
            for k, found in enumerate(ordered):
                array_IJK[:, :, k] = _values(found)
        turned_IJK, affine = to_ras(array_IJK, affine)
        return as_image(turned_IJK), affine


def _affine(ordered: list[Slice]) -> NDArray[np.float64]:
    """From column, row and slice to mm in RAS+: evenly from the first slice to the last."""
    affine = ordered[0].directions
    gap_mm = (ordered[-1].position_mm - ordered[0].position_mm) @ ordered[0].normal / (len(ordered) - 1)
    affine[:3, :3] *= np.array([*ordered[0].edges_mm, gap_mm])
    affine[:3, 3] = ordered[0].position_mm
    affine_in_ras: NDArray[np.float64] = LPS_TO_RAS @ affine
    return affine_in_ras


def _values(found: Slice) -> NDArray[np.generic]:
    """The intensities of a slice (columns, rows), by its own slope and intercept, in a type that holds them."""
    import SimpleITK

    if _transfer_syntax(found.path) == BIG_ENDIAN and int(found.tags.get(BITS_ALLOCATED, "16")) > 16:
        # The standard swaps 16-bit words here, and writers swap whole voxels.
        got = f"{found.tags[BITS_ALLOCATED]} bits in {found.name}"
        raise DamagedFile("a big-endian slice must have voxels of 8 or 16 bits", got, "convert it to little endian")
    if _has_modality_lut(found.path):
        raise DamagedFile("intensities must be linear in voxels", f"a Modality LUT Sequence in {found.name}", "apply it")
    slope = _numbers(found, SLOPE, 1, "1")[0]
    _numbers(found, INTERCEPT, 1, "0")
    if slope == 0:
        raise DamagedFile("the rescale slope of a slice must not be 0", f"0 in {found.name}", "find its true slope")
    try:
        image = SimpleITK.ReadImage(str(found.path), imageIO="GDCMImageIO")
    except RuntimeError as error:
        raise DamagedFile("a slice must be readable", f"{str(error).strip().splitlines()[-1].strip()} in {found.name}") from None
    values: NDArray[np.generic] = SimpleITK.GetArrayFromImage(image).reshape(found.size[1], found.size[0]).T
    return values


def _header(path: Path) -> bytes:
    """The bytes before the voxels, as far as they are looked at."""
    with path.open("rb") as file:
        return file.read(MAX_HEADER_BYTES).split(b"\xe0\x7f\x10\x00")[0]


def _transfer_syntax(path: Path) -> str:
    """UID of how a file is encoded, which ITK does not tell; implicit little endian, DICOM's default, where there is none."""
    _, found, rest = _header(path).partition(b"\x02\x00\x10\x00UI")
    return rest[2 : 2 + int.from_bytes(rest[:2], "little")].decode("latin-1").strip("\0 ") if found else UNCOMPRESSED[0]


def _has_modality_lut(path: Path) -> bool:
    """Whether a slice maps voxels to intensities by a table, (0028,3000): ITK tells of no sequence, and applies none."""
    kind = b"" if _transfer_syntax(path) == UNCOMPRESSED[0] else b"SQ"
    return any(tag + kind in _header(path) for tag in (b"\x28\x00\x00\x30", b"\x00\x28\x30\x00"))


def in_order(slices: list[Slice]) -> list[Slice]:
    """Slices by their place along the normal. Raises `DamagedFile` where they do not make one evenly spaced volume."""
    if len(slices) < 2:
        raise DamagedFile("a series must have two slices or more", str(len(slices)), "check the pattern")
    _check_alike(slices)
    normal = slices[0].normal
    ordered = sorted(slices, key=lambda found: float(found.position_mm @ normal))
    positions_mm = np.array([found.position_mm for found in ordered])
    gaps_mm = np.diff(positions_mm @ normal)
    usual_mm = float(np.median(gaps_mm))
    rounded_mm = min(ROUNDED_MM, ROUNDED * usual_mm)
    pairs = list(zip(gaps_mm.tolist(), ordered[:-1], ordered[1:], strict=True))
    twins = [f"{below.path.name} and {above.path.name}" for gap, below, above in pairs if gap <= UNEVEN * usual_mm]
    if twins:
        raise DamagedFile("no two slices may lie in one place", "; ".join(twins), "remove the copies, or split the time points")
    uneven = [
        f"{gap:.2f} mm between {below.path.name} and {above.path.name}"
        for gap, below, above in pairs
        if abs(gap - usual_mm) > max(UNEVEN * usual_mm, 2 * rounded_mm + 1e-6)
    ]
    if uneven:
        rule = f"slices must be evenly spaced, here {usual_mm:.2f} mm apart"
        raise DamagedFile(rule, "; ".join(uneven), "find the missing slices")
    even_mm = np.linspace(0, float((positions_mm[-1] - positions_mm[0]) @ normal), len(ordered))
    off_mm = np.abs((positions_mm - positions_mm[0]) @ normal - even_mm)
    if off_mm.max() > max(UNEVEN * usual_mm, 2 * rounded_mm):
        got = f"{off_mm.max():.2f} mm from its place at {ordered[int(off_mm.argmax())].name}"
        raise DamagedFile("slices must be evenly spaced from the first to the last", got, "resample the series to an even grid")
    drift_mm = np.linalg.norm(positions_mm - positions_mm[0] - np.outer((positions_mm - positions_mm[0]) @ normal, normal), axis=1)
    if drift_mm.max() > OFF_LINE_MM:
        hint = "correct the gantry tilt by resampling"
        raise DamagedFile("slices must lie straight above one another", f"a shift of {drift_mm.max():.2f} mm", hint)
    return ordered


def _check_alike(slices: list[Slice]) -> None:
    for what, tag in SHARED.items():
        values = Counter(found.tags.get(tag, "none") for found in slices)
        if len(values) > 1:
            got = ", ".join(f"{value} ({num} files)" for value, num in sorted(values.items()))
            raise DamagedFile(f"a folder must hold one series, slices of {what} ({tag.replace('|', ',')})", got, "split the folder")
    twice = [uid for uid, num in Counter(found.tags.get(INSTANCE_UID, found.path.name) for found in slices).items() if num > 1]
    if twice:
        names = [found.path.name for found in slices if found.tags.get(INSTANCE_UID) in twice]
        raise DamagedFile("no slice may be there twice", ", ".join(names), "remove the copies")
    inverted = [found.name for found in slices if found.tags.get(PHOTOMETRIC, "") == "MONOCHROME1"]
    if inverted:
        raise DamagedFile("bright must be high (MONOCHROME2)", ", ".join(inverted), "invert the series and save it as MONOCHROME2")
    sizes = Counter(found.size for found in slices)
    usual = slices[[found.size for found in slices].index(sizes.most_common(1)[0][0])]
    _refuse_those("of one size", slices, [found.size == usual.size for found in slices], lambda found: str(found.size[:2]))
    _check_planes(slices)


def _check_planes(slices: list[Slice]) -> None:
    """Raises `DamagedFile` where slices are not parallel, or turned or scaled in their plane, by what that moves a corner."""
    planes = Counter((found.tags.get(ORIENTATION), found.tags.get(PIXEL_SPACING)) for found in slices).most_common(1)[0][0]
    usual = next(found for found in slices if (found.tags.get(ORIENTATION), found.tags.get(PIXEL_SPACING)) == planes)
    are_parallel = [bool(np.allclose(found.normal, usual.normal, atol=1e-3)) for found in slices]
    _refuse_those("parallel", slices, are_parallel, lambda found: found.tags[ORIENTATION])
    limit_mm, last = min(TOLERANCE_MM, TOLERANCE_EDGE * min(usual.edges_mm)), np.array(usual.size[:2]) - 1

    def is_near(difference: NDArray[np.float64]) -> bool:
        corners = last * [[1, 1], [1, 0], [0, 1]]
        return bool(np.linalg.norm(corners @ difference.T, axis=1).max() <= limit_mm)

    are_alike = [is_near(np.diag(found.edges_mm) - np.diag(usual.edges_mm)) for found in slices]
    _refuse_those("of one PixelSpacing", slices, are_alike, lambda found: found.tags[PIXEL_SPACING])
    are_alike = [is_near((found.directions - usual.directions)[:3, :2] * usual.edges_mm) for found in slices]
    _refuse_those("turned alike in their plane", slices, are_alike, lambda found: found.tags[ORIENTATION])


def _refuse_those(rule: str, slices: list[Slice], are_fine: list[bool], told: Callable[[Slice], str]) -> None:
    off = [f"{told(found)} in {found.name}" for found, is_fine in zip(slices, are_fine, strict=True) if not is_fine]
    if off:
        raise DamagedFile(f"slices must be {rule}", ", ".join(off), "move scouts and other series out of the folder")


def _numbers(found: Slice, tag: str, num: int, default: str = "") -> NDArray[np.float64]:
    try:
        numbers = np.array([float(text) for text in (found.tags.get(tag, "") or default).split("\\")])
    except ValueError:
        numbers = np.empty(0)
    if numbers.size != num or not np.isfinite(numbers).all():
        raise DamagedFile(f"every slice must have tag ({tag.replace('|', ',')})", f"{found.tags.get(tag)!r} in {found.name}")
    return numbers


def tag_of(folder: Path, tag: str, case_id: str) -> str:
    """The text of a tag in the first file of a folder, "" where it is absent. Raises `DataError` where there is no file."""
    return tags_of(folder, case_id).get(tag, "")


def tags_of(folder: Path, case_id: str) -> Mapping[str, str]:
    """The text of every tag in the first file of a folder, decoded. Raises `DataError` where there is no file."""
    files = series_files(folder)
    if not files:
        raise refusal("a series folder must hold files", path=folder, case_id=case_id, got="none", hint="check the pattern")
    tags = read_slice(files[0], case_id).tags
    return {tag: decoded(text, tags.get(CHARACTER_SET, "")) for tag, text in tags.items()}
