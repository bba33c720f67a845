"""What every page draws from: the evidence and whatever several pages need of it, computed once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from raykd.report.blocks import Keys, Viewer
from raykd.report.costs import Cost, cost_of
from raykd.report.evidence import Evidence
from raykd.report.viewers import viewers_of
from raykd.report.wording import readable
from raykd.results.questions import Comparison, Prices
from raykd.results.statistics import Metric, Score, case_scores, score_methods

DRAWN: tuple[Metric, ...] = ("dsc", "nsd", "hd95_mm")


@dataclass(frozen=True)
class Options:
    """What a reader may ask of a report beside its runs.

    Attributes:
        max_sites: sites drawn one by one; beyond a dozen a reader compares nothing.
        max_picture_bytes: of all slices, as they are written into the page.
        prices: what things cost; None: the report says nothing of money.
    """

    max_sites: int = 12
    max_picture_bytes: int = 9_000_000
    prices: Prices | None = None


@dataclass(frozen=True)
class Material:
    """The runs of a report and what pages share.

    Attributes:
        evidence: the runs and their tables.
        options: what was asked for.
        shown: images that the page has already, by content; grows as pages are made.
    """

    evidence: Evidence
    options: Options = field(default_factory=Options)
    shown: dict[bytes, str] = field(default_factory=dict)

    @property
    def comparison(self) -> Comparison:
        """The same runs, grouped into cells for `raykd.results.questions`."""
        return self.evidence.comparison

    @cached_property
    def scores(self) -> dict[str, pd.DataFrame]:
        """Metric to the score of every case, by the label of its method."""
        return {metric: case_scores(self.evidence.deployed, metric) for metric in DRAWN}

    @cached_property
    def rankings(self) -> dict[str, tuple[Score, ...]]:
        """Metric to the labels' scores, best first."""
        return {metric: score_methods(self.scores[metric], metric=metric) for metric in DRAWN}

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Every method with its condition, best DSC first, those without a score last."""
        ranked = [score.method for score in self.rankings["dsc"]]
        return (*ranked, *(label for label in self.evidence.methods if label not in ranked))

    @cached_property
    def _settings(self) -> dict[str, tuple[str, str]]:
        """Label to method and condition."""
        settings = self.comparison.settings
        return {
            self.evidence.labels[str(run_id)]: (str(row["method"]), str(row["condition"])) for run_id, row in settings.iterrows()
        }

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Methods without their conditions, in the order of their best labels."""
        return tuple(dict.fromkeys(self._settings[label][0] for label in self.labels))

    @cached_property
    def conditions(self) -> tuple[str, ...]:
        """The conditions under which methods were run, in the order of the runs; one that is "" where none differs."""
        return tuple(dict.fromkeys(self.comparison.settings["condition"]))

    def method(self, label: str) -> str:
        """The method of a label, without its condition."""
        return self._settings[label][0] if label in self._settings else label

    def condition(self, label: str) -> str:
        """The condition of a label, "" where none differs."""
        return self._settings[label][1]

    @cached_property
    def _method_settings(self) -> dict[str, dict[str, Any]]:
        return {self.evidence.labels[run.run_id]: run.scenario.get("method") or {} for run in self.evidence.runs}

    def name_of(self, label: str) -> str:
        """What a scenario calls the method of a label, whatever a study calls it."""
        return str(self._method_settings[label].get("name", ""))

    @cached_property
    def _handed_out(self) -> dict[str, frozenset[str]]:
        """Label to the kinds of payload that sites received before the first round."""
        transfers = self.evidence.tables["transfers"]
        before = transfers[(transfers["round"] < 0) & (transfers["direction"] == "down") & (transfers["client_id"] >= 0)]
        return {str(label): frozenset(kinds.astype(str)) for label, kinds in before.groupby("method")["kind"]}

    def starts_warm(self, label: str) -> bool:
        """Whether students start from a model that was trained on the repository: one was trained there for them, they were handed
        one, or the method says so."""
        settings, teachers = self._method_settings[label], self.evidence.tables["teachers"]
        has_own = bool(((teachers["method"] == label) & (teachers["role"] == "student")).any())
        is_handed = "params" in self._handed_out.get(label, ())
        return has_own or is_handed or bool(settings.get("is_warm")) or settings.get("name") == "finetune"

    def has_teacher(self, label: str) -> bool:
        """Whether sites received a teacher."""
        return "teacher" in self._handed_out.get(label, ())

    def used(self, label: str) -> str:
        """What a method had beside its sites' cases, in words; "" where nothing."""
        parts = ["warm student"] * self.starts_warm(label) + ["teacher"] * self.has_teacher(label)
        return f"{' and '.join(parts)} from the repository" if parts else ""

    def num_params(self, label: str) -> float:
        """Of a client's network, the mean over clients; NaN where it is not recorded."""
        clients = self.evidence.tables["clients"]
        return float(clients.loc[clients["method"] == label, "num_params"].astype(float).mean())

    def colour(self, label: str) -> int:
        """The place in the palette of a method, with or without its condition."""
        return self.methods.index(self.method(label))

    @cached_property
    def costs(self) -> dict[str, Cost]:
        """Label to what it costs."""
        return {label: cost_of(self.evidence, label) for label in self.labels}

    @cached_property
    def sites(self) -> tuple[int, ...]:
        """The clients drawn one by one, in order; if they are too many, those where the best method does worst."""
        num, ranking = self.options.max_sites, self.rankings["dsc"]
        if not ranking:
            return tuple(sorted(self.evidence.client_names)[:num])
        best = ranking[0].per_client
        return tuple(sorted(sorted(best, key=lambda client_id: best[client_id].value)[:num]))

    @cached_property
    def viewers(self) -> list[Viewer]:
        """Slices to scroll through, of the condition of the best method."""
        condition = self._settings[self.labels[0]][1]
        labels = [label for label in self.labels if self._settings[label][1] == condition]
        return viewers_of(self.evidence, self.sites, labels, self.structures, self.shown, self.options.max_picture_bytes)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of payload that travelled."""
        return tuple(sorted({kind for cost in self.costs.values() for way in (cost.down, cost.up) for kind in way}))

    @cached_property
    def structures(self) -> tuple[str, ...]:
        """The classes' names as the report prints them, in the scenario's order."""
        cases = self.evidence.deployed.drop_duplicates("class_name").sort_values("class_index")
        return tuple(readable(str(name)) for name in cases["class_name"])

    def keys(self, label: str = "", client_id: int | None = None, structure: str = "") -> Keys:
        """What a row is about, for readers who filter; the repository is no site."""
        method, condition = self._settings.get(label, (label, ""))
        site = self.evidence.name(client_id) if client_id is not None and client_id >= 0 else ""
        keys = {"method": method, "condition": condition, "site": site, "structure": readable(structure)}
        return {name: words for name, words in keys.items() if words}
