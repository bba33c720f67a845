"""A folder of DICOM slices as one volume, refused where the slices do not make one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raykd.data.integrity import DamagedFile
from raykd.data.sources._dicom_text import CHARACTER_SET, decoded
from raykd.data.volume_io import ImageVolume, as_image, blaming, check_geometry, from_itk, refusal, to_ras

SERIES_UID, INSTANCE_UID, POSITION, ORIENTATION = "0020|000e", "0008|0018", "0020|0032", "0020|0037"
PATIENT_ID, SERIES_DESCRIPTION, BITS_ALLOCATED, TRANSFER_SYNTAX = "0010|0020", "0008|103e", "0028|0100", "0002|0010"
ISSUER = "0010|0021"
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
UNEVEN, OFF_LINE_MM = 0.05, 0.05
"""Largest difference between two gaps, relative to the usual one, and largest drift of a slice away from the common normal."""


@dataclass(frozen=True)
class Slice:
    """One file of a series: its size in voxels (columns, rows, frames), its tags as text, and where its first voxel lies."""

    path: Path
    size: tuple[int, ...]
    tags: Mapping[str, str]

    @property
    def position_mm(self) -> NDArray[np.float64]:
        """In LPS."""
        return _numbers(self, POSITION, 3)

    @property
    def directions(self) -> NDArray[np.float64]:
        """4 x 4: where columns, rows and slices run to, in LPS."""
        along_row, along_column = np.split(_numbers(self, ORIENTATION, 6), 2)
        directions = np.eye(4)
        directions[:3, :3] = np.stack([along_row, along_column, np.cross(along_row, along_column)], axis=1)
        return directions

    @property
    def normal(self) -> NDArray[np.float64]:
        """The direction across the slice, in LPS."""
        return self.directions[:3, 2]


def series_files(folder: Path) -> tuple[Path, ...]:
    """The files of a series folder by name; hidden ones and `DICOMDIR` are none of a series."""
    return tuple(sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != "." and path.name != "DICOMDIR"))


def read_slice(path: Path, case_id: str) -> Slice:
    """The header of a DICOM file. Raises `DataError` where it is none, or is shorter than its header says."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        hint = "copy it again, or move it out of the folder"
        raise refusal("a file of a series must be readable as DICOM", path=path, case_id=case_id, got="none", hint=hint) from None
    tags = {tag: reader.GetMetaData(tag).strip().strip("\0") for tag in reader.GetMetaDataKeys()}
    found = Slice(path, tuple(reader.GetSize()), tags)
    num_bytes = int(np.prod(found.size)) * int(tags.get(BITS_ALLOCATED, "16")) // 8
    if tags.get(TRANSFER_SYNTAX, UNCOMPRESSED[0]) in UNCOMPRESSED and path.stat().st_size < num_bytes:
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
    import SimpleITK

    ordered = read_slices(folder, case_id)
    with blaming(folder, case_id):
        reader = SimpleITK.ImageSeriesReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileNames([str(found.path) for found in ordered])
        check_geometry((*ordered[0].size[:2], len(ordered)), (1.0, 1.0, 1.0))
        try:
            image = reader.Execute()
        except RuntimeError as error:
            raise DamagedFile("a series must be readable", str(error).strip().splitlines()[-1].strip()) from None
        array, affine = to_ras(*from_itk(image))
        return as_image(array), affine


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
    pairs = list(zip(gaps_mm.tolist(), ordered[:-1], ordered[1:], strict=True))
    twins = [f"{below.path.name} and {above.path.name}" for gap, below, above in pairs if gap <= UNEVEN * usual_mm]
    if twins:
        raise DamagedFile("no two slices may lie in one place", "; ".join(twins), "remove the copies, or split the time points")
    uneven = [
        f"{gap:.2f} mm between {below.path.name} and {above.path.name}"
        for gap, below, above in pairs
        if abs(gap - usual_mm) > UNEVEN * usual_mm
    ]
    if uneven:
        rule = f"slices must be evenly spaced, here {usual_mm:.2f} mm apart"
        raise DamagedFile(rule, "; ".join(uneven), "find the missing slices")
    drift_mm = np.linalg.norm(positions_mm - positions_mm[0] - np.outer((positions_mm - positions_mm[0]) @ normal, normal), axis=1)
    if drift_mm.max() > OFF_LINE_MM:
        hint = "correct the gantry tilt by resampling"
        raise DamagedFile("slices must lie straight above one another", f"a shift of {drift_mm.max():.2f} mm", hint)
    return ordered


def _check_alike(slices: list[Slice]) -> None:
    series = Counter(found.tags.get(SERIES_UID, "none") for found in slices)
    if len(series) > 1:
        got = ", ".join(f"{uid} ({num} files)" for uid, num in sorted(series.items()))
        raise DamagedFile("a folder must hold one series", got, "move each series to a folder of its own")
    twice = [uid for uid, num in Counter(found.tags.get(INSTANCE_UID, found.path.name) for found in slices).items() if num > 1]
    if twice:
        names = [found.path.name for found in slices if found.tags.get(INSTANCE_UID) in twice]
        raise DamagedFile("no slice may be there twice", ", ".join(names), "remove the copies")
    if len({found.size for found in slices}) > 1:
        raise DamagedFile("slices must be of one size", ", ".join(sorted({str(found.size[:2]) for found in slices})))
    off = [found.path.name for found in slices if not np.allclose(found.normal, slices[0].normal, atol=1e-3)]
    if off:
        raise DamagedFile("slices must be parallel", ", ".join(off), "move scouts and other series out of the folder")


def _numbers(found: Slice, tag: str, num: int) -> NDArray[np.float64]:
    try:
        numbers = np.array([float(text) for text in found.tags.get(tag, "").split("\\")])
    except ValueError:
        numbers = np.empty(0)
    if numbers.size != num or not np.isfinite(numbers).all():
        raise DamagedFile(f"every slice must have tag ({tag.replace('|', ',')})", f"{found.tags.get(tag)!r} in {found.path.name}")
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
