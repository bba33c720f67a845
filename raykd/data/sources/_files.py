"""What all sources that read files share; a layout only says which files make which case."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator
from pydantic_core import PydanticCustomError

from raykd.data.case import LABEL_UNKNOWN, Case
from raykd.data.remote import is_fetched, localised
from raykd.data.sources._base import CaseKey, Source
from raykd.data.sources._labels import LabelNames, Values, check_listed, to_classes, values_by_name
from raykd.data.volume_io import ImageVolume, file_digest, read_volume, refusal
from raykd.scenario.errors import DataError
from raykd.scenario.fields import Strict
from raykd.scenario.labels import Composed

GRID_TOLERANCE = 1e-3
"""Largest difference, relative to a voxel, between the affines of an image and its label."""


@dataclass(frozen=True)
class CaseFiles:
    """Which files make a case.

    Attributes:
        case_id: unique in the source.
        patient_id: whose it is.
        image: a file, or the folder of a series.
        label: absent where nobody annotated the case.
        traits: what else the layout tells of it, as `site`.
    """

    case_id: str
    patient_id: str
    image: Path
    label: Path | None = None
    traits: Mapping[str, str | float] = field(default_factory=dict)


class FileSettings(Strict):
    """What may be set of every source that reads files."""

    label_values: dict[Composed, Values] | None = None
    """For every class of the scenario, the values that mark it in the files ([]: none); absent: by the names that the layout gives
    to values, where it gives none 1, 2, ... in class order."""
    other_values: Literal["background", "refuse"] = "background"
    """What becomes of a value, other than 0, that no class lists."""
    unit: Literal["patient", "case"] = "patient"
    """What a split keeps together. `case` lets one patient's cases fall on both sides, which the record calls "within-subject"."""
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

    def __init__(self, settings: Any, classes: tuple[str, ...], seed: int, owner: str, root: Path):
        super().__init__(settings, classes, seed, owner, root)
        self._written, self.settings = self.settings, localised(self.settings)
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
        return self._cases[key.case_id].label is not None

    def files(self, key: CaseKey) -> tuple[Path, ...]:
        files = self._cases[key.case_id]
        return (*self.image_parts(files), *([files.label] if files.label else []))

    def population(self) -> str | None:
        return str((self.root / self.place()).resolve())

    def load(self, key: CaseKey) -> Case:
        files = self._cases[key.case_id]
        image = self._image(files)
        label_IJK = None if files.label is None else self._label(files, image)
        record: dict[str, float | str] = {
            "source.name": self.settings.name,  # type: ignore[attr-defined]
            "source.modality": self.settings.modality,
            "source.split": "by patient" if self.settings.unit == "patient" else "within-subject",
        }
        return Case(key.case_id, key.patient_id, torch.from_numpy(image[0]), label_IJK, image[1], record)

    def load_as_written(self, key: CaseKey) -> Case:
        """The case with the values of its label as they stand in the file: int32. Raises `DataError`."""
        files = self._cases[key.case_id]
        image = self._image(files)
        label_IJK = None if files.label is None else torch.from_numpy(self.read_label(files, image))
        return Case(key.case_id, key.patient_id, torch.from_numpy(image[0]), label_IJK, image[1])

    def fingerprint(self) -> dict[str, Any]:
        files = {key.case_id: [self._name_and_digest(path, key.case_id) for path in self.files(key)] for key in self.keys()}
        settings, values = self._written.model_dump(mode="json"), [list(values) for values in self._values]
        return {"settings": settings, "classes": list(self.classes), "values": values, "files": files}

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
        try:
            for files in sorted(self.find(problems), key=lambda files: files.case_id):
                if files.case_id in cases:
                    got = f"a second one beside {cases[files.case_id].image}"
                    problems.append(refusal("a case's name must be its own", path=files.image, case_id=files.case_id, got=got))
                problems += [problem for path in (files.image, files.label) if path for problem in self._outside(path, files)]
                cases.setdefault(files.case_id, files)
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

    def _outside(self, path: Path, files: CaseFiles) -> Iterator[DataError]:
        if not (self.settings.allow_outside or is_fetched(path) or path.resolve().is_relative_to(self.root.resolve())):
            rule, hint = "a file must lie in the folder of the scenario", "move it there, or set allow_outside: true"
            yield refusal(rule, path=path, case_id=files.case_id, got=str(path.resolve()), hint=hint)

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
        label_IJK, others = to_classes(values_IJK, self._values)
        unknown = self.unknown_values()
        label_IJK[np.isin(values_IJK, unknown)] = LABEL_UNKNOWN
        others = [value for value in others if value not in unknown]
        if others and self.settings.other_values == "refuse":
            known = dict(zip(self.classes, self._values, strict=True))
            rule, hint = f"a label's values must be 0 or among {known}", "list it in label_values, or set other_values: background"
            raise refusal(rule, path=files.label, case_id=files.case_id, got=str(others), hint=hint)
        return torch.from_numpy(label_IJK)

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
    """Raises `DataError` where spacing, direction or origin of a label are not its image's."""
    if files.label is not None and np.abs(np.linalg.solve(image[1], affine) - np.eye(4)).max() > GRID_TOLERANCE:
        rule = f"a label must have its image's affine {image[1][:3].round(4).tolist()}"
        hint = "resample the label onto the image, or copy its header where only that is wrong"
        raise refusal(rule, path=files.label, case_id=files.case_id, got=str(affine[:3].round(4).tolist()), hint=hint)
