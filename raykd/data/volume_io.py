"""Volumes from and to files. Nothing is believed before it is checked: every byte is read once against the file's own checksum."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import Opener
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from raykd.data.integrity import DamagedFile, FileDigest, digest, header_fields
from raykd.data.pose import Told, check_right_angles, itk_notes, itk_unit_mm, nifti_affine, nifti_unit_mm
from raykd.scenario.errors import DataError, Problem

MAX_VOXELS = 2**30
"""A volume of 1024 voxels along each axis; what claims more is taken for a broken header."""
SPACING_RANGE_MM = (0.01, 50.0)
NEARLY_WHOLE = 0.01
"""How far a value may be from a whole number that it was rounded from by its storage, as 0.9999 from 1."""
READABLE = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

Kind = Literal["image", "label"]
ImageVolume = tuple[NDArray[np.float32], NDArray[np.float64]]
"""Intensities (1, I, J, K) in RAS+, and their affine."""
LabelVolume = tuple[NDArray[np.int32], NDArray[np.float64]]
"""Values (I, J, K) in RAS+, and their affine."""


def refusal(rule: str, *, path: Path, case_id: str, got: str = "", hint: str = "") -> DataError:
    """The error that says which rule a file of a case breaks, what was got, and what to do."""
    return DataError(str(Problem(path=f"case {case_id!r}", rule=rule, got=got, file=str(path), hint=hint)))


@contextmanager
def blaming(path: Path, case_id: str) -> Iterator[None]:
    """Turns a `DamagedFile` raised inside into the `DataError` that names file and case."""
    try:
        yield
    except DamagedFile as damage:
        raise refusal(damage.rule, path=path, case_id=case_id, got=damage.got, hint=damage.hint) from None


@dataclass(frozen=True)
class _Header:
    """What a header claims, before any voxel is read; axes of length 1 after the third are left out."""

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    num_payload_bytes: int


@overload
def read_volume(path: Path, case_id: str = "", kind: Literal["image"] = "image", channel: int | None = None) -> ImageVolume: ...
@overload
def read_volume(path: Path, case_id: str, kind: Literal["label"], channel: int | None = None) -> LabelVolume: ...
def read_volume(path: Path, case_id: str = "", kind: Kind = "image", channel: int | None = None) -> ImageVolume | LabelVolume:
    """A NIfTI, NRRD or MetaImage volume in RAS+ orientation, with its affine.

    Axes are flipped and exchanged so that I, J, K run nearest to right, front, up; an oblique direction stays in the affine.

    Args:
        path: a file ending in .nii, .nii.gz, .nrrd, .mha or .mhd, with one value a voxel.
        case_id: named in errors; absent: the file's name.
        kind: "image": float32 (1, I, J, K); "label": int32 (I, J, K).
        channel: which of a fourth axis to read, from 0; absent: a fourth axis is refused.

    Returns:
        The array, and the 4 x 4 affine from voxel indices to millimetres in RAS+.

    Raises:
        DataError: the file is missing, cut short, corrupt (any bit that reaches a voxel or the header), not 3D, larger than 2^30
            voxels, or has a spacing outside 0.01 to 50 mm, axes that meet at no right angles, two poses of which one must be
            wrong, a voxel that is NaN or infinite, or a label that is no integer.
    """
    with blaming(path, case_id or path.name):
        array, affine = _read_checked(path, channel)
        return (as_label(array), affine) if kind == "label" else (as_image(array), affine)


def pose_notes(path: Path, case_id: str = "") -> list[Told]:
    """What a user should know of where a NIfTI, NRRD or MetaImage file lies in space. Raises `DataError`."""
    with blaming(path, case_id or path.name):
        if not path.name.endswith((".nii", ".nii.gz")):
            return itk_notes(path.name, header_fields(path))
        try:
            image = nibabel.load(path)
        except (OSError, EOFError, ValueError, OverflowError, zlib.error, ImageFileError, HeaderDataError) as error:
            raise DamagedFile("the file must be readable as NIfTI", str(error)) from None
        return nifti_affine(image.header, image.shape)[1]


def file_digest(path: Path, case_id: str = "") -> FileDigest:
    """Size, sha256 and decompressed size of a file, read once a process as long as its size and time stay the same.

    Raises:
        DataError: the file is missing, keeps its voxels where its format should not, or fails the checksum of its compressed
            stream.
    """
    with blaming(path, case_id or path.name):
        return digest(path)


def write_nifti(path: Path, array_IJK: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
    """Writes a volume (I, J, K) as NIfTI-1, in its own type (int64 as int32, bool as uint8); equal inputs give equal bytes.

    Raises:
        ValueError: the name ends in neither .nii nor .nii.gz, or the array is not 3D.
    """
    if array_IJK.ndim != 3 or not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"a 3D array and a name ending in .nii or .nii.gz are needed, got shape {array_IJK.shape} and {path.name}")
    narrower = {"int64": np.int32, "bool": np.uint8, "float16": np.float32}
    image = nibabel.Nifti1Image(array_IJK.astype(narrower.get(array_IJK.dtype.name, array_IJK.dtype), copy=False), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def _read_checked(path: Path, channel: int | None) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Header first, then every byte, then the voxels, so that a false claim costs no memory."""
    if not path.name.lower().endswith(READABLE):
        raise DamagedFile(f"a volume must end in one of {', '.join(READABLE)}", path.name, "convert the file")
    if not path.is_file():
        raise DamagedFile("the file must exist", "no such file", "check the pattern, or add the file")
    is_nifti = path.name.lower().endswith((".nii", ".nii.gz"))
    header = _nifti_header(path) if is_nifti else _itk_header(path)
    check_geometry(_one_channel(header.shape, channel), header.spacing_mm)
    num_bytes = digest(path).num_payload_bytes
    if num_bytes < header.num_payload_bytes:
        raise DamagedFile("the file must be as long as its header says", f"{num_bytes} of {header.num_payload_bytes} bytes")
    array, affine = (_read_nifti if is_nifti else _read_itk)(path)
    array = array.reshape(header.shape)
    return to_ras(array if array.ndim == 3 else array[..., channel], affine)


