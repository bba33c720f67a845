"""DICOM series, a folder each, with labels as volumes or DICOM-SEG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from raykd.data.integrity import DamagedFile
from raykd.data.sources._dicom_segmentation import read_segmentation, segment_names
from raykd.data.sources._dicom_series import FRAME_OF_REFERENCE, ISSUER, PATIENT_ID, read_series, series_files, tag_of, tags_of
from raykd.data.sources._files import FileSettings, FileSource
from raykd.data.sources._labels import LabelNames, normalised
from raykd.data.sources._listing import CaseFiles
from raykd.data.sources._manifest import trait
from raykd.data.sources._patterns import PatientPattern, Pattern, folder_of, matches, no_image, no_label, patient_in
from raykd.data.volume_io import READABLE, ImageVolume, blaming
from raykd.scenario.errors import DataError
from raykd.scenario.registry import SOURCES

Tag = Annotated[str, Field(pattern=r"^[0-9a-f]{4}\|[0-9a-f]{4}$")]


class DicomSettings(FileSettings):
    """Series of DICOM slices in a folder each; segments of DICOM-SEG files are matched to classes by name, and where `label_values`
    lists values these are the segments' numbers. A class without a segment in a case's DICOM-SEG file was not outlined in that
    case; one whose segment has no voxel was looked for."""

    name: Literal["dicom"]
    images: Pattern
    """Where the folders of the series are, from the folder of the scenario; what `*` stands for is the case's name."""
    labels: Pattern | None = None
    """Where their labels are: NIfTI, NRRD or MetaImage files on the same grid, else DICOM-SEG files."""
    patient_pattern: PatientPattern | None = None
    """Regular expression searched in the case's name, whose one group is the patient; absent: the tag PatientID tells."""
    traits: dict[str, Tag] = {}
    """What else is known of a case, by tag, as `{manufacturer: 0008|0070, field_t: 0018|0087}`."""


@SOURCES.register("dicom")
class DicomSource(FileSource):
    """Cases of DICOM series. An uncompressed DICOM file has no checksum: only missing, cut and misplaced slices are found."""

    Settings = DicomSettings
    settings: DicomSettings
    names_file = "the DICOM-SEG files"

    def place(self) -> str:
        return self.settings.images

    def find(self, problems: list[DataError]) -> Iterator[CaseFiles]:
        settings = self.settings
        images = dict(matches(self.root, settings.images, Path.is_dir))
        labels = dict(matches(self.root, settings.labels)) if settings.labels is not None else {}
        if not images:
            folder = folder_of(self.root, settings.images)
            raise DataError(f"{self.owner}: images: {settings.images!r} must match a folder, got none in {folder}; correct it")
        problems += [no_image(name, labels[name], settings.images.replace("*", name)) for name in sorted(set(labels) - set(images))]
        for case_id, folder in images.items():
            if settings.labels is not None and case_id not in labels and not settings.allow_unlabelled:
                problems.append(no_label(case_id, self.root / settings.labels.replace("*", case_id)))
            try:
                tags, label = tags_of(folder, case_id), labels.get(case_id)
                traits = {name: trait(tags.get(tag, "")) for name, tag in settings.traits.items()}
                patient, issuer = self._patient(folder, case_id, tags)
                yield CaseFiles(
                    case_id,
                    patient or case_id,
                    folder,
                    label,
                    traits,
                    has_patient=bool(patient),
                    issuer=issuer,
                    outlined=self._outlined_in(label),
                )
            except DataError as error:
                problems.append(error)

    def _patient(self, folder: Path, case_id: str, tags: Mapping[str, str]) -> tuple[str, str]:
        """The patient of a series and who gave that id; "" where nothing tells."""
        if self.settings.patient_pattern is not None:
            return patient_in(case_id, self.settings.patient_pattern, case_id=case_id, path=folder), ""
        return tags.get(PATIENT_ID, ""), tags.get(ISSUER, "")

    def _outlined_in(self, label: Path | None) -> tuple[int, ...] | None:
        """The classes that have a segment in a DICOM-SEG file, with voxels or without; None: any other file, or a damaged one."""
        if label is None or label.name.endswith(READABLE):
            return None
        try:
            segments = segment_names(label)
        except DamagedFile:
            return None  # it is reported where the label is read
        names, numbers = {normalised(name) for name in segments}, {n for own in segments.values() for n in own}
        listed = self.settings.label_values
        has = [normalised(name) in names if listed is None else not numbers.isdisjoint(listed[name]) for name in self.classes]
        return tuple(index for index, is_there in enumerate(has, start=1) if is_there)

    def label_names(self) -> LabelNames | None:
        """The segments of all DICOM-SEG files, numbered anew, for each file may count its own."""
        return {name: (number,) for name, number in self._segments.items()} or None

    @cached_property
    def _segments(self) -> dict[str, int]:
        names: set[str] = set()
        for case_id, path in matches(self.root, self.settings.labels) if self.settings.labels is not None else ():
            if not path.name.lower().endswith(READABLE):
                with blaming(path, case_id):
                    names |= segment_names(path).keys()
        return {name: number for number, name in enumerate(sorted(names), start=1)}

    def image_parts(self, files: CaseFiles) -> tuple[Path, ...]:
        return series_files(files.image)

    def read_image(self, files: CaseFiles) -> ImageVolume:
        return read_series(files.image, files.case_id)

    def read_label(self, files: CaseFiles, image: ImageVolume) -> NDArray[np.int32]:
        if files.label is None or files.label.name.lower().endswith(READABLE):
            return super().read_label(files, image)
        with blaming(files.label, files.case_id):
            frame_of_reference = tag_of(files.image, FRAME_OF_REFERENCE, files.case_id)
            values_IJK = read_segmentation(files.label, image, frame_of_reference)
            if self.settings.label_values is not None:
                return values_IJK
            renumbered_IJK = np.zeros_like(values_IJK)
            for name, numbers in segment_names(files.label).items():
                renumbered_IJK[np.isin(values_IJK, numbers)] = self._segments[name]
            return renumbered_IJK
