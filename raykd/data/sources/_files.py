"""What all sources that read files share; a layout only says which files make which case."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator
from pydantic_core import PydanticCustomError

from raykd.data.case import Case
from raykd.data.pose import distance_mm, tolerance_mm
from raykd.data.remote import localised
from raykd.data.sources._base import CaseKey, FileNote, Source
from raykd.data.sources._label_map import Coding, class_map
from raykd.data.sources._labels import LabelNames, Values, check_listed, values_by_name
from raykd.data.sources._listing import CaseFiles, check_listing
from raykd.data.sources._persons import Person, canonical
from raykd.data.volume_io import READABLE, ImageVolume, file_digest, pose_notes, read_volume, refusal
from raykd.scenario.errors import DataError
from raykd.scenario.fields import SafeName, Strict
from raykd.scenario.labels import Composed


class FileSettings(Strict):
    """What may be set of every source that reads files."""

    label_values: dict[Composed, Values] | None = None
    """For every class of the scenario, the values that mark it in the files ([]: nobody outlined the class there); absent: by the
    names that the layout gives to values, where it gives none 1, 2, ... in class order."""
    other_values: Literal["background", "refuse"] = "background"
    """What becomes of a value, other than 0, that no class lists."""
    unit: Literal["patient", "case"] = "patient"
    """What a split keeps together. `case` lets one patient's cases fall on both sides, which the record calls "within-subject"."""
    population: SafeName | None = None
    """Whose numbering the patients' ids are, where ids are given. Absent: one id is one person in all sources of the scenario, and
    two owners that have it are refused. `own`: this source numbers its own patients. Any other name: one id is one person in all
    sources of that name."""
    modality: Literal["mr", "ct"] = "mr"
    clip: tuple[float, float] | None = None
    """Lowest and highest intensity kept, say a window in HU for CT."""
    allow_unlabelled: bool = False
    """Whether a case may lack its label while the others have theirs."""
    allow_outside: bool = False
    """Whether files may lie outside the folder of the scenario: absolute paths, `..`, symbolic links."""

    @model_validator(mode="after")
    def _consistent(self) -> FileSettings:
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise PydanticCustomError("clip", "clip must be [low, high] with low < high")
        values = [value for listed in (self.label_values or {}).values() for value in listed]
        if 0 in values or len(set(values)) != len(values):
            raise PydanticCustomError("label_values", "label_values must list each value once and never 0, which is background")
        return self


