"""Data sets in the raw format of nnU-Net v2.

`dataset.json` gives `channel_names`, `labels` (regions too) and `file_ending`; images are `imagesTr/CASE_0000.nii.gz`, `_0001` for
the second channel, labels `labelsTr/CASE.nii.gz`. Format: https://github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from raykd.data.sources._dataset_json import NAMES_FILE, ChannelSettings, channel_index, label_values, read_dataset_json, refused
from raykd.data.sources._files import FileSource
from raykd.data.sources._labels import LabelNames, Values
from raykd.data.sources._listing import CaseFiles
from raykd.data.sources._patterns import by_case, no_image, no_label, patient_in, visible
from raykd.data.volume_io import refusal
from raykd.scenario.errors import DataError
from raykd.scenario.labels import normal
from raykd.scenario.registry import SOURCES


class NnunetSettings(ChannelSettings):
    """A data set in nnU-Net v2's raw format; labels are matched to classes by name."""

    name: Literal["nnunet"]
    folder: str
    """The folder with dataset.json, as DatasetXXX_Name."""
    subset: Literal["training", "test"] = "training"
    """Which images: imagesTr with labelsTr, or imagesTs with labelsTs where that is there."""


@SOURCES.register("nnunet")
class NnunetSource(FileSource):
    """Cases of nnU-Net v2; voxels of its `ignore` label are unknown."""

    Settings = NnunetSettings
    settings: NnunetSettings
    names_file = NAMES_FILE

    def place(self) -> str:
        return self.settings.folder

    @cached_property
    def _folder(self) -> Path:
        return self.root / self.settings.folder

    @cached_property
    def _dataset(self) -> Mapping[str, Any]:
        return read_dataset_json(self._folder)

    def label_names(self) -> LabelNames:
        return {name: values for name, values in self._all_labels.items() if name != "ignore"}

    def unknown_values(self) -> Values:
        return self._all_labels.get("ignore", ())

    @cached_property
    def _all_labels(self) -> LabelNames:
        return label_values(self._folder, self._dataset.get("labels"))

    def find(self, problems: list[DataError]) -> Iterator[CaseFiles]:
        part = "Tr" if self.settings.subset == "training" else "Ts"
        ending = str(self._dataset.get("file_ending", ".nii.gz"))
        if ending in (".png", ".tif", ".bmp"):
            raise refused(self._folder, "file_ending must be that of a volume", ending, "convert the files to .nii.gz")
        suffix = f"_{channel_index(self._folder, self._dataset.get('channel_names'), self.settings.channel):04d}{ending}"
        images_folder, labels_folder = self._folder / f"images{part}", self._folder / f"labels{part}"
        images = by_case(visible(images_folder, f"*{suffix}"), suffix)
        labels = by_case(visible(labels_folder, f"*{ending}"), ending)
        if not images:
            raise refused(self._folder, f"its folder must hold images{part}/*{suffix}", "none", "set folder, subset or channel")
        problems += _unread(images_folder, ending, {*images, *labels}, suffix)
        problems += [no_image(name, labels[name], f"{name}{suffix}") for name in sorted(set(labels) - set(images))]
        if part == "Tr" and not labels_folder.is_dir() and not self.settings.allow_unlabelled:
            hint = "add it, or set allow_unlabelled: true where no case is labelled"
            raise refused(self._folder, "its folder must hold labelsTr", "none", hint)
        for case_id, path in images.items():
            if case_id not in labels and part == "Tr" and not self.settings.allow_unlabelled:
                problems.append(no_label(case_id, labels_folder / f"{case_id}{ending}"))
            try:
                patient = patient_in(case_id, self.settings.patient_pattern, case_id=case_id, path=path)
                yield CaseFiles(case_id, patient, path, labels.get(case_id), has_patient=self.settings.patient_pattern is not None)
            except DataError as error:
                problems.append(error)


def _unread(folder: Path, ending: str, known: Set[str], suffix: str) -> Iterator[DataError]:
    """The refusal of every volume that would be left out: without the number of a channel, or of a case without the wanted one."""
    for path in sorted(folder.iterdir()):
        if path.name[0] == "." or not path.name.lower().endswith(ending.lower()):
            continue
        match = re.fullmatch(rf"(.+)_\d{{4}}{re.escape(ending)}", path.name)
        if match is None:
            hint = f"rename it to CASE_0000{ending}"
            yield refusal("an image must end in the number of its channel", path=path, case_id=path.name, got=path.name, hint=hint)
        elif normal(match[1]) not in known:
            yield refusal("a case must have the channel that is read", path=path, case_id=match[1], got=f"no {match[1]}{suffix}")
