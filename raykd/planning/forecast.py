"""The plan of a run: a case of each site is read, all rounds are rehearsed, a few steps of each kind of client are timed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from raykd.data.cache import is_cached
from raykd.data.case import Case
from raykd.data.federation import Site, holdings
from raykd.data.heterogeneity.label_budget import Split
from raykd.data.inspection import reads_files
from raykd.data.sources._base import CaseKey
from raykd.federation.client import SERVER
from raykd.federation.description import describe_network, source_settings
from raykd.federation.protocols import Row
from raykd.federation.teacher import model_key
from raykd.planning.accounts import Accounts, Priced, link_columns, slot_loads, traffic_rows
from raykd.planning.machines import Nodes, fitting_slots, memory_shortfall, node_row, peak_bytes, site_shortfall, this_node
from raykd.planning.pricing import Prices, RepositoryPrices, price, price_preparing, price_repository
from raykd.planning.rehearsal import Rehearsal, rehearse
from raykd.scenario.schema import Scenario
from raykd.scenario.sites import Client as Member


class Planned(Protocol):
    """A run that could be done."""

    @property
    def scenario(self) -> Scenario: ...
    @property
    def root(self) -> Path: ...
    @property
    def method_label(self) -> str: ...


@dataclass(frozen=True)
class Forecast:
    """What a run would come to.

    Attributes:
        scenario, method, seed, rounds: which run.
        clients: a row each: what it is and holds, the memory of its cases, and what crosses its link.
        repository: the same of the repository, with the networks that are trained on it.
        traffic: a row for each direction and kind, before the first round and in the rounds: exact.
        num_slots: clients at once.
        worker_bytes: memory of one worker process, estimated.
        nodes: the machines that were asked.
        seconds: estimated wall time by stage: prepare, repository, rounds, evaluation.
        simulated_s: how long the sites themselves would take over the rounds, with their links and machines: as a run will write it
            where the clock knows what a step takes, else estimated.
        step_s: what a step takes by the scenario's clock; None: it says nothing.
        ends: what ends the run before its last round, in a sentence; "" where nothing does, or a target that no plan can foresee.
        num_cases, num_models: to be prepared and trained, because they are neither in the cache nor left by an earlier cell.
        shortfalls: sentences; empty where the run fits.
    """

    scenario: str
    method: str
    seed: int
    rounds: int
    clients: tuple[Row, ...]
    repository: Row
    traffic: tuple[Row, ...]
    num_slots: int
    worker_bytes: int
    nodes: tuple[Row, ...]
    seconds: Mapping[str, float]
    simulated_s: float
    step_s: float | None
    ends: str
    num_cases: int
    num_models: int
    shortfalls: tuple[str, ...]

    @property
    def total_s(self) -> float:
        """Estimated wall time."""
        return sum(self.seconds.values())

    def bytes_crossing(self, direction: str) -> int:
        """Bytes down or up of the whole run."""
        return sum(row["bytes_total"] for row in self.traffic if row["direction"] == direction)


@dataclass
class Book:
    """What the cells of a study share: measured prices, cases read, and what an earlier cell leaves in the cache."""

    prices: dict[Hashable, Prices] = field(default_factory=dict)
    repository: dict[Hashable, RepositoryPrices] = field(default_factory=dict)
    cases: dict[Hashable, tuple[Case, float]] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)

    def is_new(self, kind: str, key: str) -> bool:
        """Whether something is to be computed; from now on it counts as done."""
        is_new = key not in self.left and not is_cached(kind, key)
        self.left.add(key)
        return is_new


def cell_costs(plans: Sequence[Planned], nodes: Nodes | None = None) -> list[Forecast]:
    """The forecast of each run of a study, in their order; a case or teacher that several need counts for the first alone."""
    book = Book()
    return [forecast(plan.scenario, plan.root, nodes, book, plan.method_label) for plan in plans]


def forecast(
    scenario: Scenario, root: Path, nodes: Nodes | None = None, book: Book | None = None, method_label: str = ""
) -> Forecast:
    """Plans one run.

    Args:
        scenario, root: checked.
        nodes: as `ray.nodes()` gives them; None: this machine.
        book: shared with other cells.
        method_label: what tables call the method; its name if empty.

    Raises:
        DataError: cases cannot be listed or read.
        RunFailed: the run would fail, because no client has anything to learn from.
    """
    return _Planner(scenario, root, nodes or [this_node()], book or Book()).forecast(method_label or scenario.method.name)


class _Planner:
    """One run's plan in the making; the book is read and written."""

    def __init__(self, scenario: Scenario, root: Path, nodes: Nodes, book: Book):
        self.scenario, self.root, self.nodes, self.book = scenario, root, nodes, book
        self.members = scenario.members()
        self.held, self.repository = holdings(scenario, root)
        self.num_slots, self.shortfalls = fitting_slots(nodes, scenario.resources, len(self.members))
        self.num_new = [
            sum([book.is_new("cases", site.cache_key(key)) for key in _keys(split)])
            for site, split in [*self.held, self.repository]
        ]
        blocks = [_block(scenario, member) for member in self.members]
        self.cases = [self._case(block, *holding) for block, holding in zip(blocks, self.held, strict=True)]
        block = (scenario.repository.source, None, scenario.repository.spacing_mm)
        self.repository_case = self._case(block, *self.repository)

    def forecast(self, method_label: str) -> Forecast:
        scenario = self.scenario
        kinds = [_kind(member, split) for member, (_, split) in zip(self.members, self.held, strict=True)]
        rehearsal = rehearse(scenario, self.root, [s for _, s in self.held], self.repository[1], kinds, self.num_slots)
        accounts = Accounts([self._priced(index, kind, rehearsal) for index, kind in enumerate(kinds)], self.num_slots)
        if any(kind == "server" for kind, _ in rehearsal.firsts):
            accounts.server = self._prices("server", SERVER, self.repository_case[0], self.repository[1], rehearsal)
        device = "cuda" if scenario.resources.gpus_per_client > 0 else "cpu"
        models = [net for net in rehearsal.networks if self.book.is_new("teachers", model_key(scenario, net, self.root, device))]
        repository_s, repository_bytes = self._repository_costs(rehearsal, models)
        worker_bytes = peak_bytes() + max(repository_bytes, accounts.bytes_held())
        return Forecast(
            scenario=scenario.name,
            method=method_label,
            seed=scenario.seed,
            rounds=len(rehearsal.rounds),
            clients=tuple(self._client_row(client, rehearsal) for client in accounts.clients),
            repository=self._repository_row(rehearsal),
            traffic=tuple(traffic_rows(rehearsal.transfers)),
            num_slots=self.num_slots,
            worker_bytes=int(worker_bytes),
            nodes=tuple(node_row(node) for node in self.nodes),
            seconds={
                "prepare": self._prepare_s(),
                "repository": repository_s,
                "rounds": accounts.wall_s(rehearsal.work, is_evaluation=False) + sum(row["server_s"] for row in rehearsal.rounds),
                "evaluation": accounts.wall_s(rehearsal.work, is_evaluation=True),
            },
            simulated_s=self._simulated_s(accounts, rehearsal),
            step_s=scenario.clock.step_s,
            ends=next((str(row["detail"]) for row in rehearsal.events if row["kind"] == "stopped"), ""),
            num_cases=sum(self.num_new),
            num_models=len(models),
            shortfalls=(
                *self.shortfalls,
                *memory_shortfall(self.nodes, scenario.resources, self.num_slots, worker_bytes),
                *(sentence for client in accounts.clients for sentence in site_shortfall(client.member, client.bytes_held)),
            ),
        )

    def _simulated_s(self, accounts: Accounts, rehearsal: Rehearsal) -> float:
        """The rehearsal's own clock where it needs no measured compute: it follows the schedule to the second."""
        if self.scenario.clock.step_s is None:
            return accounts.simulated_s(rehearsal)
        return float(sum(row["simulated_s"] for row in rehearsal.rounds))

    def _case(self, block: Any, site: Site, split: Split) -> tuple[Case, float]:
        """A case of an owner with a label, prepared, with the seconds that it took. Owners whose cases are made alike share one.
        Where cases are read, each owner's has a grid of its own."""
        keys = [*split.test, *split.labelled, *split.validation] or list(split.unlabelled)
        chosen = next((key for key in keys if not is_cached("cases", site.cache_key(key))), keys[0])
        shared = site.cache_key(chosen) if reads_files(site.source) else repr(block)
        if shared not in self.book.cases:
            case, seconds = price_preparing(site, chosen)
            if case.label_IJK is None:  # of a site without labels, where nothing is scored
                case = replace(case, label_IJK=torch.zeros(case.shape, dtype=torch.uint8))
            self.book.cases[shared] = case, seconds
        return self.book.cases[shared]

    def _priced(self, index: int, kind: Hashable, rehearsal: Rehearsal) -> Priced:
        member, (_, split), (case, _) = self.members[index], self.held[index], self.cases[index]
        prices = self._prices(kind, index, case, split, rehearsal)
        num_training = len(split.labelled) + len(split.unlabelled)
        return Priced(member, num_training, len(split.validation) + len(split.test), math.prod(_shape(member, case)), prices)

    def _prices(self, kind: Hashable, client_id: int, case: Case, split: Split, rehearsal: Rehearsal) -> Prices:
        resources, tasks = self.scenario.resources, frozenset(task for of_kind, task in rehearsal.firsts if of_kind == kind)
        key = (
            kind,
            tasks,
            repr(self.scenario.method),
            repr(self.scenario.repository.teacher.network),
            resources.threads_per_client,
        )
        if key not in self.book.prices:
            has = (bool(split.labelled), bool(split.unlabelled))
            self.book.prices[key] = price(self.scenario, self.root, rehearsal, kind, client_id, case, has)
        return self.book.prices[key]

    def _prepare_s(self) -> float:
        """The repository's cases are prepared by the last slot, after those of its clients."""
        costs = [num * seconds for num, (_, seconds) in zip(self.num_new, [*self.cases, self.repository_case], strict=True)]
        loads = slot_loads(enumerate(costs[:-1]), self.num_slots)
        loads[-1] += costs[-1]
        return max(loads)

    def _repository_costs(self, rehearsal: Rehearsal, models: Sequence[Any]) -> tuple[float, float]:
        """Seconds of training on the repository and of judging what was trained, and the memory of its training cases."""
        repository, split = self.scenario.repository, self.repository[1]
        costs, num_bytes = [], 0.0
        for index, network in enumerate(rehearsal.networks):
            key = (repr(network), repr(repository.teacher), repr(repository.source), self.scenario.resources.threads_teacher)
            if key not in self.book.repository:
                self.book.repository[key] = price_repository(self.scenario, network, self.repository_case[0])
            prices = self.book.repository[key]
            steps = repository.teacher.num_steps if network in models else 0
            costs.append((index, steps * prices.step_s + len(split.test) * prices.judge_s))
            num_bytes = prices.case_bytes * len(split.labelled + split.unlabelled) if models else 0.0
        return max(slot_loads(costs, self.num_slots)), num_bytes

    def _client_row(self, client: Priced, rehearsal: Rehearsal) -> Row:
        client_id = client.member.client_id
        case = self.cases[client_id][0]
        row = dict(rehearsal.clients[client_id])
        row |= {f"spacing_{axis}_mm": value for axis, value in zip("ijk", _spacing(client.member, case), strict=True)}
        row |= {"shape": list(_shape(client.member, case)), "bytes_held": int(client.bytes_held)}
        return row | link_columns(rehearsal.transfers, client_id)

    def _repository_row(self, rehearsal: Rehearsal) -> Row:
        case, split = self.repository_case[0], self.repository[1]
        return {
            **{f"spacing_{axis}_mm": value for axis, value in zip("ijk", case.spacing_mm, strict=True)},
            "shape": list(case.shape),
            "num_train": len(split.labelled + split.unlabelled),
            "num_validation": len(split.test),
            "networks": [describe_network(network) for network in rehearsal.networks],
            "num_steps": self.scenario.repository.teacher.num_steps,
        }


