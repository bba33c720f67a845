"""DICOM-SEG: label maps as DICOM objects, one frame a segment and slice (DICOM PS3.3, C.8.20)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raykd.data.integrity import DamagedFile
from raykd.data.pose import Affine, distance_mm, tolerance_mm
from raykd.data.volume_io import LPS_TO_RAS, ImageVolume


def read_segmentation(path: Path, image: ImageVolume, frame_of_reference: str = "") -> NDArray[np.int32]:
    """The numbers of the segments on the grid of the image they were drawn on: (I, J, K).

    Args:
        path: of the DICOM-SEG.
        image: in RAS+, and its affine.
        frame_of_reference: UID of the coordinates that the image's positions are given in; "": unknown.

    Raises:
        DamagedFile: pydicom is not installed; the file is no binary DICOM-SEG; its positions are given in other coordinates; a
            frame does not lie on the image's grid; two segments share a voxel.
    """
    dataset = _dataset(path, path.stat().st_mtime_ns)
    own = str(getattr(dataset, "FrameOfReferenceUID", ""))
    if own and frame_of_reference and own != frame_of_reference:
        got = f"{own}, where the image has {frame_of_reference}"
        raise DamagedFile("a segmentation must have its image's frame of reference (0020,0052)", got, "check the pairing")
    values_IJK = np.zeros(image[0].shape[1:], dtype=np.int32)
    for number, mask, corner_mm, column_step_mm, row_step_mm in _frames(dataset):
        frame = np.eye(4)  # from row and column to mm in RAS+
        frame[:3, 0], frame[:3, 1], frame[:3, 3] = row_step_mm, column_step_mm, corner_mm
        indices = _indices(LPS_TO_RAS @ frame, mask, image[1])
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


def _indices(frame: Affine, mask: NDArray[np.bool_], affine: Affine) -> NDArray[np.int64]:
    """The voxels of an image that a frame marks: (number, 3).

    Args:
        frame: from row and column of the frame to mm in RAS+.
        mask: (rows, columns).
        affine: of the image.

    Raises:
        DamagedFile: a corner of the frame lies further from the centre of a voxel than two grids that count as one.
    """
    to_voxel = np.linalg.inv(affine) @ frame
    whole = to_voxel.copy()
    whole[:3, [0, 1, 3]] = np.rint(to_voxel[:3, [0, 1, 3]])
    off_mm, limit_mm = distance_mm(frame, affine @ whole, (*mask.shape, 1)), tolerance_mm(affine)
    if off_mm > limit_mm or np.abs(whole[:3, :2]).sum() != 2:
        got = f"{off_mm:.3g} mm off at a corner; in voxels, steps {to_voxel[:3, :2].T.round(4).tolist()}"
        raise DamagedFile(f"every frame must have the image's grid to within {limit_mm:.2g} mm", got, "resample it onto its image")
    indices: NDArray[np.int64] = (whole[:3, 3] + np.argwhere(mask) @ whole[:3, :2].T).astype(np.int64)
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
