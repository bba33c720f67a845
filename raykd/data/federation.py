"""From a scenario to what the repository and every client hold: sources, splits by patient, shifts, cached prepared cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import raykd
from raykd.data.cache import cached, content_key
from raykd.data.case import Case
from raykd.data.heterogeneity._base import Shift
from raykd.data.heterogeneity.annotator import annotate
from raykd.data.heterogeneity.label_budget import Split, all_tested, limit_classes, limit_slices, split_patients
from raykd.data.heterogeneity.resolution import Resolution, ResolutionSettings
from raykd.data.heterogeneity.scanner import ScannerSettings, ScannerShift
from raykd.data.identity import shared_cases
from raykd.data.native import with_native_volumes
from raykd.data.pools import Pools, check_pools
from raykd.data.references import outlined_nowhere, refuse_empty, refuse_useless
from raykd.data.sources._base import CaseKey, Source
from raykd.numerics.rng import generator
from raykd.scenario.errors import DataError
from raykd.scenario.fields import TargetSpacing
from raykd.scenario.registry import SHIFTS
from raykd.scenario.schema import Scenario
from raykd.scenario.sites import Client

REPOSITORY, PROXY = "repository", "proxy"


@dataclass(frozen=True)
class ClientData:
    """What one client holds. Unlabelled cases have no label: it is not there to be used by mistake."""

    labelled: tuple[Case, ...]
    unlabelled: tuple[Case, ...]
    validation: tuple[Case, ...]
    test: tuple[Case, ...]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Of the first case."""
        return (self.labelled + self.unlabelled + self.test + self.validation)[0].spacing_mm


@dataclass(frozen=True)
class RepositoryData:
    """The repository's labelled cases and those held out to evaluate the teacher."""

    train: tuple[Case, ...]
    validation: tuple[Case, ...]


class Site:
    """One owner of cases: its source, its shifts and how it prepares a case.

    Args:
        scenario: gives classes and seed.
        owner: "repository" or the client's name.
        source_settings: its source block.
        pools: opens its source.
        shifts: applied in order; the first is its grid.
    """

    def __init__(
        self,
        scenario: Scenario,
        owner: str,
        source_settings: Any,
        pools: Pools,
        shifts: Sequence[Shift],
    ):
        self.owner = owner
        self.source = pools.open_source(source_settings, owner)
        self._shifts = shifts
        self._inputs = {
            "classes": scenario.classes,
            "source": self.source.fingerprint(),
            "shifts": [shift.fingerprint() for shift in shifts],
            "raykd": raykd.__version__,
        }

    def fingerprint(self) -> str:
        """A hash of everything that this owner's prepared cases depend on."""
        return content_key(**self._inputs)

    def cache_key(self, key: CaseKey) -> str:
        """The prepared case's key in the cache."""
        return content_key(**self._inputs, case=asdict(key))

    def prepare(self, key: CaseKey) -> Case:
        """The case as this site has it, from the cache where it was prepared before."""

        def compute() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
            case = native = self.source.load(key)
            for shift in self._shifts:
                case = shift.apply(case)
            case.check_contrast(self.owner)
            case = with_native_volumes(case, native, self.source.classes)
            tensors = {"image": case.image_CIJK}
            if case.label_IJK is not None:
                tensors["label"] = case.label_IJK
            looked_for = {"outlined": case.outlined, "absent": case.absent}
            return tensors, {"affine": np.asarray(case.affine).tolist(), "record": dict(case.record), **looked_for}

        tensors, values = cached("cases", self.cache_key(key), compute)
        return Case(
            key.case_id,
            key.patient_id,
            tensors["image"],
            tensors.get("label"),
            np.array(values["affine"], dtype=np.float64),
            values["record"],
            None if values["outlined"] is None else tuple(values["outlined"]),
            tuple(values["absent"]),
        )


def client_site(scenario: Scenario, client: Client, root: Path, pools: Pools | None = None) -> Site:
    """The site of one client; its source is opened by `pools`, which clients may share."""
    group = client.group
    scanner = ScannerSettings.model_validate({**group.scanner.model_dump(), "name": "scanner"})
    shifts = [
        _grid(scenario, client.name, group.spacing_mm, gap_mm=group.slice_gap_mm, **group.sampling.model_dump()),
        ScannerShift(scanner, scenario.seed, client.name),
        *(SHIFTS.get(shift.name)(shift, scenario.seed, client.name) for shift in group.shifts),
    ]
    return Site(scenario, client.name, group.source, pools or Pools(scenario, root), shifts)


def _grid(scenario: Scenario, owner: str, spacing_mm: TargetSpacing | None, **sampling: Any) -> Resolution:
    return Resolution(ResolutionSettings(spacing_mm=spacing_mm, **sampling), scenario.seed, owner)


def list_cases(scenario: Scenario, root: Path) -> None:
    """Lists every source's cases and splits them, without loading any.

    Raises:
        ScenarioError: pools that do not fit the clients.
        DataError: with every site that lacks cases, or every two owners that share some.
    """
    check_pools(scenario)
    sources, problems = dict[str, Source](), list[str]()

    def note(build: Callable[[], Site], split: Callable[[Site], Split] | None) -> None:
        try:
            site = build()
            sources[site.owner] = site.source
            if split is not None:
                split(site)
        except DataError as error:
            problems.extend(str(error).splitlines())

    pools = Pools(scenario, root)
    for client in scenario.members():
        note(partial(client_site, scenario, client, root, pools), partial(_split, scenario, client))
    note(partial(repository_site, scenario, root), partial(repository_split, scenario))
    if scenario.proxy is not None:
        note(partial(proxy_site, scenario, root), None)
    sources_of_labels = [source for owner, source in sources.items() if owner != PROXY]
    if problems := list(dict.fromkeys(problems)) or shared_cases(sources) + outlined_nowhere(scenario.classes, sources_of_labels):
        raise DataError("\n".join(problems))