def _block(scenario: Scenario, member: Member) -> tuple[Any, ...]:
    """Equal for members whose cases have one field of view, where cases are made and not read; a spacing that is whole is left out,
    for `_shape` applies it."""
    group = member.group
    is_whole = group.spacing_mm is not None and None not in group.spacing_mm
    return source_settings(scenario, member), group.sampling, group.shifts, None if is_whole else group.spacing_mm, is_whole


def _keys(split: Split) -> tuple[CaseKey, ...]:
    return split.labelled + split.unlabelled + split.validation + split.test


def _kind(member: Member, split: Split) -> Hashable:
    """Equal for clients whose steps cost the same."""
    return repr((member.student, member.training, member.group.labels.classes, bool(split.labelled), bool(split.unlabelled)))


def _spacing(member: Member, case: Case) -> tuple[float, ...]:
    """Of a member's cases: its own along the axes where it has one, else that of the case read."""
    wanted = member.group.spacing_mm or (None, None, None)
    return tuple(float(new or old) for new, old in zip(wanted, case.spacing_mm, strict=True))


def _shape(member: Member, case: Case) -> tuple[int, ...]:
    """Voxels of a member's cases: the field of view of the case read, at the member's own spacing."""
    axes = zip(case.shape, case.spacing_mm, _spacing(member, case), strict=True)
    return tuple(max(1, math.floor(size * old / new + 1e-6)) for size, old, new in axes)
