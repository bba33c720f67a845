"""A client's share of a pool that several clients draw on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from raykd.data.case import Case
from raykd.data.sources._base import CaseKey, Source
from raykd.data.sources._persons import Person
from raykd.scenario.errors import DataError
from raykd.scenario.fields import SafeName, Strict
from raykd.scenario.registry import SOURCES

POOL_OWNER = "pool:"
"""How the owner of a pool's cases is called, before the pool's name: no client can be named like that."""


class PoolSettings(Strict):
    """The patients that the split of one of the scenario's `pools` gives to this client."""

    name: Literal["pool"]
    pool: SafeName
    """The pool's name."""
    value: str | float | None = None
    """For pools split by column: the value of that column that makes a patient this client's; absent: the group's name."""


@SOURCES.register("pool")
class PoolSource(Source):
    """Some cases of a source that others hold the rest of.

    Args:
        whole: the pool's source.
        share: those of its cases that this client holds.
        fingerprint: of the whole pool.

    Raises:
        DataError: there is no pool to draw on, because the owner is no client.
    """

    Settings = PoolSettings
    settings: PoolSettings

    def __init__(
        self,
        settings: PoolSettings,
        classes: tuple[str, ...],
        seed: int,
        owner: str,
        root: Path,
        whole: Source | None = None,
        share: Sequence[CaseKey] = (),
        fingerprint: str = "",
    ):
        super().__init__(settings, classes, seed, owner, root)
        if whole is None:
            raise DataError(f"{owner}: source: only clients can draw on a pool; give the {owner} a source of its own")
        self.whole, self._fingerprint = whole, fingerprint
        self._inner = {CaseKey(key.case_id.removeprefix(POOL_OWNER), key.patient_id): key for key in share}

    def keys(self) -> list[CaseKey]:
        return list(self._inner)

    def load(self, key: CaseKey) -> Case:
        return replace(self.whole.load(self._inner[key]), case_id=key.case_id)

    def traits(self, key: CaseKey) -> dict[str, str | float]:
        return self.whole.traits(self._inner[key])

    def has_label(self, key: CaseKey) -> bool:
        return self.whole.has_label(self._inner[key])

    def outlined(self, key: CaseKey) -> tuple[int, ...] | None:
        return self.whole.outlined(self._inner[key])

    def files(self, key: CaseKey) -> tuple[Path, ...]:
        return self.whole.files(self._inner[key])

    def population(self) -> str | None:
        return self.whole.population()

    def persons(self, key: CaseKey) -> tuple[Person, ...]:
        """As the pool knows them; nobody where the pool lets a patient's cases fall apart."""
        return () if getattr(self.whole.settings, "unit", "patient") == "case" else self.whole.persons(self._inner[key])

    def patient_name(self, key: CaseKey) -> str:
        return self.whole.patient_name(self._inner[key])

    def is_guessed(self, key: CaseKey) -> bool:
        return self.whole.is_guessed(self._inner[key])

    def fingerprint(self) -> dict[str, Any]:
        """Of the whole pool: a case is the same whoever holds it."""
        return {"pool": self._fingerprint}
