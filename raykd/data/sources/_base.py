"""What a source of cases promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from raykd.data.case import Case
from raykd.data.sources._persons import Person
from raykd.scenario.fields import Strict


@dataclass(frozen=True)
class CaseKey:
    """A case that can be loaded: its name, and the patient it belongs to (the unit of every split)."""

    case_id: str
    patient_id: str


@dataclass(frozen=True)
class FileNote:
    """What a user should know of a file.

    Attributes:
        what: is unusual: the same words for all files of which the same is told.
        got: what is written in this one.
        path, case_id: of the file.
    """

    what: str
    got: str
    path: Path
    case_id: str


class Source(ABC):
    """Where cases come from. A subclass is registered with `SOURCES.register(name)` and has a `Settings` model with that `name`.

    Args:
        settings: the validated block of the scenario.
        classes: the scenario's foreground classes; labels are delivered as 1, 2, ... in this order.
        seed: of the scenario.
        owner: who holds the cases: the repository or a client's name. Part of every random address, so that owners differ.
        root: relative paths of the settings start here (the folder of the scenario file).
    """

    Settings: ClassVar[type[Strict]]

    def __init__(self, settings: Any, classes: tuple[str, ...], seed: int, owner: str, root: Path):
        self.settings = settings
        self.classes = classes
        self.seed = seed
        self.owner = owner
        self.root = root

    @abstractmethod
    def keys(self) -> list[CaseKey]:
        """Every case in a fixed order, without loading any. Raises `DataError` where the source is unusable."""

    @abstractmethod
    def load(self, key: CaseKey) -> Case:
        """The case in RAS+, with labels as the scenario numbers them. Raises `DataError` naming case, file, rule and value."""

    def traits(self, key: CaseKey) -> dict[str, str | float]:
        """What is known of a case without loading it, by name, as `site` or `kl_grade`: what a pool can be split by."""
        return {}

    def has_label(self, key: CaseKey) -> bool:
        """Whether a case has a label, known without loading it."""
        return True

    def outlined(self, key: CaseKey) -> tuple[int, ...] | None:
        """The classes that whoever made a case's label looked for, ascending, known without loading it; None: all."""
        return None

    def files(self, key: CaseKey) -> tuple[Path, ...]:
        """The files that a case is read from, the image's first; none where cases are made, not read."""
        return ()

    def notes(self, key: CaseKey) -> list[FileNote]:
        """What a user should know of how a case is read, as a pose that its file does not tell. Raises `DataError`."""
        return []

    def population(self) -> str | None:
        """Names the people that `patient_id` tells apart: two owners whose sources agree in both hold the same person. None: the
        names mean nothing outside this source.
        """
        return None

    def persons(self, key: CaseKey) -> tuple[Person, ...]:
        """Who a case is of, where an id was given that means the same person in other sources of the scenario."""
        return ()

    def patient_name(self, key: CaseKey) -> str:
        """The patient's id as it was written."""
        return key.patient_id

    def is_guessed(self, key: CaseKey) -> bool:
        """Whether nobody gave the patient of a case, which is then taken for a patient of its own."""
        return False

    def check(self) -> None:
        """Reads every case and raises `DataError` with all that is wrong; does nothing where cases are made, not read."""
        return

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What the content depends on (settings, seed, file sizes and times ...), as JSON values: the key of the cache of
        prepared cases.
        """