class FileSource(Source):
    """Cases read from files. A layout defines `find`, and where its files are not plain volumes `read_image` and `read_label`.

    Raises:
        DataError: `label_values` names a class that the scenario does not have, or leaves one out.
    """

    settings: FileSettings
    names_file: ClassVar[str] = ""
    """Which file of the layout gives names to label values."""
    is_archive: ClassVar[bool] = False
    """Whether one file holds all cases."""

    def __init__(self, settings: Any, classes: tuple[str, ...], seed: int, owner: str, root: Path):
        super().__init__(settings, classes, seed, owner, root)
        self._written, self.settings = self.settings, localised(self.settings)
        self.unnamed: dict[int, set[str]] = {}
        """The values, other than 0, that neither the scenario nor the layout names, with the cases loaded so far that have them."""
        if self.settings.label_values is not None:
            check_listed(owner, classes, self.settings.label_values)

    @abstractmethod
    def place(self) -> str:
        """Where the layout lies, from the folder of the scenario: cases of one place agree in what a patient's name means."""

    @abstractmethod
    def find(self, problems: list[DataError]) -> Iterable[CaseFiles]:
        """Every case of the layout, without reading a voxel; what is wrong with single cases is added to `problems`. Raises
        `DataError` where the layout itself is unusable.
        """

    def label_names(self) -> LabelNames | None:
        """The names that the layout gives to label values; None: it gives none."""
        return None

    def unknown_values(self) -> Values:
        """The values of voxels that the layout marks as not annotated."""
        return ()

    def read_image(self, files: CaseFiles) -> ImageVolume:
        """The image in RAS+. Raises `DataError`."""
        return read_volume(files.image, files.case_id)

    def read_label(self, files: CaseFiles, image: ImageVolume) -> NDArray[np.int32]:
        """The label's values (I, J, K) on the grid of the image. Raises `DataError`."""
        assert files.label is not None
        values_IJK, affine = read_volume(files.label, files.case_id, "label")
        check_grid(files, values_IJK.shape, image)
        check_affine(files, affine, image)
        return values_IJK

    def image_parts(self, files: CaseFiles) -> tuple[Path, ...]:
        """The files that hold the image."""
        return (files.image,)

    def image_content(self, files: CaseFiles) -> object:
        """What two cases share only where their images are the same."""
        return tuple(file_digest(path, files.case_id).sha256 for path in self.image_parts(files))

    def keys(self) -> list[CaseKey]:
        is_patient = self.settings.unit == "patient"
        return [CaseKey(name, files.patient_id if is_patient else name) for name, files in self._cases.items()]

    def traits(self, key: CaseKey) -> dict[str, str | float]:
        return dict(self._cases[key.case_id].traits)

    def has_label(self, key: CaseKey) -> bool:
        """Whether a case has a label in which somebody looked for a class of the scenario."""
        return self._cases[key.case_id].label is not None and self.outlined(key) != ()

    def outlined(self, key: CaseKey) -> tuple[int, ...] | None:
        own = self._cases[key.case_id].outlined
        marked = tuple(i for i, values in enumerate(self._values, start=1) if values and (own is None or i in own))
        return None if len(marked) == len(self.classes) else marked

    def files(self, key: CaseKey) -> tuple[Path, ...]:
        files = self._cases[key.case_id]
        return (*self.image_parts(files), *([files.label] if files.label else []))

    def notes(self, key: CaseKey) -> list[FileNote]:
        files = self._cases[key.case_id]
        volumes = [path for path in (files.image, files.label) if path is not None and path.name.endswith(READABLE)]
        return [FileNote(what, got, path, key.case_id) for path in volumes for what, got in pose_notes(path, key.case_id)]

    def population(self) -> str | None:
        return str((self.root / self.place()).resolve())

    def persons(self, key: CaseKey) -> tuple[Person, ...]:
        files, population = self._cases[key.case_id], self.settings.population
        if not files.has_patient:
            return ()
        numbering = {None: "of the scenario", "own": f"of {self.owner}"}.get(population, f"called {population}")
        return (Person(numbering, canonical(files.patient_id), files.issuer),)

    def patient_name(self, key: CaseKey) -> str:
        return self._cases[key.case_id].patient_id

    def is_guessed(self, key: CaseKey) -> bool:
        return self.settings.unit == "patient" and not self._cases[key.case_id].has_patient

    def load(self, key: CaseKey) -> Case:
        files = self._cases[key.case_id]
        image = self._image(files)
        label_IJK = None if files.label is None else self._label(files, image)
        record: dict[str, float | str] = {
            "source.name": self.settings.name,  # type: ignore[attr-defined]
            "source.modality": self.settings.modality,
            "source.split": "by patient" if self.settings.unit == "patient" else "within-subject",
        }
        image_CIJK, outlined = torch.from_numpy(image[0]), self.outlined(key)
        absent = tuple(index for index in files.absent if outlined is None or index in outlined)
        return Case(key.case_id, key.patient_id, image_CIJK, label_IJK, image[1], record, outlined, absent)

    def load_as_written(self, key: CaseKey) -> Case:
        """The case with the values of its label as they stand in the file: int32. Raises `DataError`."""
        files = self._cases[key.case_id]
        image = self._image(files)
        label_IJK = None if files.label is None else torch.from_numpy(self.read_label(files, image))
        return Case(key.case_id, key.patient_id, torch.from_numpy(image[0]), label_IJK, image[1])

    def fingerprint(self) -> dict[str, Any]:
        files = {key.case_id: [self._name_and_digest(path, key.case_id) for path in self.files(key)] for key in self.keys()}
        written = self._written.model_dump(mode="json", exclude={"population"})  # who a patient is changes no voxel
        values = [list(values) for values in self._values]
        told = {name: [files.outlined, files.absent] for name, files in self._cases.items() if files.outlined or files.absent}
        return {"settings": written, "classes": list(self.classes), "values": values, "files": files, "outlined": told}

    def check(self) -> None:
        """Reads every case, and looks for one image under two names.

        Raises:
            DataError: one line for each thing that is wrong, of all cases.
        """
        cases, problems = self._listing
        found = [*problems, *(problem for files in cases.values() for problem in self._problems(files))]
        if found:
            # What is wrong with the layout shows again in its cases.
            raise DataError("\n".join(dict.fromkeys(str(problem) for problem in found)))

    def _problems(self, files: CaseFiles) -> Iterator[DataError]:
        try:
            image = self._image(files)
            first = self._first_with.setdefault(self.image_content(files), files.case_id)
            if first != files.case_id:
                got = f"the bytes of case {first!r}"
                yield refusal("images must differ", path=files.image, case_id=files.case_id, got=got)
        except DataError as error:
            yield error
            image = None
        try:
            if files.label is not None and image is not None:
                self._label(files, image)
            elif files.label is not None and files.label.is_file():
                file_digest(files.label, files.case_id)
        except DataError as error:
            yield error

    @cached_property
    def _first_with(self) -> dict[object, str]:
        return {}

    @cached_property
    def _values(self) -> list[Values]:
        if self.settings.label_values is not None:
            return [self.settings.label_values[name] for name in self.classes]
        names = self.label_names()
        if names is None:
            return [(n,) for n in range(1, len(self.classes) + 1)]
        return values_by_name(self.owner, self.classes, names, self.names_file)

    @cached_property
    def _listing(self) -> tuple[dict[str, CaseFiles], list[DataError]]:
        """Every case by its name, in the order of names, and what is wrong with the layout."""
        cases: dict[str, CaseFiles] = {}
        problems: list[DataError] = []
        how = {"allow_outside": self.settings.allow_outside, "is_archive": self.is_archive}
        try:
            cases = check_listing(self.find(problems), self.root, problems, **how)
            self._values  # noqa: B018 (raises where classes cannot be told)
        except DataError as error:
            problems.append(error)
        return cases, problems

    @property
    def _cases(self) -> dict[str, CaseFiles]:
        cases, problems = self._listing
        if problems:
            raise DataError("\n".join(str(problem) for problem in problems))
        return cases

    def _image(self, files: CaseFiles) -> ImageVolume:
        image_CIJK, affine = self.read_image(files)
        if self.settings.clip is not None:
            image_CIJK = image_CIJK.clip(*self.settings.clip)
        if image_CIJK.min() == image_CIJK.max():
            got = f"{image_CIJK.min()} everywhere"
            rule, hint = "an image must not be constant", "see the file, and clip"
            raise refusal(rule, path=files.image, case_id=files.case_id, got=got, hint=hint)
        return image_CIJK, affine

    def _label(self, files: CaseFiles, image: ImageVolume) -> torch.Tensor:
        """The label on the image's grid, with classes as the scenario numbers them: uint8 (I, J, K)."""
        assert files.label is not None
        values_IJK = self.read_label(files, image)
        label_IJK, foreign = class_map(values_IJK, self._coding, files.label, files.case_id, files.outlined, files.absent)
        for value in foreign:
            self.unnamed.setdefault(value, set()).add(files.case_id)
        return torch.from_numpy(label_IJK)

    @cached_property
    def _coding(self) -> Coding:
        named = None
        if self.settings.label_values is None:
            named = tuple(value for values in (self.label_names() or {}).values() for value in values)
        return Coding(self.classes, self._values, self.unknown_values(), named, self.settings.other_values == "refuse")

    def _name_and_digest(self, path: Path, case_id: str) -> list[str | int]:
        digest = file_digest(path, case_id)
        name = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name
        return [name, digest.num_bytes, digest.sha256]


def check_grid(files: CaseFiles, shape: tuple[int, ...], image: ImageVolume) -> None:
    """Raises `DataError` where a label's shape is not its image's."""
    if files.label is not None and shape != (want := image[0].shape[1:]):
        rule, hint = f"a label must have its image's shape {want}", "resample the label onto the image"
        raise refusal(rule, path=files.label, case_id=files.case_id, got=str(shape), hint=hint)


def check_affine(files: CaseFiles, affine: NDArray[np.float64], image: ImageVolume) -> None:
    """Raises `DataError` where a voxel of a label lies elsewhere than its image's."""
    off_mm, limit_mm = distance_mm(image[1], affine, image[0].shape[1:]), tolerance_mm(image[1])
    if files.label is not None and off_mm > limit_mm:
        rule = f"a label must have its image's affine {image[1][:3].round(4).tolist()} to within {limit_mm:.2g} mm at every corner"
        got = f"{affine[:3].round(4).tolist()}, {off_mm:.3g} mm off"
        hint = "resample the label onto the image, or copy its header where only that is wrong"
        raise refusal(rule, path=files.label, case_id=files.case_id, got=got, hint=hint)
