"""Volumes in a folder, images and labels paired by name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, model_validator
from pydantic_core import PydanticCustomError

from raykd.data.case import Case
from raykd.data.sources._base import CaseKey, Source
from raykd.data.volume_io import file_digest, read_volume, refusal
from raykd.scenario.errors import DataError, did_you_mean
from raykd.scenario.fields import Strict
from raykd.scenario.registry import SOURCES

GRID_TOLERANCE = 1e-3
"""Largest difference, relative to a voxel, between the affines of an image and its label."""


def _one_wildcard(pattern: str) -> str:
    if pattern.count("*") != 1:
        raise PydanticCustomError("wildcard", "must hold exactly one '*', the part of the name that tells cases apart")
    return pattern


def _one_group(pattern: str) -> str:
    try:
        num_groups = re.compile(pattern).groups
    except re.error as error:
        raise PydanticCustomError("regex", "must be a regular expression: {reason}", {"reason": str(error)}) from None
    if num_groups != 1:
        raise PydanticCustomError("regex", "must have exactly one group, the patient, got {num}", {"num": num_groups})
    return pattern


Pattern = Annotated[str, AfterValidator(_one_wildcard)]


class FolderSettings(Strict):
    """NIfTI (.nii, .nii.gz), NRRD or MHA files, one value a voxel."""

    name: Literal["folder"]
    images: Pattern
    """Where images are, from the folder of the scenario; what `*` stands for (not across folders) is the case's name."""
    labels: Pattern | None = None
    """Where their labels are, with `*` for the case's name; absent: no case is labelled."""
    label_values: dict[str, tuple[int, ...]] | None = None
    """For every class of the scenario, the values that mark it in the files ([]: none); absent: 1, 2, ... in class order."""
    other_values: Literal["background", "refuse"] = "background"
    """What becomes of a value, other than 0, that no class lists."""
    patient_pattern: Annotated[str, AfterValidator(_one_group)] | None = None
    """Regular expression searched in the file's name, whose one group is the patient; absent: each case is a patient."""
    unit: Literal["patient", "case"] = "patient"
    """What a split keeps together. `case` lets one patient's cases fall on both sides, which the record calls "within-subject"."""
    modality: Literal["mr", "ct"] = "mr"
    clip: tuple[float, float] | None = None
    """Lowest and highest intensity kept, say a window in HU for CT."""
    allow_unlabelled: bool = False
    """Whether a case may lack a label file while `labels` is given."""
    allow_outside: bool = False
    """Whether files may lie outside the folder of the scenario: absolute paths, `..`, symbolic links."""

    @model_validator(mode="after")
    def _consistent(self) -> FolderSettings:
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise PydanticCustomError("clip", "clip must be [low, high] with low < high")
        values = [value for listed in (self.label_values or {}).values() for value in listed]
        if 0 in values or len(set(values)) != len(values):
            raise PydanticCustomError("label_values", "label_values must list each value once and never 0, which is background")
        return self


