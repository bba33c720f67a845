"""What a shift promises: parameters are drawn by our generator, recorded, and applied deterministically."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from raykd.data.case import Case
from raykd.scenario.fields import Strict


class Shift(ABC):
    """One cause of difference between clients, made of a site signature and a scan jitter.

    Args:
        settings: the validated block of the scenario.
        seed: of the scenario.
        site: the client's name. What is drawn at (seed, site) is fixed for the run; what is drawn at (seed, site, case_id)
            varies by scan.
    """

    Settings: ClassVar[type[Strict]]

    def __init__(self, settings: Any, seed: int, site: str):
        self.settings = settings
        self.seed = seed
        self.site = site

    @abstractmethod
    def apply(self, case: Case) -> Case:
        """The case as the site would have it, with what was drawn in its `record`."""

    def fingerprint(self) -> dict[str, Any]:
        """All that `apply` depends on besides the case: the key of cached cases."""
        return {"site": self.site, "seed": self.seed, **self.settings.model_dump(mode="json")}