def _split(scenario: Scenario, client: Client, site: Site) -> Split:
    group, keys = client.group, site.source.keys()
    if client.held_out:
        return all_tested(keys, site.source.has_label, client.name)
    split = split_patients(
        keys,
        num_shots=group.labels.num_shots,
        num_unlabelled=group.labels.num_unlabelled,
        num_validation=group.num_validation,
        num_test=group.num_test,
        rng=generator(scenario.seed, "split", client.name),
        has_label=site.source.has_label,
        owner=client.name,
    )
    refuse_useless(site.source, split.labelled, scenario.classes if group.labels.classes is None else group.labels.classes)
    return split


def repository_site(scenario: Scenario, root: Path) -> Site:
    """The repository as an owner of cases, on its own grid."""
    grid = _grid(scenario, REPOSITORY, scenario.repository.spacing_mm)
    return Site(scenario, REPOSITORY, scenario.repository.source, Pools(scenario, root), [grid])


def repository_split(scenario: Scenario, site: Site) -> Split:
    return split_patients(
        site.source.keys(),
        num_shots=1,
        num_validation=0,
        num_test=scenario.repository.num_validation,
        rng=generator(scenario.seed, "split", REPOSITORY),
        has_label=site.source.has_label,
        owner=REPOSITORY,
    )


def holdings(scenario: Scenario, root: Path) -> tuple[list[tuple[Site, Split]], tuple[Site, Split]]:
    """Every client's site and the cases it holds, and the repository's, without loading any. Raises `DataError`."""
    pools = Pools(scenario, root)
    sites = [client_site(scenario, client, root, pools) for client in scenario.members()]
    clients = [(site, _split(scenario, client, site)) for client, site in zip(scenario.members(), sites, strict=True)]
    repository = repository_site(scenario, root)
    return clients, (repository, repository_split(scenario, repository))


def data_fingerprints(scenario: Scenario, root: Path) -> dict[str, str]:
    """By owner, a hash of what its cases depend on: equal as long as files and settings are. Raises `DataError`."""
    pools = Pools(scenario, root)
    sites = [*(client_site(scenario, client, root, pools) for client in scenario.members()), repository_site(scenario, root)]
    return {site.owner: site.fingerprint() for site in sites}


def build_client_data(scenario: Scenario, client: Client, root: Path, pools: Pools | None = None) -> ClientData:
    """What a client holds, split by patient: test and validation first, then the labelled shots, the rest without labels; its
    source is opened by `pools`, which clients may share.

    Raises:
        DataError: too few patients, an unusable case, a test case without a label.
    """
    site = client_site(scenario, client, root, pools)
    split = _split(scenario, client, site)
    data = ClientData(
        labelled=tuple(_outlined(scenario, client, site.prepare(key)) for key in split.labelled),
        unlabelled=tuple(replace(site.prepare(key), label_IJK=None) for key in split.unlabelled),
        validation=tuple(_labelled(site.prepare(key), client.name) for key in split.validation),
        test=tuple(_labelled(site.prepare(key), client.name) for key in split.test),
    )
    refuse_empty(client.name, scenario.classes, data.labelled + data.validation + data.test)
    return data


def build_repository_data(scenario: Scenario, root: Path) -> RepositoryData:
    """The repository's cases on its own grid, those for training with the classes that it outlines.

    Raises:
        DataError: a case has no label, or none is left to train on.
    """
    site = repository_site(scenario, root)
    split = repository_split(scenario, site)
    outlined = scenario.classes if scenario.repository.classes is None else scenario.repository.classes
    cases = [_labelled(site.prepare(key), REPOSITORY) for key in split.labelled + split.unlabelled]
    train = [limit_classes(case, scenario.classes, outlined) for case in cases]
    refuse_empty(REPOSITORY, scenario.classes, train)
    return RepositoryData(
        train=tuple(case for case in train if case.outlined != ()),
        validation=tuple(_labelled(site.prepare(key), REPOSITORY) for key in split.test),
    )


def proxy_site(scenario: Scenario, root: Path) -> Site:
    """The public images as an owner of cases."""
    assert scenario.proxy is not None
    return Site(scenario, PROXY, scenario.proxy.source, Pools(scenario, root), [_grid(scenario, PROXY, scenario.proxy.spacing_mm)])


def build_proxy_data(scenario: Scenario, root: Path) -> tuple[Case, ...]:
    """The public images, all of them, without labels. Raises `DataError` where the scenario has none."""
    if scenario.proxy is None:
        raise DataError(
            f"method {scenario.method.name} needs images that server and clients share, got no proxy; add `proxy: {{source: ...}}`"
        )
    site = proxy_site(scenario, root)
    return tuple(replace(site.prepare(key), label_IJK=None) for key in site.source.keys())  # noqa: SIM118 (not a mapping)


def _outlined(scenario: Scenario, client: Client, case: Case) -> Case:
    """A training case with what the site's annotators make of its label: their classes, their errors, their slices."""
    labels = client.group.labels
    outlined = scenario.classes if labels.classes is None else labels.classes
    case = limit_classes(_labelled(case, client.name), scenario.classes, outlined)
    case = annotate(case, labels.noise, seed=scenario.seed, site=client.name)
    return limit_slices(case, labels.slices)


def _labelled(case: Case, owner: str) -> Case:
    if case.label_IJK is None:
        raise DataError(
            f"{owner}: case {case.case_id} must have a label because it is a labelled, validation or test case, got none"
        )
    return case