def _one_channel(shape: tuple[int, ...], channel: int | None) -> tuple[int, ...]:
    if channel is None or len(shape) != 4:
        if channel:
            raise DamagedFile(f"a volume read at channel {channel} must have four axes", f"shape {shape}", "set channel: 0")
        return shape
    if channel >= shape[3]:
        raise DamagedFile("channel must be below the length of the fourth axis", f"channel {channel} of {shape[3]}")
    return shape[:3]


def check_geometry(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> None:
    """Raises `DamagedFile` where a header claims what no volume has: axes, number of voxels, spacing."""
    if len(shape) != 3:
        hint = "split its channels or time points into files, or set channel where the source has it"
        raise DamagedFile("a volume must have three axes and one value a voxel", f"shape {shape}", hint)
    if not (min(shape) > 0 and math.prod(shape) <= MAX_VOXELS):
        hint = "the header is broken; convert the file again"
        raise DamagedFile(f"a volume must have 1 to {MAX_VOXELS} voxels", f"shape {shape}", hint)
    _check_spacing(spacing_mm)


def _check_spacing(spacing_mm: tuple[float, ...]) -> None:
    low, high = SPACING_RANGE_MM
    if not all(low <= s <= high for s in spacing_mm):
        raise DamagedFile(
            f"spacing must be {low} to {high} mm along each axis", f"{spacing_mm}", "set the voxel size of the file, in mm"
        )


def _nifti_header(path: Path) -> _Header:
    """The header as it stands in the file: nibabel would turn a spacing of 0 into 1 when it loads it."""
    try:
        with Opener(str(path)) as file:
            block = file.read(nibabel.Nifti2Header.sizeof_hdr)
    except (OSError, EOFError, zlib.error) as error:
        raise DamagedFile("the file must be readable", str(error)) from None
    kinds = (nibabel.Nifti1Header, nibabel.Nifti2Header)
    kind = next((k for k in kinds if len(block) >= k.sizeof_hdr and k.may_contain_header(block)), None)
    if kind is None:
        raise DamagedFile("the file must begin with a NIfTI header", f"{len(block)} bytes that are none")
    raw = kind(block[: kind.sizeof_hdr], check=False)
    num_axes = int(raw["dim"][0])
    try:
        dtype = raw.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise DamagedFile("voxels must be of a known type", f"code {error}") from None
    if dtype.kind not in "uif" or not 1 <= num_axes <= 7:
        raise DamagedFile("voxels must be real numbers on 1 to 7 axes", f"{dtype} on {num_axes} axes", "convert to a scalar volume")
    shape = tuple(int(n) for n in raw["dim"][1 : num_axes + 1])
    offset = float(raw["vox_offset"])
    start = int(offset) if kind.sizeof_hdr <= offset < 2**62 else kind.sizeof_hdr
    spacing = tuple(nifti_unit_mm(raw) * abs(float(s)) for s in raw["pixdim"][1:4])
    return _Header(_without_trailing_ones(shape), spacing, start + math.prod(shape) * dtype.itemsize)


def _read_nifti(path: Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    try:
        image = nibabel.load(path)
        return np.asanyarray(image.dataobj), nifti_affine(image.header, image.shape)[0]
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, ImageFileError, HeaderDataError) as error:
        raise DamagedFile("the file must be readable as NIfTI", str(error)) from None


def _itk_header(path: Path) -> _Header:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DamagedFile("the file must be readable as NRRD or MHA", _reason(error)) from None
    channels = reader.GetNumberOfComponents()
    shape = (*reader.GetSize(), channels)
    pixel_bytes = SimpleITK.Image([1, 1, 1], reader.GetPixelID(), channels).GetSizeOfPixelComponent() * channels
    unit_mm = itk_unit_mm(path.name, header_fields(path))
    spacing_mm = tuple(unit_mm * edge for edge in reader.GetSpacing()[:3])
    return _Header(_without_trailing_ones(shape), spacing_mm, math.prod(reader.GetSize()) * pixel_bytes)


def _without_trailing_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _read_itk(path: Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise DamagedFile("the file must be readable as NRRD or MHA", _reason(error)) from None
    while image.GetDimension() > 3:
        image = image[(slice(None),) * (image.GetDimension() - 1) + (0,)]
    affine, directions = np.eye(4), np.reshape(image.GetDirection(), (3, 3))
    if np.abs(np.linalg.norm(directions, axis=0) - 1).max() > 1e-3:
        raise DamagedFile("the directions of the axes must have length 1", f"{directions.tolist()}", "write lengths as spacing")
    affine[:3, :3] = directions * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    affine[:3] *= itk_unit_mm(path.name, header_fields(path))
    array = SimpleITK.GetArrayFromImage(image)
    return array.transpose(2, 1, 0, *range(3, array.ndim)), LPS_TO_RAS @ affine


def _reason(error: RuntimeError) -> str:
    """The last line of an ITK error, which is the one that says why."""
    return str(error).strip().splitlines()[-1].strip()


def to_ras(array_IJK: NDArray[np.generic], affine: NDArray[np.float64]) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Axes turned to run nearest to right, front, up. Raises `DamagedFile` where the affine is singular or sheared, or its spacing
    absurd.
    """
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise DamagedFile("the affine must be finite and invertible", str(affine[:3].tolist()), "set sform or qform of the file")
    _check_spacing(tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist()))
    check_right_angles(affine, array_IJK.shape)
    orientation = nibabel.io_orientation(affine)
    turned = nibabel.apply_orientation(array_IJK, orientation)
    return turned, affine @ nibabel.orientations.inv_ornt_aff(orientation, array_IJK.shape)


def _check_finite(array_IJK: NDArray[np.generic]) -> None:
    num_bad = array_IJK.size - int(np.isfinite(array_IJK).sum())
    if num_bad:
        raise DamagedFile(
            "every voxel must be a finite float32", f"{num_bad} NaN or infinite", "find out why before filling them in"
        )


def as_image(array_IJK: NDArray[np.generic]) -> NDArray[np.float32]:
    """As float32 (1, I, J, K). Raises `DamagedFile` where a voxel is not finite."""
    with np.errstate(over="ignore"):
        image = np.ascontiguousarray(array_IJK, dtype=np.float32)
    _check_finite(image)
    return image[None]


def as_label(array_IJK: NDArray[np.generic]) -> NDArray[np.int32]:
    """As int32 (I, J, K). Raises `DamagedFile` where a voxel is no integer of 32 bits."""
    _check_finite(array_IJK)
    largest = max(float(array_IJK.min()), float(array_IJK.max()), key=abs)
    if abs(largest) >= 2**31:
        raise DamagedFile(
            "a label must be a whole number of 32 bits", f"{largest:.0f}", "number the classes 1, 2, ... and save them as uint8"
        )
    label = np.ascontiguousarray(array_IJK).astype(np.int32)
    is_bad = label != array_IJK
    if is_bad.any():
        first, is_near = array_IJK[is_bad][0], np.allclose(array_IJK, np.rint(array_IJK), rtol=0, atol=NEARLY_WHOLE)
        hint = "round the values and save them as uint8" if is_near else "resample labels with nearest neighbour"
        raise DamagedFile("a label must be an integer", f"{int(is_bad.sum())} voxels that are not, as {float(first):.6g}", hint)
    return label
