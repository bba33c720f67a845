"""Small real files for the tests of sources, written by nibabel, SimpleITK and pydicom."""

from __future__ import annotations

import json
import locale
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence

from raykd.data.sources._base import CaseKey
from raykd.data.sources._files import FileSource
from raykd.data.volume_io import write_nifti
from raykd.numerics.rng import numpy_generator
from raykd.scenario.errors import DataError
from raykd.scenario.registry import SOURCES

SHAPE = (6, 7, 8)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def image(name: str, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return numpy_generator(0, "image", name).normal(100, 20, size=shape).astype(np.float32)


def label(*values: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """One voxel of each value, at (0, 0, 0), (1, 0, 0), ..."""
    array = np.zeros(shape, dtype=np.int16)
    for index, value in enumerate(values):
        array[index, 0, 0] = value
    return array


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    write_nifti(path, array, affine)
    return path


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def source(root: Path, classes: tuple[str, ...], **block: Any) -> FileSource:
    """The source that a scenario in `root` gets from a block."""
    cls = SOURCES.get(block["name"])
    made: FileSource = cls(cls.Settings.model_validate_json(json.dumps(block)), classes, 0, "university", root)
    return made


def keys(made: FileSource) -> list[CaseKey]:
    return made.keys()


def classes_at(made: FileSource, case_id: str, *places: tuple[int, int, int]) -> list[int]:
    """The classes that a case has at some voxels."""
    (key,) = [key for key in keys(made) if key.case_id == case_id]
    label_IJK = made.load(key).label_IJK
    assert label_IJK is not None
    return [int(label_IJK[place]) for place in places]


def problems(made: FileSource) -> list[str]:
    """The lines that a check reports."""
    with pytest.raises(DataError) as caught:
        made.check()
    return str(caught.value).splitlines()


def write_dicom(
    path: Path, stored: np.ndarray, *, bits: int | None = None, syntax: str = "1.2.840.10008.1.2.1", **tags: Any
) -> Path:
    """One DICOM slice, its tags by keyword.

    Args:
        path: of the file.
        stored: integers (rows, columns), or (frames, rows, columns), as they lie in the file.
        bits: BitsStored; absent: all of the type's.
        syntax: UID of the transfer syntax.
        tags: what stands in the header besides; None leaves a tag out.
    """
    dataset, meta = Dataset(), FileMetaDataset()
    allocated = 8 * stored.dtype.itemsize
    values = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
        "SOPInstanceUID": f"1.2.3.{zlib.crc32(str(path).encode())}",
        "SeriesInstanceUID": f"1.2.3.4.{zlib.crc32(str(path.parent).encode())}",
        "StudyInstanceUID": "1.2.3.5",
        "PatientID": "patient-1",
        "Modality": "MR",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[-2],
        "Columns": stored.shape[-1],
        "BitsAllocated": allocated,
        "BitsStored": bits or allocated,
        "HighBit": (bits or allocated) - 1,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
        "PixelSpacing": [2.0, 1.0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [0, 0, 0],
        **tags,
    }
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = syntax, dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID, dataset.file_meta = dataset.SOPInstanceUID, meta
    raw = stored.astype(stored.dtype.newbyteorder(">" if syntax == "1.2.840.10008.1.2.2" else "<")).tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].VR = "OB" if allocated == 8 else "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_segmentation(
    path: Path,
    segments: dict[int, tuple[str, np.ndarray]],
    shift_mm: float = 0.0,
    pixel_spacing: Sequence[Any] = (2.0, 1.0),
    orientation: Sequence[Any] = (1, 0, 0, 0, 1, 0),
    position: Callable[[int], Sequence[Any]] | None = None,
    **tags: Any,
) -> None:
    """Masks (I, J, K) on the grid of `write_series`, a frame for every slice that is not empty."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.SegmentationType, dataset.PhotometricInterpretation = "BINARY", "MONOCHROME2"
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.Columns, dataset.Rows = next(iter(segments.values()))[1].shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = dataset.SamplesPerPixel = 1
    dataset.HighBit = dataset.PixelRepresentation = 0
    dataset.SegmentSequence, dataset.PerFrameFunctionalGroupsSequence = DicomSequence(), DicomSequence()
    shared, measures, plane, bits = Dataset(), Dataset(), Dataset(), []
    measures.PixelSpacing, plane.ImageOrientationPatient = list(pixel_spacing), list(orientation)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = DicomSequence([measures]), DicomSequence([plane])
    dataset.SharedFunctionalGroupsSequence = DicomSequence([shared])
    for number, (name, mask_IJK) in segments.items():
        segment = Dataset()
        segment.SegmentNumber, segment.SegmentLabel = number, name
        dataset.SegmentSequence.append(segment)
        for k in np.flatnonzero(mask_IJK.any(axis=(0, 1))):
            frame, place, of = Dataset(), Dataset(), Dataset()
            place.ImagePositionPatient, of.ReferencedSegmentNumber = (
                (list(position(k)) if position else [shift_mm, 0, 3.0 * k]),
                number,
            )
            frame.PlanePositionSequence, frame.SegmentIdentificationSequence = DicomSequence([place]), DicomSequence([of])
            dataset.PerFrameFunctionalGroupsSequence.append(frame)
            bits.append(mask_IJK[:, :, k].T)
    dataset.NumberOfFrames = len(bits)
    packed = np.packbits(np.array(bits, dtype=np.uint8).ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def write_series(
    folder: Path,
    array_IJK: np.ndarray,
    names: list[str] | None = None,
    tags: Mapping[str, str] | None = None,
    directions: tuple[str, str] = ("1\\0\\0", "0\\1\\0"),
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    spacing: tuple[float, float, float] = (1.0, 2.0, 3.0),
) -> list[Path]:
    """A series of DICOM slices: columns along I, rows along J, a file for each K along the normal; directions are in LPS."""
    folder.mkdir(parents=True, exist_ok=True)
    before = locale.setlocale(locale.LC_ALL)
    row, column = (np.array([float(x) for x in text.split("\\")]) for text in directions)
    normal, paths = np.cross(row, column), []
    for k in range(array_IJK.shape[2]):
        one = SimpleITK.GetImageFromArray(np.ascontiguousarray(array_IJK[:, :, k].T)[None].astype(np.int16))
        one.SetSpacing(spacing)
        position = np.array(origin) + k * spacing[2] * normal
        uid = f"1.2.826.0.1.3680043.2.1125.{zlib.crc32(str(folder).encode())}"
        values = {
            "0008|0060": "MR",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"{uid}.{k + 1}",
            "0020|000e": uid,
            "0020|000d": "1.2.826.0.1.3680043.2.1125.7",
            "0010|0020": "patient-1",
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{x:.4f}" for x in position),
            "0020|0037": "\\".join(directions),
            **(tags or {}),
        }
        for tag, text in values.items():
            one.SetMetaData(tag, text)
        path = folder / (names[k] if names else f"{k + 1:03d}.dcm")
        writer = SimpleITK.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(path) if path.suffix == ".dcm" else f"{path}.dcm")
        writer.Execute(one)
        paths.append(Path(f"{path}.dcm").rename(path) if path.suffix != ".dcm" else path)
    locale.setlocale(locale.LC_ALL, before)  # GDCM leaves "C" behind when it writes, in which Python opens files as ASCII
    return paths
