"""One number for each site over several runs: clients are the same site where their names are the same, wherever they stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from raykd.results.reader import Run

MOST_NAMED = 6
"""Sites, or runs, that a sentence names one by one."""


@dataclass(frozen=True)
class Sites:
    """The sites of runs.

    Attributes:
        by_run: run_id to the number of the site that each of the run's clients is, by client_id. Numbers are the client ids of the
            first run; sites that it lacks follow.
        names: number to name.
    """

    by_run: Mapping[str, Mapping[int, int]]
    names: Mapping[int, str]

    @classmethod
    def of(cls, runs: Sequence[Run], clients: pd.DataFrame) -> Sites:
        """Of runs and their table of clients.

        A run without that table has the sites of the first run that has one, by their numbers: nothing else is known of it.
        """
        named = clients.assign(run_id=clients["run_id"].astype(str), name=_names(clients))
        own = {
            str(run_id): dict(zip(rows["client_id"].astype(int), rows["name"], strict=True))
            for run_id, rows in named.groupby("run_id", sort=False)
        }
        numbers: dict[str, int] = {}
        taken: set[int] = set()
        for run in runs:
            for client_id, name in own.get(run.run_id, {}).items():
                if name not in numbers:
                    numbers[name] = client_id if client_id not in taken else max(taken) + 1
                    taken.add(numbers[name])
        by_run = {run_id: {client_id: numbers[name] for client_id, name in sites.items()} for run_id, sites in own.items()}
        return cls(by_run, {number: name for name, number in numbers.items()})

    @cached_property
    def _moved(self) -> dict[str, dict[int, int]]:
        """The clients that do not stand where their site's number says, by run."""
        moved = {run_id: {a: b for a, b in own.items() if a != b} for run_id, own in self.by_run.items()}
        return {run_id: own for run_id, own in moved.items() if own}

    def numbered(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows of a table of these runs with the number of the site as `client_id`; negative ids, as the repository's, stay."""
        if not self._moved or "client_id" not in rows:
            return rows
        client_ids, run_ids = rows["client_id"].copy(), rows["run_id"].astype(str)
        for run_id, moved in self._moved.items():
            is_own = run_ids == run_id
            own = rows.loc[is_own, "client_id"]
            client_ids[is_own] = own.map(lambda client_id, moved=moved: moved.get(int(client_id), client_id)).astype(own.dtype)
        return rows.assign(client_id=client_ids)

    def differences(self, labels: Mapping[str, str]) -> Iterator[str]:
        """A sentence for each group of runs that lack sites which others have.

        Args:
            labels: what to call a run, by run_id; runs of one label are told together.
        """
        lacking: dict[tuple[str, ...], list[str]] = {}
        for run_id, own in self.by_run.items():
            missing = tuple(name for number, name in self.names.items() if number not in own.values())
            lacking.setdefault(missing, []).append(labels.get(run_id, run_id))
        for missing, runs in lacking.items():
            if missing:
                takes = "takes" if len(missing) == 1 else "take"
                where = named_shortly(tuple(dict.fromkeys(runs)))
                yield f"Sites differ between runs: {named_shortly(missing)} {takes} no part in {where}."
        if len(lacking) > 1:
            yield "Sites are matched by name: a difference between two methods is over sites that both have, a mean over its own."


def named_shortly(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return "; ".join([*names[:MOST_NAMED], *more])


def _names(clients: pd.DataFrame) -> pd.Series:
    """The name of each row's site, of which a run has one: a client without a name goes by its group and its place in it."""
    place = clients.groupby(["run_id", "group"], observed=True, sort=False).cumcount()
    fallback = clients["group"].astype(str) + " " + place.astype(str)
    names = clients["client_name"].astype(object).where(clients["client_name"].notna(), fallback).astype(str)
    twins = names.groupby([clients["run_id"].astype(str), names], sort=False).cumcount()
    return names.where(twins == 0, names + " (" + (twins + 1).astype(str) + ")")
