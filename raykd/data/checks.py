"""What reading every case of a scenario shows."""

from __future__ import annotations

from pathlib import Path

from raykd.data.federation import PROXY, REPOSITORY
from raykd.data.inspection import Inspection, duplicates, inspect_source, problems_of, reads_files
from raykd.data.patient_notes import patient_notes
from raykd.data.pools import Pools, pool_source
from raykd.data.references import outline_notes, unmatched
from raykd.data.sources._base import Source
from raykd.data.sources.pool import POOL_OWNER, PoolSettings
from raykd.scenario.schema import Scenario


def inspect_cases(scenario: Scenario, root: Path) -> Inspection:
    """Reads every case of every source, each pool once: what is refused, at one owner or between two, and what is only told."""
    found = Inspection()
    for owner, source in _sources(scenario, root).items():
        one = _inspect(source, has_labels=owner != PROXY)
        found.facts.extend(one.facts)
        found.problems.extend(one.problems)
        found.notes.extend(one.notes)
    found.problems.extend(duplicates(found.facts))
    if not found.problems:
        found.notes.extend(patient_notes(scenario, root))
    return found


def _sources(scenario: Scenario, root: Path) -> dict[str, Source]:
    whole = {POOL_OWNER + pool: pool_source(scenario, pool, root) for pool in scenario.pools}
    own = {client.name: client.group.source for client in scenario.members()} | {REPOSITORY: scenario.repository.source}
    own |= {PROXY: scenario.proxy.source} if scenario.proxy is not None else {}
    pools = Pools(scenario, root)
    read = {owner: settings for owner, settings in own.items() if not isinstance(settings, PoolSettings)}
    return whole | {owner: pools.open_source(settings, owner) for owner, settings in read.items()}


def _inspect(source: Source, *, has_labels: bool) -> Inspection:
    if not reads_files(source):
        return Inspection(problems=problems_of(source))
    found = inspect_source(source, source.load, {name: (index,) for index, name in enumerate(source.classes, start=1)})
    if has_labels and not found.problems:
        if refused := unmatched(source, found.facts):
            return Inspection(found.facts, refused)
        found.notes.extend(outline_notes(source, found.facts))
    return found