@SOURCES.register("folder")
class FolderSource(Source):
    """Cases read from files.

    Raises:
        DataError: `label_values` names a class that the scenario does not have, or leaves one out.
    """

    Settings = FolderSettings
    settings: FolderSettings

    def __init__(self, settings: FolderSettings, classes: tuple[str, ...], seed: int, owner: str, root: Path):
        super().__init__(settings, classes, seed, owner, root)
        listed = settings.label_values
        self._values = (
            [listed.get(name, ()) for name in classes] if listed is not None else [(n,) for n in range(1, len(classes) + 1)]
        )
        for name in sorted(set(listed or classes) ^ set(classes)):
            what = "must list every class; for one not in these files write []" if name in classes else did_you_mean(name, classes)
            raise DataError(f"{owner}: label_values must name exactly the scenario's classes, got a difference in {name!r}; {what}")

    def keys(self) -> list[CaseKey]:
        return [CaseKey(case_id, self._patient(case_id) if self.settings.unit == "patient" else case_id) for case_id in self._files]

    def load(self, key: CaseKey) -> Case:
        image_path, label_path = self._files[key.case_id]
        image_CIJK, affine = read_volume(image_path, key.case_id)
        if self.settings.clip is not None:
            image_CIJK = image_CIJK.clip(*self.settings.clip)
        if image_CIJK.min() == image_CIJK.max():
            got = f"{image_CIJK.min()} everywhere"
            raise refusal(
                "an image must not be constant", path=image_path, case_id=key.case_id, got=got, hint="see the file, and clip"
            )
        label_IJK = None
        if label_path is not None:
            label_IJK = self._label(label_path, key.case_id, image_CIJK.shape[1:], affine)
        record: dict[str, float | str] = {
            "source.name": "folder",
            "source.modality": self.settings.modality,
            "source.split": "by patient" if self.settings.unit == "patient" else "within-subject",
        }
        return Case(key.case_id, key.patient_id, torch.from_numpy(image_CIJK), label_IJK, affine, record)

    def fingerprint(self) -> dict[str, Any]:
        files = {
            case_id: [self._name_and_digest(path, case_id) for path in paths if path] for case_id, paths in self._files.items()
        }
        return {"settings": self.settings.model_dump(mode="json"), "classes": list(self.classes), "files": files}

    def check(self) -> None:
        """Reads every case, and looks for one image under two names.

        Raises:
            DataError: one line for each unusable case.
        """
        problems, seen = [], dict[str, str]()
        for key in self.keys():
            try:
                self.load(key)
            except DataError as error:
                problems.append(str(error))
                continue
            path = self._files[key.case_id][0]
            first = seen.setdefault(file_digest(path).sha256, key.case_id)
            if first != key.case_id:
                problems.append(
                    str(refusal("images must differ", path=path, case_id=key.case_id, got=f"the bytes of case {first!r}"))
                )
        if problems:
            raise DataError("\n".join(problems))

    @cached_property
    def _files(self) -> dict[str, tuple[Path, Path | None]]:
        """Image and label of every case, by its name, in the order of names."""
        images = dict(self._matches(self.settings.images))
        labels = dict(self._matches(self.settings.labels)) if self.settings.labels is not None else {}
        images = {case_id: path for case_id, path in images.items() if path not in labels.values()}
        if not images:
            folder = self._folder_of(self.settings.images)
            raise DataError(
                f"{self.owner}: images: {self.settings.images!r} must match a file, got none in {folder}; correct the pattern"
            )
        for case_id in sorted(set(labels) - set(images)):
            expected = self.settings.images.replace("*", case_id)
            raise refusal(
                "a label must have an image", path=labels[case_id], case_id=case_id, got=f"no {expected}", hint="add or move one"
            )
        for case_id in sorted(set(images) - set(labels)):
            if self.settings.labels is not None and not self.settings.allow_unlabelled:
                path = self.root / self.settings.labels.replace("*", case_id)
                hint = "add it, or set allow_unlabelled: true"
                raise refusal("a case must have its label file", path=path, case_id=case_id, got="no such file", hint=hint)
        return {case_id: (images[case_id], labels.get(case_id)) for case_id in sorted(images)}

    def _folder_of(self, pattern: str) -> Path:
        return self.root / pattern.split("*")[0].rpartition("/")[0]

    def _matches(self, pattern: str) -> Iterator[tuple[str, Path]]:
        """The files that a pattern names, by what `*` stands for; every other character means itself."""
        before, after = pattern.split("*")
        prefix = before.rpartition("/")[2]
        suffix, _, tail = after.partition("/")
        folder = self._folder_of(pattern)
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            case_id = entry.name[len(prefix) : len(entry.name) - len(suffix)]
            path = entry / tail if tail else entry
            if case_id and entry.name == f"{prefix}{case_id}{suffix}" and path.is_file():
                self._check_inside(path, case_id)
                yield case_id, path

    def _check_inside(self, path: Path, case_id: str) -> None:
        if not (self.settings.allow_outside or path.resolve().is_relative_to(self.root.resolve())):
            hint = "move it there, or set allow_outside: true"
            raise refusal(
                "a file must lie in the folder of the scenario", path=path, case_id=case_id, got=str(path.resolve()), hint=hint
            )

    def _patient(self, case_id: str) -> str:
        if self.settings.patient_pattern is None:
            return case_id
        before, after = self.settings.images.split("*")
        name = before.rpartition("/")[2] + case_id + after
        match = re.search(self.settings.patient_pattern, name)
        if not match or not match[1]:
            rule = f"patient_pattern {self.settings.patient_pattern!r} must find a patient in the name"
            raise refusal(rule, path=self._files[case_id][0], case_id=case_id, got=name, hint="correct the pattern")
        return match[1]

    def _label(self, path: Path, case_id: str, shape: tuple[int, ...], affine: NDArray[np.float64]) -> torch.Tensor:
        """The label on the image's grid, with classes as the scenario numbers them: uint8 (I, J, K)."""
        values_IJK, label_affine = read_volume(path, case_id, kind="label")
        if values_IJK.shape != shape:
            hint = "resample the label onto the image"
            raise refusal(
                f"a label must have its image's shape {shape}", path=path, case_id=case_id, got=str(values_IJK.shape), hint=hint
            )
        if np.abs(np.linalg.solve(affine, label_affine) - np.eye(4)).max() > GRID_TOLERANCE:
            rule = f"a label must have its image's affine {affine[:3].round(4).tolist()}"
            hint = "resample the label onto the image, or copy its header where only that is wrong"
            raise refusal(rule, path=path, case_id=case_id, got=str(label_affine[:3].round(4).tolist()), hint=hint)
        label_IJK = np.zeros(shape, dtype=np.uint8)
        for index, values in enumerate(self._values, start=1):
            label_IJK[np.isin(values_IJK, values)] = index
        others = np.unique(values_IJK[(label_IJK == 0) & (values_IJK != 0)]).tolist()
        if others and self.settings.other_values == "refuse":
            known = dict(zip(self.classes, self._values, strict=True))
            hint = "list it in label_values, or set other_values: background"
            raise refusal(f"a label's values must be 0 or among {known}", path=path, case_id=case_id, got=str(others), hint=hint)
        return torch.from_numpy(label_IJK)

    def _name_and_digest(self, path: Path, case_id: str) -> list[str | int]:
        digest = file_digest(path, case_id)
        name = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name
        return [name, digest.num_bytes, digest.sha256]
