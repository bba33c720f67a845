"""Patients' scores, training by training, and the means of them that statements are about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from raykd.results.statistics.clusters import Clusters, Ints
from raykd.results.statistics.intervals import NOTHING, NUM_RESAMPLES, Array, Estimate
from raykd.results.statistics.scores import PATIENT

FEW_CLIENTS = 6
"""Up to so many clients are fixed strata: the statement is about these sites. Above it they are a draw from sites like them."""
SITE = PATIENT[0]
ANYTHING = (-np.inf, np.inf)


@dataclass(frozen=True)
class Sample:
    """Scores of patients under one or several conditions, in one or several trainings.

    Attributes:
        wide: from `patient_scores`: seed, client_id and patient_id in the index, a column a condition, no NaN.
        limits: the least and the most that a score can be.
    """

    wide: pd.DataFrame
    limits: tuple[float, float] = ANYTHING

    @classmethod
    def of_nobody(cls) -> Sample:
        """Without a patient and a condition."""
        return cls(pd.DataFrame(index=pd.MultiIndex.from_arrays([[], [], []], names=["seed", *PATIENT])))

    @property
    def conditions(self) -> tuple[object, ...]:
        """What the columns are."""
        return tuple(self.wide.columns)

    @cached_property
    def clients(self) -> tuple[int, ...]:
        """In order."""
        return tuple(int(client) for client in sorted(self._level(SITE).unique()))

    @property
    def num_seeds(self) -> int:
        """Trainings."""
        return int(self._level("seed").nunique())

    @property
    def num_patients(self) -> int:
        """Over all clients; one who was tested in several trainings counts once."""
        return len(_patients(self.wide).unique())

    @property
    def has_fixed_clients(self) -> bool:
        """Whether clients are strata that every training has."""
        return len(self.clients) <= FEW_CLIENTS

    @cached_property
    def clusters(self) -> Clusters:
        """The mean over trainings of the mean over clients of the mean over patients: with few clients of each one's patients, else
        of clients that are drawn."""
        if self.has_fixed_clients:
            return self._of(self.wide)
        means = self.wide.groupby(level=["seed", SITE]).mean()
        clients = _codes(means.index.get_level_values(SITE))
        seeds = _codes(means.index.get_level_values("seed"))
        return Clusters.of(means.to_numpy(np.float64), seeds, np.zeros_like(clients), clients)

    def of_client(self, client: int) -> Sample:
        """The same of one client."""
        return Sample(self.wide[self._level(SITE) == client], self.limits)

    def contrast(self, weights: Mapping[int, float]) -> Clusters:
        """A weighted sum of the means of some clients, over the trainings that have them all."""
        own = self.wide[self._level(SITE).isin(list(weights))]
        seeds = own.index.get_level_values("seed")
        num_clients = own.reset_index(SITE)[SITE].groupby(level="seed").nunique()
        return self._of(own[seeds.isin(num_clients[num_clients == len(weights)].index)], weights)

    def _of(self, wide: pd.DataFrame, weights: Mapping[int, float] | None = None) -> Clusters:
        clients = np.asarray(wide.index.get_level_values(SITE), np.intp)
        seeds, units = _codes(wide.index.get_level_values("seed")), _codes(_patients(wide))
        return Clusters.of(wide.to_numpy(np.float64), seeds, clients, units, weights)

    def _level(self, name: str) -> pd.Index:
        return self.wide.index.get_level_values(name)

    @property
    def macro_V(self) -> Array:
        """The macro mean under every condition."""
        return self.clusters.value_V

    def macro(self) -> list[Estimate]:
        """The macro mean with its interval under every condition."""
        if self.wide.empty:
            return [NOTHING] * len(self.conditions)
        return [estimate.within(*self.limits) for estimate in self.clusters.estimates()]

    def macro_draws_BV(self, rng: np.random.Generator, num: int = NUM_RESAMPLES) -> Array:
        """Macro means as they might have come out, of all conditions together."""
        return self.clusters.draws_BV(rng, num)


def _patients(wide: pd.DataFrame) -> pd.Index:
    return pd.MultiIndex.from_arrays([wide.index.get_level_values(name) for name in PATIENT])


def _codes(index: pd.Index) -> Ints:
    return np.asarray(pd.factorize(index)[0], np.intp)
