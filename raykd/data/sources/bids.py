"""Data sets in the Brain Imaging Data Structure: raw images, and label maps in `derivatives/`.

Images are `sub-A[/ses-B]/anat/sub-A[_ses-B][_...]_T1w.nii.gz`; a label has the entities of its image and may add `space`, `res`,
`den`, `label`, `desc`, `atlas`, `seg`; a `*dseg.tsv` names its values (columns `index`, `name`); `participants.tsv` gives traits.
Format: BIDS 1.9, https://bids-specification.readthedocs.io (image-derived labels: derivatives/imaging)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from raykd.data.sources._files import FileSettings, FileSource
from raykd.data.sources._labels import LabelNames, normalised
from raykd.data.sources._listing import CaseFiles
from raykd.data.sources._manifest import trait
from raykd.data.sources._patterns import almost, no_label, visible
from raykd.data.sources._persons import canonical
from raykd.data.sources._tables import Row, read_table, table_problem
from raykd.data.volume_io import refusal
from raykd.scenario.errors import DataError
from raykd.scenario.registry import SOURCES

ADDED_BY_DERIVATIVES = {"space", "res", "den", "label", "desc", "atlas", "seg"}
ENDINGS = (".nii.gz", ".nii")
NO_VALUE = ("", "n/a")
PARTICIPANT = "participant_id"


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
        if derivative is not None and not derivative.is_dir():
            hint = "set derivative, or leave it out where no case is labelled"
            raise refusal("derivative must be a folder in derivatives/", path=derivative, case_id=self.owner, got="none", hint=hint)
        problems += [almost(path, f"*_{settings.suffix}{ENDINGS[0]}") for path in _misspelt(self._folder, settings.suffix)]
        labels = list(_volumes(derivative, settings.label_suffix, settings.label_entities)) if derivative else []
        people = _participants(self._folder / "participants.tsv", {entities["sub"] for _, entities in images})
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
            problems += _strays(self._folder, path, entities, case_id)
            row = people.get(entities["sub"], {})
            traits = {key: trait(value) for key, value in row.items() if key != PARTICIPANT and value not in NO_VALUE}
            traits |= {"session": entities["ses"]} if "ses" in entities else {}
            label = own[0] if own else None
            outlined = self._outlined_in(label)
            yield CaseFiles(case_id, entities["sub"], path, label, traits, has_patient=True, outlined=outlined)

    def _outlined_in(self, label: Path | None) -> tuple[int, ...] | None:
        """The classes whose values the label's own table lists; None: it has no table of its own."""
        table = None if label is None else label.with_name(f"{label.name.removesuffix('.gz').removesuffix('.nii')}.tsv")
        if table is None or not table.is_file():
            return None
        listed = {str(row.values.get("index", "")).strip() for row in _tsv(table, ("index", "name"))}
        return tuple(i for i, values in enumerate(self._values, start=1) if not listed.isdisjoint(map(str, values)))

    def label_names(self) -> LabelNames | None:
        every = visible(self._derivative, f"**/*{self.settings.label_suffix}.tsv") if self._derivative else []
        wanted = self.settings.label_entities
        fitting = [path for path in every if all(wanted.get(key, value) == value for key, value in _entities(path).items())]
        tables = fitting or every  # a data set may have one table for labels of all kinds
        found: dict[str, tuple[str, tuple[int, ...]]] = {}
        for table in tables:
            for row in _tsv(table, ("index", "name")):
                try:
                    name, values = row.values["name"].strip(), (int(row.values["index"]),)
                except (KeyError, ValueError):
                    rule = "a row must have an integer index and a name"
                    raise table_problem(table, row.line, rule, str(dict(row.values))) from None
                first = found.setdefault(normalised(name), (name, values))
                if first[1] != values:
                    rule, got = f"tables must agree in the index of {name!r}", f"{values[0]}, elsewhere {first[1][0]}"
                    raise table_problem(table, row.line, rule, got)
        return {name: values for name, values in found.values() if values != (0,)} or None


def _is_of(label: Mapping[str, str], image: Mapping[str, str]) -> bool:
    return image.items() <= label.items() and label.keys() - image.keys() <= ADDED_BY_DERIVATIVES


def _volumes(folder: Path, suffix: str, wanted: Mapping[str, str]) -> Iterator[tuple[Path, dict[str, str]]]:
    """The volumes of all subjects with a suffix and wanted entities, with their entities in order."""
    for path in visible(folder, "sub-*/**/*"):
        ending = next((ending for ending in ENDINGS if path.name.endswith(f"_{suffix}{ending}")), None)
        entities = _entities(path)
        is_hidden = path.name[0] == "."  # as macOS leaves them
        if ending and not is_hidden and "sub" in entities and wanted.items() <= entities.items():
            yield path, entities


def _entities(path: Path) -> dict[str, str]:
    """The entities in a file's name, in order."""
    return dict(part.split("-", 1) for part in path.name.split("_")[:-1] if "-" in part)


def _misspelt(folder: Path, suffix: str) -> Iterator[Path]:
    """Files that differ from the images of a suffix in upper and lower case alone."""
    for path in sorted(folder.glob("[sS][uU][bB]-*/**/*")):
        endings = [f"_{suffix}{ending}" for ending in ENDINGS]
        is_meant = path.name.lower().endswith(tuple(ending.lower() for ending in endings)) and path.name[0] != "."
        is_fine = path.name.endswith(tuple(endings)) and path.relative_to(folder).parts[0].startswith("sub-")
        if is_meant and not is_fine:
            yield path


def _strays(root: Path, path: Path, entities: Mapping[str, str], case_id: str) -> Iterator[DataError]:
    """The refusal of an image that lies in the folder of another subject or session than its name says."""
    for folder in path.relative_to(root).parts[:-1]:
        key, _, value = folder.partition("-")
        if key in ("sub", "ses") and value and value != entities.get(key, value):
            rule, got = f"an image must lie in the folder of its {key}", f"{key}-{entities[key]} in folder {folder}"
            yield refusal(rule, path=path, case_id=case_id, got=got, hint="move or rename it")


def _participants(path: Path, subjects: Set[str]) -> dict[str, Mapping[str, Any]]:
    """The row of every subject in participants.tsv, by the subject's label without `sub-`.

    Raises:
        DataError: a row has no participant, one that is there twice, or one that differs from a subject in how it is written.
    """
    people: dict[str, Mapping[str, Any]] = {}
    alike = {canonical(subject): subject for subject in sorted(subjects)}
    for row in _tsv(path, (PARTICIPANT,)):
        written = str(row.values.get(PARTICIPANT, "")).strip()
        subject = written.removeprefix("sub-")
        near = alike.get(canonical(written))
        if not subject:
            raise table_problem(path, row.line, f"a row must name a subject in column {PARTICIPANT!r}", "none", "add it")
        if subject in people:
            raise table_problem(path, row.line, "a subject must have one row", repr(written), "remove all but one")
        if near is not None and near != subject and subject not in subjects:
            hint = f"write sub-{near}, as the folder is called"
            raise table_problem(path, row.line, f"{PARTICIPANT} must be written as the subject's folder", repr(written), hint)
        people[subject] = row.values
    return people


def _tsv(path: Path, known: tuple[str, ...]) -> list[Row]:
    """The rows of a table that may not be there. Raises `DataError` with the first that is wrong."""
    rows = read_table(path, known, "\t") if path.is_file() else []
    for row in rows:
        if row.flaw is not None:
            raise row.flaw
    return rows
