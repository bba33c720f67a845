"""Runs made comparable: which of them are repetitions of one cell, and their patients' scores side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from raykd.results.reader import Run, Tables, deployed_models
from raykd.results.settings import Conditions, Setting
from raykd.results.sites import Sites, named_shortly
from raykd.results.statistics import RANGES, Metric, Sample, case_scores, deployed_cases, evaluated_cases, patient_scores
from raykd.scenario.errors import RaykdError, did_you_mean


@dataclass(frozen=True)
class Comparison:
    """Several runs, grouped into cells: one method under one condition, run with one or more seeds.

    Attributes:
        runs: those that are compared.
    """

    runs: tuple[Run, ...]

    @classmethod
    def of(cls, tables: Tables) -> Comparison:
        """The finished runs, or all of them where none is finished.

        Raises:
            RaykdError: there is no run.
        """
        if not tables.runs:
            raise RaykdError("there is no run to ask; give the directory of a run or of a study")
        done = tuple(run for run in tables.runs if run.manifest["status"] == "done")
        return cls(done or tables.runs)

    @cached_property
    def _conditions(self) -> Conditions:
        return Conditions.of(self.runs)

    @cached_property
    def settings(self) -> pd.DataFrame:
        """One row a run, by run_id: cell, method, seed, condition, label, the settings that differ, num_labels, labels_per_site."""
        table = self._conditions.table()
        clients = self.table("clients")
        labels = clients.groupby("run_id", observed=True)["num_labelled"].agg(["sum", "mean"]).astype(float)
        table["num_labels"] = labels["sum"].reindex(table.index)
        table["labels_per_site"] = labels["mean"].reindex(table.index)
        table.insert(0, "cell", table.groupby(["method", "condition"], sort=False).ngroup())
        return table

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row a cell, by its number: method, condition, num_seeds, num_labels and labels_per_site (means over seeds), and
        `level`: the condition without what is said of labels, where their number alone tells cells of a level apart."""
        cells = self.settings.drop(columns="seed").groupby("cell").first()
        cells["num_seeds"] = self.settings.groupby("cell")["seed"].nunique()
        for column in ("num_labels", "labels_per_site"):
            cells[column] = self.settings.groupby("cell")[column].mean()
        return cells.assign(level=self._levels(cells))

    @cached_property
    def short_labels(self) -> dict[int, str]:
        """By cell, its method and the settings that the method reads: cells of one label are one thing, run under settings of
        others. What a method reads is in the manifests of its runs; where it is not, all settings are told."""
        words = self._conditions.used_words({run.run_id: run.manifest.get("unused") or () for run in self.runs})
        of_runs = self.settings.assign(words=pd.Series(words)).groupby("cell").first()
        return {
            int(number): ", ".join(part for part in (str(row["method"]), str(row["words"])) if part)  # type: ignore[call-overload]
            for number, row in of_runs.iterrows()
        }

    def _levels(self, cells: pd.DataFrame) -> pd.Series:
        """By cell, its level. What is said of labels stays in it as long as a method has two cells with as many labels in one."""
        first_runs = self.settings.reset_index().groupby("cell")["run_id"].first().astype(str)
        of_labels = [setting for setting in self._conditions.settings if setting.is_of_labels]
        for setting in [*sorted(of_labels, key=_is_number_of_labels), None]:
            level = first_runs.map(self._conditions.words(of_labels))
            if setting is None or not cells.assign(level=level).duplicated(["method", "level", "num_labels"]).any():
                return level
            of_labels.remove(setting)
        raise AssertionError("the last turn returns")

    @property
    def varied(self) -> list[str]:
        """The settings, other than the method, in which cells differ."""
        return [setting.name for setting in self._conditions.settings]

    @property
    def methods(self) -> tuple[str, ...]:
        """In the order of the runs."""
        return tuple(dict.fromkeys(self.cells["method"]))

    def known(self, method: str) -> str:
        """The same word. Raises `RaykdError` where no run is of this method."""
        if method not in self.methods:
            raise RaykdError(f"no run is of method '{method}'; {did_you_mean(method, self.methods)}")
        return method

    def table(self, name: str) -> pd.DataFrame:
        """A table of all runs, read once. `client_id` is the number of the site in `names`, the same in every run."""
        if name not in self._read:
            self._read[name] = self.sites.numbered(self._tables.table(name))
        return self._read[name]

    @cached_property
    def _tables(self) -> Tables:
        return Tables(self.runs)

    @cached_property
    def _read(self) -> dict[str, pd.DataFrame]:
        return {}

    @cached_property
    def sites(self) -> Sites:
        """The sites of all runs, matched by name."""
        return Sites.of(self.runs, self._tables.table("clients"))

    @property
    def names(self) -> Mapping[int, str]:
        """Site to name."""
        return self.sites.names

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what differs between runs beside their settings: their sites; and on runs of one training."""
        return (*self.sites.differences(self._conditions.labels), *self._repeated())

    def _repeated(self) -> Iterator[str]:
        """A sentence where runs have the same method, settings and seed, as a run and its reproduction have."""
        for _, rows in self.settings.groupby(["cell", "seed"], sort=False):
            if len(rows) > 1:
                names = named_shortly([str(run_id) for run_id in rows.index])
                yield f"The same settings and seed, and so one training, of which scores and costs are means: {names}."

    @cached_property
    def deployed(self) -> pd.DataFrame:
        """Test cases of the clients, last round, deployed model, with the run's cell."""
        return self.with_cells(deployed_cases(self.table("cases"), deployed_models(self.runs)))

    @cached_property
    def evaluated(self) -> pd.DataFrame:
        """Test cases of the clients in every evaluated round, with the run's cell."""
        return self.with_cells(evaluated_cases(self.table("cases"), deployed_models(self.runs)))

    def with_cells(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows of a table with `cell`, and with `method` as cells name it."""
        ids = rows["run_id"].astype(str)
        return rows.assign(cell=ids.map(self.settings["cell"]), method=ids.map(self.settings["method"]))

    def scores(self, metric: Metric = "dsc", rows: pd.DataFrame | None = None) -> pd.DataFrame:
        """From `case_scores`, with the cell's number in place of the method.

        Args:
            metric: of the score.
            rows: rows of `cases` with their cells; None: those of the deployed models.
        """
        rows = self.deployed if rows is None else rows
        return case_scores(rows.assign(method=rows["cell"]), metric)

    def sample(self, cells: Sequence[int], metric: Metric = "dsc") -> Sample:
        """The patients that all of these cells were judged on in the same seed, a column a cell."""
        scores = self.scores(metric)
        wide = patient_scores(scores[scores["method"].isin(cells)])
        return Sample(wide[[cell for cell in cells if cell in wide]], RANGES[metric])

    def curve(self, cell: int, metric: Metric = "dsc") -> Sample:
        """Patients' scores after each evaluated round of a cell, rounds in order; computed once."""
        if (cell, metric) not in self._curves:
            rows = self.evaluated[self.evaluated["cell"] == cell]
            scores = [
                self.scores(metric, rows[rows["round"] == number]).assign(round=number) for number in sorted(rows["round"].unique())
            ]
            known = [one for one in scores if len(one)]
            wide = patient_scores(pd.concat(known), by="round") if known else None
            sample = Sample.of_nobody() if wide is None else Sample(wide, RANGES[metric])
            self._curves[cell, metric] = sample
        return self._curves[cell, metric]

    @cached_property
    def _curves(self) -> dict[tuple[int, str], Sample]:
        return {}

    def levels(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """Cells that differ in method and labels alone, by what they have in common."""
        for level, cells in self.cells.groupby("level", sort=False):
            yield str(level), cells

    def conditions(self) -> Iterator[tuple[str, dict[str, int]]]:
        """For every condition, method to cell."""
        for condition, cells in self.cells.groupby("condition", sort=False):
            yield str(condition), {str(method): int(cell) for cell, method in cells["method"].items()}  # type: ignore[call-overload]


def _is_number_of_labels(setting: Setting) -> bool:
    return all(path[-1] == "num_shots" for path in setting.paths)
