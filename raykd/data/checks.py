"""What reading every case of a scenario shows."""

from __future__ import annotations

from pathlib import Path

from raykd.data.federation import PROXY, REPOSITORY
from raykd.data.inspection import CaseFacts, duplicates, inspect_source, problems_of, reads_files
from raykd.data.pools import Pools, pool_source
from raykd.data.references import notes, unmatched
from raykd.data.sources.pool import POOL_OWNER, PoolSettings
from raykd.scenario.errors import DataError
from raykd.scenario.schema import Scenario


def check_cases(scenario: Scenario, root: Path) -> list[str]:
    """Reads every case of every source. What may be meant, or may be a mistake, is returned in sentences.

    Raises:
        DataError: with every case that is not sound, every source whose labels hold no class, and every image that is there twice,
            at one owner or at two.
    """
    whole = {POOL_OWNER + pool: pool_source(scenario, pool, root) for pool in scenario.pools}
    own = {client.name: client.group.source for client in scenario.members()} | {REPOSITORY: scenario.repository.source}
    own |= {PROXY: scenario.proxy.source} if scenario.proxy is not None else {}
    pools = Pools(scenario, root)
    for owner, settings in own.items():
        if not isinstance(settings, PoolSettings):
            whole[owner] = pools.open_source(settings, owner)
    facts, problems, remarks = list[CaseFacts](), list[str](), list[str]()
    for owner, source in whole.items():
        found, wrong = inspect_source(source) if reads_files(source) else ([], problems_of(source))
        if owner != PROXY and not wrong:
            wrong = unmatched(source, found)
            remarks += notes(source, found)
        facts, problems = facts + found, problems + wrong
    if problems := problems + duplicates(facts):
        raise DataError("\n".join(problems))
    return remarks
