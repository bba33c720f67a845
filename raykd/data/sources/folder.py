"""Volumes in a folder, images and labels paired by name or listed in a manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from raykd.data.sources._files import FileSettings, FileSource
from raykd.data.sources._listing import CaseFiles
from raykd.data.sources._manifest import read_manifest
from raykd.data.sources._patterns import PatientPattern, Pattern, folder_of, matches, misspelt, no_image, no_label, patient_in
from raykd.scenario.errors import DataError
from raykd.scenario.registry import SOURCES


class FolderSettings(FileSettings):
    """NIfTI (.nii, .nii.gz), NRRD or MetaImage (.mha, .mhd) files, one value a voxel."""

    name: Literal["folder"]
    images: Pattern | None = None
    """Where images are, from the folder of the scenario; what `*` stands for (not across folders) is the case's name; further
    ones stand for the same, as in `brats/*/*_t1.nii.gz`."""
    labels: Pattern | None = None
    """Where their labels are, with `*` for the case's name; absent: no case is labelled."""
    patient_pattern: PatientPattern | None = None
    """Regular expression searched in the file's name, whose one group is the patient; absent: each case is a patient."""
    manifest: str | None = None
    """Instead of `images`: a CSV file, or a JSON list of objects, with a row for every case: `image`, `label` (may be empty),
    `case`, `patient`, `outlined` and `absent` (each may be left out); paths start at its folder, and every other column is a trait
    of the case. `outlined` lists the classes that the annotator looked for (empty: all), `absent` those that were looked for and
    are not there, separated by blanks, `;` or `|`."""

    @model_validator(mode="after")
    def _one_listing(self) -> FolderSettings:
        if (self.images is None) == (self.manifest is None):
            raise PydanticCustomError("listing", "must have either images, a pattern, or manifest, a file")
        if self.manifest is not None and (self.labels or self.patient_pattern):
            raise PydanticCustomError("listing", "manifest names labels and patients itself: remove labels and patient_pattern")
        return self


@SOURCES.register("folder")
class FolderSource(FileSource):
    """Cases of a folder."""

    Settings = FolderSettings
    settings: FolderSettings

    def place(self) -> str:
        return self.settings.images or self.settings.manifest or ""

    def find(self, problems: list[DataError]) -> Iterable[CaseFiles]:
        if self.settings.images is None:
            manifest = self.root / (self.settings.manifest or "")
            return read_manifest(manifest, self.settings.allow_unlabelled, problems, self.classes)
        return self._by_pattern(self.settings.images, problems)

    def population(self) -> str | None:
        """The images' folder, where the scenario says which part of a name is the patient."""
        has_patients = self.settings.images is not None and self.settings.patient_pattern is not None
        return str(folder_of(self.root, self.settings.images or "").resolve()) if has_patients else None

    def _by_pattern(self, pattern: str, problems: list[DataError]) -> Iterator[CaseFiles]:
        settings = self.settings
        images = dict(matches(self.root, pattern))
        labels = dict(matches(self.root, settings.labels)) if settings.labels is not None else {}
        images = {case_id: path for case_id, path in images.items() if path not in labels.values()}
        if not images:
            folder = folder_of(self.root, pattern)
            raise DataError(f"{self.owner}: images: {pattern!r} must match a file, got none in {folder}; correct the pattern")
        problems += [no_image(name, labels[name], pattern.replace("*", name)) for name in sorted(set(labels) - set(images))]
        known = {*images.values(), *labels.values()}
        for written in filter(None, (pattern, settings.labels)):
            problems += misspelt(self.root, written, known)
        before, star, after = pattern.partition("*")
        for case_id, path in images.items():
            if settings.labels is not None and case_id not in labels and not settings.allow_unlabelled:
                problems.append(no_label(case_id, self.root / settings.labels.replace("*", case_id)))
            try:
                name = (before.rpartition("/")[2] + star + after).replace("*", case_id)
                patient = patient_in(name, settings.patient_pattern, case_id=case_id, path=path)
                yield CaseFiles(case_id, patient, path, labels.get(case_id), has_patient=settings.patient_pattern is not None)
            except DataError as error:
                problems.append(error)
