"""DICOM-SEG: label maps as DICOM objects, one frame a segment and slice (DICOM PS3.3, C.8.20)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raykd.data.integrity import DamagedFile
from raykd.data.volume_io import LPS_TO_RAS, ImageVolume

IN_PLANE_TOLERANCE = 0.01
"""How far, in voxels, a frame's axes may be from the image's over one step, and its first voxel from a voxel's centre."""


def read_segmentation(path: Path, image: ImageVolume) -> NDArray[np.int32]:
    """The numbers of the segments on the grid of the image they were drawn on: (I, J, K).

    Raises:
        DamagedFile: pydicom is not installed; the file is no binary DICOM-SEG; a frame does not lie on the image's grid; two
            segments share a voxel.
    """
    dataset = _dataset(path, path.stat().st_mtime_ns)
    values_IJK = np.zeros(image[0].shape[1:], dtype=np.int32)
    voxel_of_mm = np.linalg.inv(image[1]) @ LPS_TO_RAS
    for number, mask, corner_mm, column_step_mm, row_step_mm in _frames(dataset):
        corner = voxel_of_mm @ [*corner_mm, 1.0]
        steps = np.stack([voxel_of_mm[:3, :3] @ row_step_mm, voxel_of_mm[:3, :3] @ column_step_mm])
        indices = _indices(corner[:3], steps, mask)
        is_inside = ((indices >= 0) & (indices < values_IJK.shape)).all()
        if not is_inside:
            raise DamagedFile("every frame must lie on the image", f"segment {number} at {corner_mm} mm", "check the pairing")
        place = tuple(indices.T)
        others = set(np.unique(values_IJK[place]).tolist()) - {0, number}
        if others:
            raise DamagedFile("segments must not share a voxel", f"segments {sorted(others)} and {number}", "export them apart")
        values_IJK[place] = number
    return values_IJK


def segment_names(path: Path) -> dict[str, tuple[int, ...]]:
    """The number of every segment by its label. Raises `DamagedFile`."""
    names: dict[str, tuple[int, ...]] = {}
    for segment in _dataset(path, path.stat().st_mtime_ns).SegmentSequence:
        names[str(segment.SegmentLabel)] = (*names.get(str(segment.SegmentLabel), ()), int(segment.SegmentNumber))
    return names


def _indices(corner: NDArray[np.float64], steps: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The voxels of the image that a frame marks: (number, 3)."""
    whole, first = np.rint(steps), np.rint(corner)
    if max(np.abs(steps - whole).max(), np.abs(corner - first).max()) > IN_PLANE_TOLERANCE or np.abs(whole).sum() != 2:
        got = f"steps {steps.round(3).tolist()} and corner {corner.round(3).tolist()} in voxels"
        raise DamagedFile("every frame must have the image's grid", got, "resample the segmentation onto its image")
    indices: NDArray[np.int64] = (first + np.argwhere(mask) @ whole).astype(np.int64)
    return indices


def _frames(dataset: Any) -> Iterator[tuple[int, NDArray[np.bool_], list[float], NDArray[np.float64], NDArray[np.float64]]]:
    """Segment, mask (rows, columns), place of the first voxel and the steps to the next column and row in mm, all in LPS."""
    try:
        shared = dataset.SharedFunctionalGroupsSequence[0]
        masks = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns).astype(bool)
        for frame, mask in zip(dataset.PerFrameFunctionalGroupsSequence, masks, strict=True):
            row_mm, column_mm = (float(s) for s in _group(frame, shared, "PixelMeasuresSequence").PixelSpacing)
            directions = np.array(_group(frame, shared, "PlaneOrientationSequence").ImageOrientationPatient, dtype=np.float64)
            corner_mm = [float(x) for x in _group(frame, shared, "PlanePositionSequence").ImagePositionPatient]
            number = int(_group(frame, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
            yield number, mask, corner_mm, directions[:3] * column_mm, directions[3:] * row_mm
    except (AttributeError, IndexError, ValueError, TypeError, NotImplementedError, RuntimeError) as error:
        raise DamagedFile("a DICOM-SEG must hold whole frames with position and segment", str(error)) from None


def _group(frame: Any, shared: Any, name: str) -> Any:
    """A functional group of a frame, or that of all frames."""
    return getattr(frame if name in frame else shared, name)[0]


@lru_cache(maxsize=4)
def _dataset(path: Path, mtime_ns: int) -> Any:
    try:
        import pydicom
    except ImportError:
        hint = "install raykd[dicom], or convert it to NIfTI"
        raise DamagedFile("a DICOM-SEG is read by pydicom", "pydicom is not installed", hint) from None
    try:
        dataset = pydicom.dcmread(path)
    except (OSError, EOFError, ValueError, pydicom.errors.InvalidDicomError) as error:
        raise DamagedFile("the file must be readable as DICOM", str(error)) from None
    kind = str(getattr(dataset, "SegmentationType", "none"))
    if kind != "BINARY" or "SegmentSequence" not in dataset:
        hint = "export a binary segmentation, or convert it to NIfTI"
        raise DamagedFile("a DICOM label must be a SEG object of type BINARY", f"SegmentationType {kind}", hint)
    return dataset
