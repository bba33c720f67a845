"""From a scenario to what the repository and every client hold: sources, splits by patient, shifts, cached prepared cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import raykd
from raykd.data.cache import cached, content_key
from raykd.data.case import Case
from raykd.data.heterogeneity._base import Shift
from raykd.data.heterogeneity.label_budget import Split, limit_classes, split_patients
from raykd.data.heterogeneity.resolution import resample_case
from raykd.data.heterogeneity.scanner import ScannerSettings, ScannerShift
from raykd.data.sources._base import CaseKey, Source
from raykd.numerics.rng import generator
from raykd.scenario.errors import DataError
from raykd.scenario.registry import SHIFTS, SOURCES
from raykd.scenario.schema import Scenario
from raykd.scenario.sites import Client

REPOSITORY = "repository"


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
        return (self.labelled + self.unlabelled + self.test)[0].spacing_mm


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
        root: folder of the scenario file.
        spacing_mm, gap_mm: its grid; None: as the source has it.
        shifts: applied in order after resolution.
    """

    def __init__(
        self,
        scenario: Scenario,
        owner: str,
        source_settings: Any,
        root: Path,
        spacing_mm: tuple[float, float, float] | None,
        gap_mm: float = 0.0,
        shifts: Sequence[Shift] = (),
    ):
        self.owner = owner
        self.source: Source = SOURCES.get(source_settings.name)(source_settings, scenario.classes, scenario.seed, owner, root)
        self._spacing_mm = spacing_mm
        self._gap_mm = gap_mm
        self._shifts = shifts
        self._inputs = {
            "classes": scenario.classes,
            "source": self.source.fingerprint(),
            "spacing_mm": spacing_mm,
            "gap_mm": gap_mm,
            "shifts": [{"site": shift.site, "seed": shift.seed, **shift.settings.model_dump(mode="json")} for shift in shifts],
            "raykd": raykd.__version__,
        }

    def prepare(self, key: CaseKey) -> Case:
        """The case as this site has it, from the cache where it was prepared before."""

        def compute() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
            case = self.source.load(key)
            if self._spacing_mm is not None:
                case = resample_case(case, self._spacing_mm, self._gap_mm)
            for shift in self._shifts:
                case = shift.apply(case)
            tensors = {"image": case.image_CIJK}
            if case.label_IJK is not None:
                tensors["label"] = case.label_IJK
            return tensors, {"affine": np.asarray(case.affine).tolist(), "record": dict(case.record)}

        tensors, values = cached("cases", content_key(**self._inputs, case=asdict(key)), compute)
        return Case(
            key.case_id,
            key.patient_id,
            tensors["image"],
            tensors.get("label"),
            np.array(values["affine"], dtype=np.float64),
            values["record"],
        )


def client_site(scenario: Scenario, client: Client, root: Path) -> Site:
    """The site of one client."""
    group = client.group
    scanner = ScannerSettings.model_validate({**group.scanner.model_dump(), "name": "scanner"})
    shifts = [ScannerShift(scanner, scenario.seed, client.name)]
    shifts += [SHIFTS.get(shift.name)(shift, scenario.seed, client.name) for shift in group.shifts]
    return Site(scenario, client.name, group.source, root, group.spacing_mm, group.slice_gap_mm, shifts)


def list_cases(scenario: Scenario, root: Path) -> None:
    """Lists every source's cases and splits them, without loading any. Raises `DataError` where that cannot be done."""
    for client in scenario.members():
        _split(scenario, client, client_site(scenario, client, root))
    _repository_split(scenario, repository_site(scenario, root))


def check_cases(scenario: Scenario, root: Path) -> None:
    """Reads every case of every source. Raises `DataError` with all that is wrong in the first source that is not sound."""
    for client in scenario.members():
        client_site(scenario, client, root).source.check()
    repository_site(scenario, root).source.check()


def _split(scenario: Scenario, client: Client, site: Site) -> Split:
    group = client.group
    return split_patients(
        site.source.keys(),
        num_shots=group.labels.num_shots,
        num_validation=group.num_validation,
        num_test=group.num_test,
        rng=generator(scenario.seed, "split", client.name),
        owner=client.name,
    )


def repository_site(scenario: Scenario, root: Path) -> Site:
    """The repository as an owner of cases, on its own grid."""
    return Site(scenario, REPOSITORY, scenario.repository.source, root, scenario.repository.spacing_mm)


def _repository_split(scenario: Scenario, site: Site) -> Split:
    return split_patients(
        site.source.keys(),
        num_shots=1,
        num_validation=0,
        num_test=scenario.repository.num_validation,
        rng=generator(scenario.seed, "split", REPOSITORY),
        owner=REPOSITORY,
    )


def build_client_data(scenario: Scenario, client: Client, root: Path) -> ClientData:
    """What a client holds, split by patient: test and validation first, then the labelled shots, the rest without labels.

    Raises:
        DataError: too few patients, an unusable case, a test case without a label.
    """
    site = client_site(scenario, client, root)
    split = _split(scenario, client, site)
    labelled = [_labelled(site.prepare(key), client.name) for key in split.labelled]
    if (annotated := client.group.labels.classes) is not None:
        labelled = [limit_classes(case, scenario.classes, annotated) for case in labelled]
    return ClientData(
        labelled=tuple(labelled),
        unlabelled=tuple(replace(site.prepare(key), label_IJK=None) for key in split.unlabelled),
        validation=tuple(_labelled(site.prepare(key), client.name) for key in split.validation),
        test=tuple(_labelled(site.prepare(key), client.name) for key in split.test),
    )


def build_repository_data(scenario: Scenario, root: Path) -> RepositoryData:
    """The repository's cases on its own grid. Raises `DataError` where a case has no label or none is left to train on."""
    site = repository_site(scenario, root)
    split = _repository_split(scenario, site)
    return RepositoryData(
        train=tuple(_labelled(site.prepare(key), REPOSITORY) for key in split.labelled + split.unlabelled),
        validation=tuple(_labelled(site.prepare(key), REPOSITORY) for key in split.test),
    )


def _labelled(case: Case, owner: str) -> Case:
    if case.label_IJK is None:
        raise DataError(
            f"{owner}: case {case.case_id} must have a label because it is a labelled, validation or test case, got none"
        )
    return case
