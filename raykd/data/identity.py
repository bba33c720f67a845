"""Who is held twice: persons whom two owners have, and names that hide several cases of one person."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from raykd.data.sources._base import CaseKey, Source

MAX_NAMED = 5
"""Ids named in one sentence."""
_TIME_WORD = (
    "visit|session|ses|scan|exam|study|timepoint|time|tp|followup|follow_up|fu|week|month|year|day|run|repeat|v|t|w|m|y|d|s|r"
)
_PART_OF_A_PERSON = re.compile(
    rf"""^(?P<stem>.*?[^\W_].*?)(?:
        [\s_.-]+(?:{_TIME_WORD})[\s_-]?\d+ | [\s_.-]+(?:baseline|bl|pre|post|left|right|l|r|lt|rt)
        | [\s_.-]*(?:visit|session|timepoint|followup)[\s_-]?\d+ | [\s_.-]+(?:19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d
        | (?<=\d)[\s_.-]+\d{{1,2}} | (?<=\d)[\s_.-]?[a-d]
    )$""",
    re.VERBOSE | re.IGNORECASE,
)
"""A name that ends in a visit, a side, a date or a number below 100 after another number."""


def shared_cases(sources: Mapping[str, Source]) -> list[str]:
    """A sentence for each two owners that read one file or hold one patient, found from names alone.

    Args:
        sources: by owner.
    """
    files, persons = dict[object, str](), defaultdict[tuple[str, str], list[tuple[str, str]]](list)
    of_files, of_ids = dict[tuple[str, str], dict[str, None]](), dict[tuple[str, str], dict[str, None]]()
    for owner, source in sources.items():
        keys = source.keys()
        paths = {key: source.files(key) for key in keys}
        num_cases = Counter(path for own in paths.values() for path in own)
        for key in keys:
            for trace in _traces(source, key, paths[key], num_cases):
                holder = files.setdefault(trace, owner)
                if holder != owner:
                    of_files.setdefault((holder, owner), {})[key.case_id] = None
            for person in source.persons(key):
                known = persons[person.population, person.patient_id]
                for holder, issuer in known:
                    if holder != owner and (issuer == person.issuer or not (issuer and person.issuer)):
                        of_ids.setdefault((holder, owner), {})[source.patient_name(key)] = None
                if (owner, person.issuer) not in known:
                    known.append((owner, person.issuer))
    told = [_shared_files(*owners, list(case_ids)) for owners, case_ids in of_files.items()]
    return told + [_shared_ids(*owners, list(ids)) for owners, ids in of_ids.items() if owners not in of_files]


def _traces(source: Source, key: CaseKey, paths: Iterable[Path], num_cases: Mapping[Path, int]) -> list[object]:
    """What only one owner may have of a case: its files, and its patient where both read one place."""
    # An archive holds many cases: it is one of them that two owners must not share.
    traces: list[object] = [path.resolve() if num_cases[path] == 1 else (path.resolve(), key.case_id) for path in paths]
    population = source.population()
    return traces if population is None else [*traces, (population, key.patient_id)]


def listed(ids: Sequence[str]) -> str:
    """The first of some ids, and how many there are beside them."""
    return ", ".join(ids[:MAX_NAMED]) + (f" and {len(ids) - MAX_NAMED} more" if len(ids) > MAX_NAMED else "")


def _shared_files(one: str, other: str, case_ids: list[str]) -> str:
    return (
        f"{one} and {other}: owners must have no patient in common, got {listed(case_ids)} with both; "
        "give them files of their own, or describe the source once under pools and let each client draw on it with "
        "source: {name: pool, pool: NAME}"
    )


def _shared_ids(one: str, other: str, ids: list[str]) -> str:
    return (
        f"{one} and {other}: owners must have no patient in common, got the ids {listed(ids)} with both; where each numbers "
        f"its own patients, write `population: own` in the source of {other}; where they are the same people, keep them at one "
        "of the two, or share one source as a pool"
    )


def unnamed_patients(source: Source) -> str:
    """A sentence where cases whose patient nobody gave have names that begin alike, as `p01_visit1` and `p01_visit2`; else ""."""
    stems: dict[str, list[str]] = defaultdict(list)
    for key in source.keys():  # noqa: SIM118 (not a mapping)
        if key.patient_id == key.case_id and source.is_guessed(key) and (match := _PART_OF_A_PERSON.match(key.case_id)):
            stems[match["stem"]].append(key.case_id)
    several = {stem: names for stem, names in stems.items() if len(names) > 1}
    if not several or (len(stems) == 1 and not re.search(r"\d", next(iter(stems)))):
        return ""
    names = next(iter(several.values()))
    return (
        f"{source.owner}: names of cases that begin alike, as {listed(names)}, count as different patients ({len(several)} such "
        "groups); if they are of one patient, say so (patient_pattern, or a column patient), or a patient is trained and tested on"
    )
