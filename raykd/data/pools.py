"""The sources that owners of cases draw on: one of their own, or their share of a pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raykd.data.cache import content_key
from raykd.data.division import Drawer, divide
from raykd.data.sources._base import CaseKey, Source
from raykd.data.sources.pool import POOL_OWNER, PoolSettings, PoolSource
from raykd.scenario.errors import Problem, ScenarioError, did_you_mean
from raykd.scenario.registry import SOURCES
from raykd.scenario.schema import Scenario
from raykd.scenario.sites import Client


@dataclass(frozen=True)
class Pool:
    """A pool that was listed and divided.

    Attributes:
        source: of all its cases.
        fingerprint: a hash of what these depend on.
        shares: by client, its cases.
    """

    source: Source
    fingerprint: str
    shares: Mapping[str, Sequence[CaseKey]]


class Pools:
    """The sources of a scenario's owners. A pool is listed and divided once, when the first of its clients is asked for, so that a
    thousand clients do not list it a thousand times: files must stay as they are for as long as this object is used.

    Args:
        scenario: whose they are.
        root: folder of its file.
    """

    def __init__(self, scenario: Scenario, root: Path):
        self._scenario, self._root = scenario, root
        self._clients = {member.name for member in scenario.members()}
        self._known: dict[str, Pool] = {}

    def open_source(self, settings: Any, owner: str) -> Source:
        """The source of an owner: one of its own, or its share of a pool.

        Raises:
            ScenarioError: the pools do not fit the clients that name them.
            DataError: the source is unusable, or the pool cannot be split as asked for.
        """
        scenario, root = self._scenario, self._root
        if not isinstance(settings, PoolSettings):
            return _build(scenario, settings, owner, root)
        if owner not in self._clients:
            return PoolSource(settings, scenario.classes, scenario.seed, owner, root)
        if settings.pool not in self._known:
            self._known[settings.pool] = self._divided(settings.pool)
        pool = self._known[settings.pool]
        return PoolSource(settings, scenario.classes, scenario.seed, owner, root, pool.source, pool.shares[owner], pool.fingerprint)

    def _divided(self, name: str) -> Pool:
        check_pools(self._scenario)
        whole = pool_source(self._scenario, name, self._root)
        keys, split = whole.keys(), self._scenario.pools[name].split
        traits = {key: whole.traits(key) for key in keys} if split.column is not None else {}
        shares = divide(keys, traits, split, pool_drawers(self._scenario, name), self._scenario.seed, name)
        return Pool(whole, content_key(**whole.fingerprint()), shares)


def pool_source(scenario: Scenario, pool: str, root: Path) -> Source:
    """The source of a whole pool, whose cases are the same whoever draws on it."""
    return _build(scenario, scenario.pools[pool].source, f"{POOL_OWNER}{pool}", root)


def _build(scenario: Scenario, settings: Any, owner: str, root: Path) -> Source:
    source: Source = SOURCES.get(settings.name)(settings, scenario.classes, scenario.seed, owner, root)
    return source


def pool_drawers(scenario: Scenario, pool: str) -> list[Drawer]:
    """The clients that draw on a pool, by name."""
    members = [m for m in scenario.members() if isinstance(m.group.source, PoolSettings) and m.group.source.pool == pool]
    return [_drawer(member) for member in sorted(members, key=lambda member: member.name)]


def _drawer(client: Client) -> Drawer:
    group, value = client.group, client.group.source.value
    num_needed = group.num_test + group.num_validation + group.labels.num_shots
    return Drawer(client.name, group.group if value is None else value, num_needed)


def check_pools(scenario: Scenario) -> None:
    """Raises `ScenarioError` with every pool that is unknown, unused or a pool of a pool, and every value that has no column."""
    problems: dict[str, Problem] = {}
    used = set()
    for group in scenario.clients:
        if not isinstance(group.source, PoolSettings):
            continue
        at, pool = f"clients[{group.group}].source", group.source.pool
        used.add(pool)
        if pool not in scenario.pools:
            hint = did_you_mean(pool, scenario.pools) or "describe it under pools"
            problems[at] = Problem(f"{at}.pool", "must be one of the scenario's pools", repr(pool), hint=hint)
        elif group.source.value is not None and scenario.pools[pool].split.by != "column":
            rule = f"only pools split by column give clients a value; pool {pool!r} is split by {scenario.pools[pool].split.by}"
            problems[at] = Problem(f"{at}.value", rule, repr(group.source.value), hint="leave it out, or set split.by: column")
    for name, pool_block in scenario.pools.items():
        if name not in used:
            hint = f"write source: {{name: pool, pool: {name}}} in a client group, or delete it"
            problems[f"pools.{name}"] = Problem(f"pools.{name}", "a client must draw on every pool, none does", hint=hint)
        if isinstance(pool_block.source, PoolSettings):
            problems[f"pools.{name}.source"] = Problem(
                f"pools.{name}.source", "a pool must have a source of its own, not another pool"
            )
    if problems:
        raise ScenarioError(problems.values())
