"""Data sets in the Brain Imaging Data Structure: raw images, and label maps in `derivatives/`.

Images are `sub-A[/ses-B]/anat/sub-A[_ses-B][_...]_T1w.nii.gz`; a label has the entities of its image and may add `space`, `res`,
`den`, `label`, `desc`, `atlas`, `seg`; a `*dseg.tsv` names its values (columns `index`, `name`); `participants.tsv` gives traits.
Format: BIDS 1.9, https://bids-specification.readthedocs.io (image-derived labels: derivatives/imaging)
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from raykd.data.sources._files import CaseFiles, FileSettings, FileSource
from raykd.data.sources._labels import LabelNames
from raykd.data.sources._manifest import trait
from raykd.data.sources._patterns import no_label, visible
from raykd.data.volume_io import refusal
from raykd.scenario.errors import DataError, Problem
from raykd.scenario.registry import SOURCES

ADDED_BY_DERIVATIVES = {"space", "res", "den", "label", "desc", "atlas", "seg"}
ENDINGS = (".nii.gz", ".nii")
NO_VALUE = ("", "n/a")


class BidsSettings(FileSettings):
    """A BIDS data set; labels are matched to classes by name where a dseg.tsv gives names. A class that a label's own dseg.tsv does
    not list was not outlined in that case."""

    name: Literal["bids"]
    folder: str
    """The root of the data set."""
    suffix: str = "T1w"
    """Which images: the last part of their names."""
    entities: dict[str, str] = {}
    """Only images with these entities, as `{ses: baseline, acq: iso}`."""
    derivative: str | None = None
    """The folder in `derivatives/` that holds labels; absent: no case is labelled."""
    label_suffix: str = "dseg"
    """The last part of the names of label files."""
    label_entities: dict[str, str] = {}
    """Only labels with these entities, as `{desc: manual}`."""


@SOURCES.register("bids")
class BidsSource(FileSource):
    """Cases of a BIDS data set; patients are its subjects."""

    Settings = BidsSettings
    settings: BidsSettings
    names_file = "dseg.tsv"

    def place(self) -> str:
        return self.settings.folder

    @cached_property
    def _folder(self) -> Path:
        return self.root / self.settings.folder

    @cached_property
    def _derivative(self) -> Path | None:
        return self._folder / "derivatives" / self.settings.derivative if self.settings.derivative is not None else None

    def find(self, problems: list[DataError]) -> Iterator[CaseFiles]:
        settings = self.settings
        images = [(path, entities) for path, entities in _volumes(self._folder, settings.suffix, settings.entities)]
        if not images:
            rule = f"folder: {settings.folder!r} must hold sub-*/**/*_{settings.suffix}.nii.gz"
            raise DataError(f"{self.owner}: {rule}, got none in {self._folder}; set folder, suffix or entities")
        derivative = self._derivative
        labels = list(_volumes(derivative, settings.label_suffix, settings.label_entities)) if derivative else []
        people = {row.get("participant_id", ""): row for row in _tsv(self._folder / "participants.tsv")}
        for path, entities in images:
            case_id = "_".join(f"{key}-{value}" for key, value in entities.items())
            own = [label for label, of in labels if _is_of(of, entities)]
            if len(own) > 1:
                hint = "say which in label_entities, as {desc: manual}"
                got = ", ".join(label.name for label in own)
                problems.append(refusal("an image must have one label", path=path, case_id=case_id, got=got, hint=hint))
                continue
            if derivative and not own and not settings.allow_unlabelled:
                expected = (
                    f"{path.name.removesuffix('.gz').removesuffix('.nii').rpartition('_')[0]}_*{settings.label_suffix}.nii.gz"
                )
                problems.append(no_label(case_id, derivative / path.parent.relative_to(self._folder) / expected))
            row = people.get(f"sub-{entities['sub']}", {})
            traits = {key: trait(value) for key, value in row.items() if key != "participant_id" and value not in NO_VALUE}
            traits |= {"session": entities["ses"]} if "ses" in entities else {}
            label = own[0] if own else None
            yield CaseFiles(case_id, entities["sub"], path, label, traits, self._outlined_in(label))

    def _outlined_in(self, label: Path | None) -> tuple[int, ...] | None:
        """The classes whose values the label's own table lists; None: it has no table of its own."""
        table = None if label is None else label.with_name(f"{label.name.removesuffix('.gz').removesuffix('.nii')}.tsv")
        if table is None or not table.is_file():
            return None
        listed = {str(row.get("index", "")).strip() for row in _tsv(table)}
        return tuple(i for i, values in enumerate(self._values, start=1) if not listed.isdisjoint(map(str, values)))

    def label_names(self) -> LabelNames | None:
        tables = visible(self._derivative, f"**/*{self.settings.label_suffix}.tsv") if self._derivative else []
        found: dict[str, tuple[int, ...]] = {}
        for table in tables:
            for line, row in enumerate(_tsv(table), start=2):
                try:
                    name, values = row["name"], (int(row["index"]),)
                except (KeyError, TypeError, ValueError):
                    rule = "a row must have an integer index and a name"
                    raise DataError(str(Problem("", rule, str(row), str(table), line, 1))) from None
                if found.setdefault(name, values) != values:
                    rule = f"tables must agree in the index of {name!r}"
                    raise DataError(str(Problem("", rule, f"{values[0]}, elsewhere {found[name][0]}", str(table), line, 1)))
        return {name: values for name, values in found.items() if values != (0,)} or None


def _is_of(label: Mapping[str, str], image: Mapping[str, str]) -> bool:
    return image.items() <= label.items() and label.keys() - image.keys() <= ADDED_BY_DERIVATIVES


def _volumes(folder: Path, suffix: str, wanted: Mapping[str, str]) -> Iterator[tuple[Path, dict[str, str]]]:
    """The volumes of all subjects with a suffix and wanted entities, with their entities in order."""
    for path in visible(folder, "sub-*/**/*"):
        ending = next((ending for ending in ENDINGS if path.name.endswith(f"_{suffix}{ending}")), None)
        parts = path.name.removesuffix(f"_{suffix}{ending}").split("_")
        entities = dict(part.split("-", 1) for part in parts if "-" in part)
        if ending and "sub" in entities and wanted.items() <= entities.items():
            yield path, entities


def _tsv(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(), delimiter="\t"))
