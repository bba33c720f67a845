"""From a scan to a mask: the one way in which runs, exported models and predictions have a network segment a volume.

A scan is read in RAS+, its intensities are cut off where its source does so, it is brought to the grid that the model works on, it
is normalised, and it goes through the network in windows of the training patch. The mask goes back onto the scan's own voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from raykd.data.heterogeneity.resolution import SliceProfile
from raykd.data.patches import normalise
from raykd.data.scan import Scan, load_scan
from raykd.federation.inference import Prediction, Window, predict
from raykd.federation.teacher import taught_classes
from raykd.methods._base import Method
from raykd.methods._context import Role
from raykd.models._base import SegmentationNetwork
from raykd.scenario.errors import RaykdError, did_you_mean
from raykd.scenario.labels import file_id
from raykd.scenario.registry import METHODS
from raykd.scenario.schema import Scenario
from raykd.scenario.sites import Client

PERSONAL = "personal-"
"""What the name of a site's own final model begins with."""


@dataclass(frozen=True)
class Reading:
    """How a model is shown a scan.

    Attributes:
        window: voxels along I, J, K of the pieces in which a volume goes through the network.
        known: the foreground classes that the model was taught; None: all.
        clip: lowest and highest intensity kept; None: all of them.
        spacing_mm: the grid that a scan is brought to first; None, or None for an axis: the scan's own.
        gap_mm, slice_profile: how thick slices sample a finer scan, as for `resample_case`.
    """

    window: Window
    known: tuple[int, ...] | None = None
    clip: tuple[float, float] | None = None
    spacing_mm: tuple[float | None, ...] | None = None
    gap_mm: float = 0.0
    slice_profile: SliceProfile = "box"


def site_reading(scenario: Scenario, member: Client, role: Role) -> Reading:
    """How a site has its models segment a scan: in windows of its own training patch, whoever trained the model."""
    group = member.group
    return Reading(
        window=member.training.patch_shape,
        known=taught_classes(scenario) if role == "teacher" else None,
        clip=_clip(scenario, group.source),
        spacing_mm=group.spacing_mm,
        gap_mm=group.slice_gap_mm,
        slice_profile=group.sampling.slice_profile,
    )


def repository_reading(scenario: Scenario) -> Reading:
    """How the teacher segments the repository's own scans."""
    repository = scenario.repository
    return Reading(
        window=repository.teacher.patch_shape,
        known=taught_classes(scenario),
        clip=_clip(scenario, repository.source),
        spacing_mm=repository.spacing_mm,
    )


def model_reading(scenario: Scenario, model: str, site: str | None = None) -> Reading:
    """How a final model of a run segments a scan, as it did when it was scored.

    Args:
        scenario: of the run.
        model: global, teacher or personal-SITE.
        site: whose scans it is for; None: a personal model's own site, the repository for the teacher, and for the global model
            all sites, whose scans keep their spacing.

    Raises:
        RaykdError: there is no such site, or the sites differ in their windows or intensity ranges and none was chosen.
    """
    members = {member.name: member for member in scenario.members()}
    role: Role = "teacher" if model == "teacher" else "student"
    if site is not None and site not in members:
        raise RaykdError(f"there is no site '{site}'; {did_you_mean(site, list(members))}")
    if (member := members[site] if site is not None else _owner(scenario, model)) is not None:
        return site_reading(scenario, member, role)
    if role == "teacher":
        return repository_reading(scenario)
    own = {name: site_reading(scenario, member, role) for name, member in members.items()}
    if len({(reading.window, reading.clip) for reading in own.values()}) > 1:
        raise RaykdError(
            f"the global model was scored in windows or intensity ranges that differ from site to site ({_listed(own)}); choose "
            "the site whose scans it is for with --site"
        )
    return replace(next(iter(own.values())), spacing_mm=None, gap_mm=0.0, slice_profile="box")


def model_network(scenario: Scenario, model: str) -> Any:
    """The network block of a final model of a run; `model` as for `model_reading`."""
    if model == "teacher":
        return scenario.repository.teacher.network
    owner = _owner(scenario, model)
    if owner is not None and owner.group.student:
        return owner.group.student.network
    method: Method = METHODS.get(scenario.method.name)(scenario.method, scenario)
    return method.student_network()


def segment(network: SegmentationNetwork, image_CIJK: Tensor, reading: Reading) -> Prediction:
    """The prediction for an image (1, I, J, K) on the grid that the model works on, in evaluation mode."""
    return predict(network, normalise(image_CIJK), reading.window, reading.known)


def read_scan(path: Path, reading: Reading) -> Scan:
    """An image file on the grid that a model works on. Raises `DataError` as `load_scan` does."""
    return load_scan(
        path,
        clip=reading.clip,
        spacing_mm=reading.spacing_mm,
        gap_mm=reading.gap_mm,
        slice_profile=reading.slice_profile,
    )


def segment_file(network: SegmentationNetwork, path: Path, reading: Reading) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The mask of an image file on its own voxels, and their affine. Raises `DataError` as `read_scan` does."""
    scan = read_scan(path, reading)
    return scan.on_own_grid(segment(network, scan.case.image_CIJK, reading).labels_IJK), scan.own_affine


def _owner(scenario: Scenario, model: str) -> Client | None:
    """The site whose own model it is; None: it is not one's own."""
    return next((member for member in scenario.members() if f"{PERSONAL}{file_id(member.name)}" == model), None)


def _listed(own: Mapping[str, Reading]) -> str:
    """The windows and intensity ranges of sites, each with the first site that has it."""
    first: dict[str, str] = {}
    for name, reading in own.items():
        first.setdefault(f"{list(reading.window)}" + (f" clip {list(reading.clip)}" if reading.clip else ""), name)
    return ", ".join(f"{words} at {name}" for words, name in first.items())


def _clip(scenario: Scenario, source: object) -> tuple[float, float] | None:
    """The intensities that a source keeps; those of a pool are its source's."""
    pool = getattr(source, "pool", None)
    low_high: Sequence[float] | None = getattr(scenario.pools[pool].source if pool in scenario.pools else source, "clip", None)
    return None if low_high is None else (low_high[0], low_high[1])
