"""Volumes stacked in one `.npz` archive, as MedMNIST keeps its images.

Yang et al., MedMNIST v2, Scientific Data 2023, https://arxiv.org/abs/2110.14795. MedMNIST's own archives hold one class a volume,
which is no label map: archives for raykd hold `labels` of the shape of `images`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np
from numpy.typing import NDArray

from raykd.data.integrity import DamagedFile
from raykd.data.pose import tolerance_mm
from raykd.data.sources._axes import Axes, affine_from_axes
from raykd.data.sources._files import FileSettings, FileSource, check_grid
from raykd.data.sources._listing import CaseFiles
from raykd.data.sources._npz_archive import check_archive, open_archive, read_one, read_small, stack_header
from raykd.data.volume_io import ImageVolume, as_image, as_label, blaming, check_geometry, to_ras
from raykd.scenario.errors import DataError
from raykd.scenario.fields import Spacing
from raykd.scenario.registry import SOURCES


class NpzSettings(FileSettings):
    """An .npz archive with arrays of images and labels, (cases, i, j, k)."""

    name: Literal["npz"]
    file: str
    """The archive, from the folder of the scenario."""
    images: str = "images"
    """The array of images, as `train_images`."""
    labels: str | None = "labels"
    """The array of label values, of the shape of the images; null: no case is labelled."""
    patients: str | None = None
    """An array with the patient of every case, numbers or text; absent: each case is a patient."""
    spacing: str = "spacing_mm"
    """The array of voxel edges in mm along i, j, k: (3,) or (cases, 3). It need not be there where `spacing_mm` is set."""
    spacing_mm: Spacing | None = None
    """Voxel edges in mm along i, j, k; absent: as the archive has them."""
    axes: Axes = "RAS"
    """Where i, j, k run to: RAS is to the right, to the front, upwards."""
    affine: str = "affine"
    """The array of affines from voxel to mm in RAS+, (4, 4) or (cases, 4, 4). It need not be there; where it is, it must agree with
    `spacing_mm`, with the array `spacing` and with `axes` as far as they are given, too."""


@SOURCES.register("npz")
class NpzSource(FileSource):
    """Cases of an archive, named by their number. Nothing is ever unpickled; every byte is read against the archive's checksums."""

    Settings = NpzSettings
    settings: NpzSettings
    is_archive = True

    def place(self) -> str:
        return self.settings.file

    def find(self, problems: list[DataError]) -> Iterator[CaseFiles]:
        path, settings = self._path, self.settings
        with blaming(path, self.owner), open_archive(path) as archive:
            check_archive(archive)
            num_cases = stack_header(archive, settings.images)[0][0]
            label = path if settings.labels is not None else None
            if settings.labels is not None and (num := stack_header(archive, settings.labels)[0][0]) != num_cases:
                raise DamagedFile(f"{settings.labels} must hold a label for each of {num_cases} images", str(num))
            patients = read_small(archive, settings.patients) if settings.patients is not None else np.arange(num_cases)
            if patients.shape != (num_cases,):
                raise DamagedFile(
                    f"{settings.patients} must name a patient for each of {num_cases} cases", f"shape {patients.shape}"
                )
        width, is_given = len(str(num_cases - 1)), settings.patients is not None
        for index, patient in enumerate(patients.tolist()):
            case_id = f"{path.stem}-{index:0{width}d}"
            yield CaseFiles(case_id, str(patient) if is_given else case_id, path, label, has_patient=is_given)

    def read_image(self, files: CaseFiles) -> ImageVolume:
        with blaming(files.image, files.case_id), open_archive(files.image) as archive:
            index = self._index(files)
            array_IJK = read_one(archive, self.settings.images, index)
            turned_IJK, affine = to_ras(array_IJK, self._affine(archive, index, array_IJK.shape))
            return as_image(turned_IJK), affine

    def read_label(self, files: CaseFiles, image: ImageVolume) -> NDArray[np.int32]:
        with blaming(files.image, files.case_id), open_archive(files.image) as archive:
            index = self._index(files)
            values_IJK = read_one(archive, self.settings.labels or "", index)
            values = as_label(to_ras(values_IJK, self._affine(archive, index, values_IJK.shape))[0])
        check_grid(files, values.shape, image)
        return values

    def image_content(self, files: CaseFiles) -> object:
        return sha256(self.read_image(files)[0].tobytes()).hexdigest()

    @cached_property
    def _path(self) -> Path:
        return self.root / self.settings.file

    def _index(self, files: CaseFiles) -> int:
        return int(files.case_id.rpartition("-")[2])

    def _affine(self, archive: zipfile.ZipFile, index: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """From voxel to mm in RAS+: the array of affines where there is one, else spacing and axes."""
        settings = self.settings
        is_written = f"{settings.affine}.npy" in archive.namelist()
        has_spacing = settings.spacing_mm is not None or f"{settings.spacing}.npy" in archive.namelist()
        spacing_mm = self._spacing_mm(archive, index) if has_spacing or not is_written else None
        check_geometry(shape, spacing_mm or (1.0, 1.0, 1.0))
        if not is_written:
            assert spacing_mm is not None
            return affine_from_axes(settings.axes, spacing_mm, shape)
        affine = self._written_affine(archive, index)
        edges_mm, axes = np.linalg.norm(affine[:3, :3], axis=0), "".join(map(str, nibabel.aff2axcodes(affine)))
        if spacing_mm is not None and np.abs(edges_mm - spacing_mm).max() * max(shape) > tolerance_mm(affine):
            got = f"{edges_mm.round(4).tolist()} and {spacing_mm}"
            raise DamagedFile(f"spacing must be the same in {settings.affine} and elsewhere", got, "find out which is right")
        if "axes" in settings.model_fields_set and axes != settings.axes:
            raise DamagedFile(f"axes must be those of {settings.affine}, {axes}", settings.axes, "leave axes out")
        return affine

    def _written_affine(self, archive: zipfile.ZipFile, index: int) -> NDArray[np.float64]:
        found = read_small(archive, self.settings.affine)
        if (
            found.shape[-2:] != (4, 4)
            or found.ndim > 3
            or found.dtype.kind not in "uif"
            or (found.ndim == 3 and index >= len(found))
        ):
            raise DamagedFile(f"{self.settings.affine} must have shape (4, 4) or (cases, 4, 4)", f"shape {found.shape}")
        affine = np.array(found if found.ndim == 2 else found[index], dtype=np.float64)
        if not np.array_equal(affine[3], [0, 0, 0, 1]) or not np.isfinite(affine).all() or np.linalg.matrix_rank(affine) < 4:
            raise DamagedFile(f"{self.settings.affine} must be finite, invertible and end in 0, 0, 0, 1", str(affine.tolist()))
        return affine

    def _spacing_mm(self, archive: zipfile.ZipFile, index: int) -> tuple[float, float, float]:
        if self.settings.spacing_mm is not None:
            return self.settings.spacing_mm
        if f"{self.settings.spacing}.npy" not in archive.namelist():
            hint = "add it, or set spacing_mm"
            raise DamagedFile(f"the archive must have an array {self.settings.spacing!r} of voxel edges", "none", hint)
        spacing = read_small(archive, self.settings.spacing)
        if (
            spacing.shape[-1:] != (3,)
            or spacing.ndim > 2
            or spacing.dtype.kind not in "uif"
            or (spacing.ndim == 2 and index >= len(spacing))
        ):
            raise DamagedFile(f"{self.settings.spacing} must have shape (3,) or (cases, 3)", f"shape {spacing.shape}")
        i, j, k = (spacing if spacing.ndim == 1 else spacing[index]).tolist()
        return float(i), float(j), float(k)
