"""What a check tells of the patients of data that are sound: who may be one person, and who takes no part."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from raykd.data.division import word
from raykd.data.identity import listed, unnamed_patients
from raykd.data.pools import Pools, pool_drawers, pool_source
from raykd.data.sources._base import Source
from raykd.data.sources.pool import PoolSettings
from raykd.scenario.schema import Scenario


def patient_notes(scenario: Scenario, root: Path) -> list[str]:
    """A sentence for everything that an owner should know and that stops no run. The data have passed `list_cases`."""
    own = {client.name: client.group.source for client in scenario.members()} | {"repository": scenario.repository.source}
    pools = Pools(scenario, root)
    whole = {pool: pool_source(scenario, pool, root) for pool in scenario.pools}
    drawn = [(name, block) for name, block in own.items() if not isinstance(block, PoolSettings)]
    sources = [*whole.values(), *(pools.open_source(block, name) for name, block in drawn)]
    found = [sentence for source in sources for sentence in (unnamed_patients(source), spelt_alike(source))]
    found += [sentence for pool, source in whole.items() for sentence in pool_notes(scenario, pool, source)]
    return [*dict.fromkeys(filter(None, found)), *_untested(scenario)]


def spelt_alike(source: Source) -> str:
    """A sentence where ids differ only in how they are written, as `P-07` and `p7`; else ""."""
    names: dict[str, dict[str, None]] = defaultdict(dict)
    for key in source.keys():  # noqa: SIM118 (not a mapping)
        for person in source.persons(key):
            names[person.patient_id][source.patient_name(key)] = None
    alike = [list(written) for written in names.values() if len(written) > 1]
    if not alike:
        return ""
    pairs = "; ".join(listed(written) for written in alike[:3])
    return (
        f"{source.owner}: {len(alike)} ids are written in two ways, as {pairs}, and count as different patients; write each one way"
    )


def pool_notes(scenario: Scenario, pool: str, source: Source) -> Iterator[str]:
    """Sentences on the patients of a pool that the column of its split leaves to nobody, or to a stratum without a name."""
    split = scenario.pools[pool].split
    if split.column is None:
        return
    values = dict[str, str]()
    for key in source.keys():  # noqa: SIM118 (not a mapping)
        values.setdefault(key.patient_id, word(source.traits(key).get(split.column, "")))
    counts = Counter(values.values())
    where = f"in column {split.column!r}"
    if split.by == "dirichlet" and counts[""]:
        yield f"pool {pool!r}: {_patients(counts[''])} no value {where}, and form a stratum of their own; fill it in"
    if split.by != "column":
        return
    owned = {word(drawer.value) for drawer in pool_drawers(scenario, pool)}
    lost = {value: num for value, num in sorted(counts.items()) if value not in owned}
    if lost:
        named = listed([f"{value!r} ({num})" if value else f"no value ({num})" for value, num in lost.items()])
        what = f"pool {pool!r}: {_patients(sum(lost.values()))} a value {where} that no client owns, and take no part"
        yield f"{what}: {named}; add a client with that value, or correct the column"


def _patients(num: int) -> str:
    return f"{num} patient{'s have' if num > 1 else ' has'}"


def _untested(scenario: Scenario) -> Sequence[str]:
    names = [client.name for client in scenario.members() if not client.group.num_test and not client.held_out]
    if not names:
        return ()
    return (f"{listed(names)}: num_test is 0, so nothing is known of how models do there",)
