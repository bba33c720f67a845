"""What sets runs apart: every setting in which their scenarios differ, by full key path, under the shortest name of its own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from raykd.results.reader import Run
from raykd.results.scenario_keys import Path, RunSettings, settings_of

RESERVED = frozenset({
    "cell", "method", "seed", "condition", "level", "label", "num_labels", "labels_per_site", "num_seeds", "baseline", "class_name",
    "difference", "verdict", "outcome", "pair", "num_patients",
})  # fmt: skip
"""Names of columns beside which settings stand in tables: a setting of such a name is told with the word before it."""
LABEL_PATHS = frozenset({("labels", "num_shots"), ("labels", "slices")})
"""Key paths of a group of sites that say how much is outlined: no condition where labels are the question."""


@dataclass(frozen=True)
class Setting:
    """Key paths at which runs differ, and at which every run has one and the same value.

    Attributes:
        name: the shortest that no other setting has.
        paths: the key paths; several where groups of sites share the value in every run.
        values: by run, the value in JSON; a run without the setting is left out.
    """

    name: str
    paths: tuple[Path, ...]
    values: Mapping[str, str]

    @property
    def is_of_labels(self) -> bool:
        """Whether it says how much of the cases of sites is outlined."""
        return all(path[0] == "clients" and path[2:] in LABEL_PATHS for path in self.paths)

    @property
    def is_presence(self) -> bool:
        """Whether it says that a group of sites takes part at all."""
        return all(_is_presence(path) for path in self.paths)

    def is_used(self, unused: Collection[str]) -> bool:
        """Whether a run reads it that leaves blocks of its scenario unused."""
        return not all(_remainder(path)[0] in unused for path in self.paths)

    def words(self, run_id: str) -> str:
        """The setting in a run; "" where it has none."""
        if self.is_presence:
            return "" if run_id in self.values else f"without {self.name}"
        return f"{self.name} {value_words(self.values[run_id])}" if run_id in self.values else ""


def value_words(value: str) -> str:
    """A value in JSON as it is printed: text without its quotes."""
    return str(json.loads(value)) if value.startswith('"') else value


@dataclass(frozen=True)
class Conditions:
    """Runs grouped by method and condition.

    Attributes:
        methods: by run, the method as tables call it, with its own settings where runs of one name differ.
        settings: the other settings in which runs differ.
        seeds: by run.
    """

    methods: Mapping[str, str]
    settings: tuple[Setting, ...]
    seeds: Mapping[str, int]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Conditions:
        """Of runs whose scenarios are compared."""
        said = settings_of(runs)
        names = {run.run_id: _method_of(run) for run in runs}
        others = {run_id: _part(own, lambda path: path[0] != "method") for run_id, own in said.items()}
        methods = dict[str, str]()
        for name in dict.fromkeys(names.values()):
            peers = {run_id: _part(said[run_id], lambda path: path[0] == "method") for run_id in names if names[run_id] == name}
            told = _worded(_settings(peers), list(peers))
            methods |= {run_id: ", ".join(part for part in (name, words) if part) for run_id, words in told.items()}
        seeds = {run.run_id: int(run.scenario.get("seed", 0)) for run in runs}
        return cls({run_id: methods[run_id] for run_id in names}, _settings(others), seeds)

    def words(self, but: Iterable[Setting] = ()) -> dict[str, str]:
        """By run, the condition in words without some of the settings; equal for equal values and for these alone."""
        left_out = set(map(id, but))
        return _worded([one for one in self.settings if id(one) not in left_out], list(self.methods))

    def used_words(self, unused: Mapping[str, Collection[str]]) -> dict[str, str]:
        """By run, the condition in words without the settings that change nothing there.

        Args:
            unused: by run, blocks of its scenario.
        """
        known = {}
        for blocks in {frozenset(unused.get(run_id, ())) for run_id in self.methods}:
            known[blocks] = _worded([one for one in self.settings if one.is_used(blocks)], list(self.methods))
        return {run_id: known[frozenset(unused.get(run_id, ()))][run_id] for run_id in self.methods}

    @cached_property
    def labels(self) -> dict[str, str]:
        """By run, method and condition in words, different for every pair of the two."""
        words = self.words()
        pairs = {run_id: (self.methods[run_id], words[run_id]) for run_id in self.methods}
        return _unique({run_id: (", ".join(part for part in pair if part), pair) for run_id, pair in pairs.items()})

    def table(self) -> pd.DataFrame:
        """One row a run, by run_id: `method`, `seed`, `condition` ("" where none differs), `label`, each setting by its name."""
        words = self.words()
        rows = {
            run_id: {
                "method": method,
                "seed": self.seeds[run_id],
                "condition": words[run_id],
                "label": self.labels[run_id],
                **{one.name: value_words(one.values[run_id]) for one in self.settings if run_id in one.values},
            }
            for run_id, method in self.methods.items()
        }
        columns = ["method", "seed", "condition", "label", *(one.name for one in self.settings)]
        return pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), name="run_id"), columns=columns)


def _method_of(run: Run) -> str:
    clients = run.clients
    return str(clients["method"].iloc[0]) if len(clients) else str((run.scenario.get("method") or {}).get("name", "unnamed method"))


def _part(settings: RunSettings, belongs: Callable[[Path], bool]) -> dict[Path, str]:
    return {path: value for path, value in settings.flat.items() if belongs(path)}


def _settings(flat: Mapping[str, Mapping[Path, str]]) -> tuple[Setting, ...]:
    """The settings in which runs differ, of one where others lack it among them."""
    paths = dict.fromkeys(path for own in flat.values() for path in own)
    columns = {path: {run_id: own[path] for run_id, own in flat.items() if path in own} for path in paths}
    varying = {path: values for path, values in columns.items() if _differs(path, values, flat)}
    alike: dict[tuple[Path, str], list[Path]] = {}
    for path, values in varying.items():
        alike.setdefault((_remainder(path), json.dumps(values)), []).append(path)
    remainders = Counter(_remainder(own[0]) for own in alike.values())
    suffixes = Counter(rest[-n:] for rest in remainders for n in range(1, len(rest) + 1))
    return tuple(Setting(_name(own, remainders, suffixes), tuple(own), varying[own[0]]) for own in alike.values())


def _differs(path: Path, values: Mapping[str, str], flat: Mapping[str, Mapping[Path, str]]) -> bool:
    """Whether runs differ there: those that have the group of sites which the path is of."""
    home = path[:2] if path[0] == "clients" and not _is_presence(path) else ()
    num_runs = sum(home in own for own in flat.values()) if home else len(flat)
    return len(set(values.values())) > 1 or len(values) < num_runs


def _is_presence(path: Path) -> bool:
    return path[0] == "clients" and len(path) == 2


def _remainder(path: Path) -> Path:
    """A key path within its group of sites, or within the method."""
    return path[2:] if path[0] == "clients" and len(path) > 2 else path[1:] if path[0] == "method" else path


def _name(own: Sequence[Path], remainders: Mapping[Path, int], suffixes: Mapping[Path, int]) -> str:
    """The last words of a key path that no other has, after the groups of sites where several have a value of their own.

    Args:
        own: the key paths of a setting.
        remainders: of all settings, with the number of settings that have each.
        suffixes: of these remainders, with the number of remainders that end so.
    """
    if _is_presence(own[0]):
        return " and ".join(path[1] for path in own)
    rest = _remainder(own[0])
    ends = (rest[-n:] for n in range(1, len(rest) + 1))
    suffix = ".".join(next((end for end in ends if suffixes[end] == 1 and ".".join(end) not in RESERVED), rest))
    is_alone = remainders[rest] == 1 or any(path[0] != "clients" for path in own)
    return suffix if is_alone else f"{' and '.join(path[1] for path in own)} {suffix}"


def _worded(settings: Sequence[Setting], run_ids: Sequence[str]) -> dict[str, str]:
    """By run, its settings in words, different where any value is."""
    told = {run_id: ", ".join(part for one in settings if (part := one.words(run_id))) for run_id in run_ids}
    return _unique({run_id: (words, tuple(one.values.get(run_id) for one in settings)) for run_id, words in told.items()})


def _unique(told: Mapping[str, tuple[str, tuple[str | None, ...]]]) -> dict[str, str]:
    """By run, its words; those that mean different things get numbers from the second on."""
    meanings: dict[str, list[tuple[str | None, ...]]] = {}
    found = {}
    for run_id, (words, meaning) in told.items():
        known = meanings.setdefault(words, [])
        if meaning not in known:
            known.append(meaning)
        number = known.index(meaning) + 1
        found[run_id] = words if number == 1 else f"{words} ({number})".strip()
    return found
