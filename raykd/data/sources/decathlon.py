"""The Medical Segmentation Decathlon, as its archives unpack.

`dataset.json` gives `modality`, `labels` and `training`, a list of `{image, label}`; volumes have a fourth axis where there are
several channels. Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 2022, https://arxiv.org/abs/2106.05735
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from raykd.data.sources._dataset_json import NAMES_FILE, ChannelSettings, channel_index, label_values, read_dataset_json, refused
from raykd.data.sources._files import FileSource
from raykd.data.sources._labels import LabelNames
from raykd.data.sources._listing import CaseFiles
from raykd.data.sources._patterns import no_label, patient_in
from raykd.data.volume_io import ImageVolume, read_volume
from raykd.scenario.errors import DataError, did_you_mean
from raykd.scenario.fields import SafeName
from raykd.scenario.registry import SOURCES


class DecathlonSettings(ChannelSettings):
    """A task of the Medical Segmentation Decathlon; labels are matched to classes by name."""

    name: Literal["decathlon"]
    task: SafeName
    """Which task, as its folder is called."""
    folder: str
    """The folder that holds the task's folder."""
    download: bool = False
    """Whether to fetch the archive of one of the ten tasks through MONAI where its folder is missing."""


@SOURCES.register("decathlon")
class DecathlonSource(FileSource):
    """The training cases of a task, which alone have labels."""

    Settings = DecathlonSettings
    settings: DecathlonSettings
    names_file = NAMES_FILE

    def place(self) -> str:
        return f"{self.settings.folder}/{self.settings.task}"

    @cached_property
    def _folder(self) -> Path:
        folder = self.root / self.settings.folder / self.settings.task
        if self.settings.download and not folder.exists():
            _download(self.settings.task, folder.parent)
        return folder

    @cached_property
    def _dataset(self) -> Mapping[str, Any]:
        return read_dataset_json(self._folder)

    def label_names(self) -> LabelNames:
        return label_values(self._folder, self._dataset.get("labels"))

    def find(self, problems: list[DataError]) -> Iterator[CaseFiles]:
        entries = self._dataset.get("training")
        if not isinstance(entries, list) or not entries:
            raise refused(self._folder, "training must list cases", repr(entries))
        channel_index(self._folder, self._dataset.get("modality"), self.settings.channel)
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
                problems.append(refused(self._folder, f"training[{index}] must have an image", repr(entry)))
                continue
            image = self._folder / entry["image"]
            case_id = image.name.removesuffix(".gz").removesuffix(".nii")
            label = self._folder / entry["label"] if isinstance(entry.get("label"), str) else None
            if label is None or not label.is_file():
                if not self.settings.allow_unlabelled:
                    problems.append(no_label(case_id, label or self._folder / "labelsTr"))
                label = None
            try:
                patient = patient_in(case_id, self.settings.patient_pattern, case_id=case_id, path=image)
                yield CaseFiles(case_id, patient, image, label, has_patient=self.settings.patient_pattern is not None)
            except DataError as error:
                problems.append(error)

    def read_image(self, files: CaseFiles) -> ImageVolume:
        channel = channel_index(self._folder, self._dataset.get("modality"), self.settings.channel)
        return read_volume(files.image, files.case_id, channel=channel)


def _download(task: str, folder: Path) -> None:
    """Fetches and unpacks an archive. Raises `DataError` with the reason where that cannot be done."""
    from monai.apps import DecathlonDataset, download_and_extract

    if task not in DecathlonDataset.resource:
        raise DataError(
            f"task: must be a task of the Decathlon to be downloaded, got {task!r}; {did_you_mean(task, DecathlonDataset.resource)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    url, checksum = DecathlonDataset.resource[task], DecathlonDataset.md5[task]
    try:
        download_and_extract(url, folder / f"{task}.tar", folder, hash_val=checksum, hash_type="md5", progress=False)
    except Exception as error:  # MONAI raises plain exceptions where the net fails it
        hint = f"fetch the archive where the net allows, unpack it into {folder} and set download: false"
        raise DataError(f"{task}: download: true needs the net to reach {url}, got {error}; {hint}") from None
