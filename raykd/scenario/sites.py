"""The words of a scenario for its sites: what each has, acquires, annotates, and by which line and machine it takes part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from raykd.scenario.fields import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    ShiftBlock,
    SourceBlock,
    Strict,
    TargetSpacing,
)
from raykd.scenario.labels import Label
from raykd.scenario.scanner_profiles import SCANNER_PROFILES, ScannerProfile
from raykd.scenario.traffic import Uploads
from raykd.scenario.training import Student, Training

MatrixSize = Annotated[int, Field(ge=4, le=4096)]


class LabelNoise(Strict):
    """How the annotators of a site err. All zeros: as the source has it. Validation and test labels are never touched."""

    boundary_mm: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Standard deviation, in mm, of a smooth random displacement of every class's boundary, drawn for each case."""
    bias_mm: Annotated[float, Field(ge=-10.0, le=10.0)] = 0.0
    """How far, in mm, the site's boundaries lie outside (> 0, over-segmentation) or inside (< 0) the true ones."""
    missing: Probability = 0.0
    """Probability that a connected component of a class is overlooked, drawn for each."""


class Labels(Strict):
    """The annotations a client can afford."""

    num_shots: NonNegativeInt = 2
    """Labelled training cases; the rest of the training cases have no label."""
    num_unlabelled: NonNegativeInt | None = None
    """Training cases without a label that are kept, fewer of them a subset of more; absent: all that are left."""
    classes: tuple[Label, ...] | None = None
    """The classes its annotators outline; absent: all. What the others would be is unknown there, not background."""
    slices: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the slices along the coarsest axis of a labelled case that are outlined, evenly spaced, at least one; what lies in
    the others is unknown."""
    noise: LabelNoise = LabelNoise()


class Scanner(Strict):
    """The acquisition of a client: a signature fixed for the run and a jitter for each scan. All zeros: images as they are."""

    profile: ScannerProfile | None = None
    """A named scanner that gives every key below that is not given here; absent: the defaults."""
    noise: NonNegativeFloat = 0.0
    """Standard deviation of the noise, in units of the image's own standard deviation; Rician for magnitude images, Gaussian for
    images with negative values."""
    field_strength_t: Annotated[float, Field(ge=0.01, le=12.0)] | None = None
    """Main magnetic field, in T: the noise is multiplied by 3 / field_strength_t. Absent: the noise as it is. For other contrast at
    another field give `contrast`, or the source another protocol."""
    bias_field: NonNegativeFloat = 0.0
    """Standard deviation of the coefficients of TorchIO's polynomial bias field of order 3; not for images with negative values."""
    contrast: Probability = 0.0
    """How far intensities follow a smooth random map that the site draws once, in which air stays dark: small values change
    contrast, 1 may reverse the order of tissues, as another sequence does. Not for images with negative values."""
    gamma: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Range of the exponent on intensities scaled to [0, 1]: each site draws one, log-uniformly, and its scans vary about it."""
    intensity_scale: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Range of the receiver's gain, a factor on the whole image: each site draws one, log-uniformly, and its scans vary about it.
    Training z-scores images and does not see it. Not for images with negative values."""
    blur_mm: NonNegativeFloat = 0.0
    """Standard deviation of the point spread, in mm."""
    motion: Annotated[int, Field(ge=0, le=10)] = 0
    """Number of sudden movements during a scan."""
    motion_degrees: NonNegativeFloat = 3.0
    """Largest rotation of a movement about each axis, in degrees."""
    motion_mm: NonNegativeFloat = 2.0
    """Largest translation of a movement along each axis, in mm."""
    ghosting: Probability = 0.0
    """Intensity of the ghosts along the phase axis."""
    spike: NonNegativeFloat = 0.0
    """Height of one false sample of k-space, over the largest true one: stripes across the image, of another direction in each
    scan."""
    jitter: Probability = 0.2
    """Relative spread, between a client's scans, of every strength above."""

    @model_validator(mode="after")
    def _from_profile(self) -> Scanner:
        given = {} if self.profile is None else SCANNER_PROFILES[self.profile]
        for key, value in given.items():
            if key not in self.model_fields_set:
                object.__setattr__(self, key, value)  # frozen models are frozen for their users
        return self

    @model_validator(mode="after")
    def _ranges_run_upwards(self) -> Scanner:
        for key in ("gamma", "intensity_scale"):
            low, high = getattr(self, key)
            if low > high:
                raise PydanticCustomError("range", "must be a range, the smaller value first", {"at": key})
        return self


class Sampling(Strict):
    """How a site samples the body beyond its voxel spacing."""

    slice_profile: Literal["box", "gaussian"] = "box"
    """What a slice averages along the coarsest axis where that becomes coarser: all of its thickness alike, or with a Gaussian
    whose full width at half maximum is the thickness. Labels are what covers most of the thickness under either."""
    field_of_view_mm: tuple[PositiveFloat | None, PositiveFloat | None, PositiveFloat | None] | None = None
    """Edges of the imaged block along I, J, K around the source's centre, in whole voxels of the source; what lies outside is cut
    off. Absent or null: all of it."""
    matrix: tuple[MatrixSize, MatrixSize] | None = None
    """Samples acquired along the two finest axes, in the order I, J, K, interpolated by zero filling to the grid: a blur with
    ringing, not another spacing. Absent: one a voxel."""


class Link(Strict):
    """The line of a client."""

    up_mbps: PositiveFloat = 100.0
    """Megabits a second, client to server."""
    down_mbps: PositiveFloat = 100.0
    """Megabits a second, server to client."""
    latency_ms: NonNegativeFloat = 20.0
    """One way."""
    jitter_ms: NonNegativeFloat = 0.0
    """Mean of what a message waits beyond `latency_ms`, drawn for each from an exponential distribution."""
    loss: Annotated[float, Field(ge=0.0, le=0.5)] = 0.0
    """Share of packets that are lost and sent again; it also bounds what one TCP connection carries over a line with latency."""


class Availability(Strict):
    """When a client takes part. A client that is away is not selected; one that drops out was selected and does not answer."""

    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """Probability that it does not answer when selected; absent: `federation.client_dropout`."""
    joins: NonNegativeInt = 0
    """Its first round."""
    leaves: PositiveInt | None = None
    """The first round without it; absent: it stays."""

    @model_validator(mode="after")
    def _stays_a_while(self) -> Availability:
        if self.leaves is not None and self.leaves <= self.joins:
            raise PydanticCustomError("availability", "leaves must be after joins", {"at": "leaves"})
        return self


class ClientGroup(Strict):
    """One or more sites that are alike, or one that was drawn from a group."""

    group: Label
    """What to call the group, in any script; tables and reports show sites by it."""
    count: Annotated[int, Field(ge=1, le=10000)] = 1
    """How many sites it has."""
    name: Label | None = None
    """Of its one site; absent: the group's name, numbered where `count` is above 1."""
    drawn: dict[str, Any] = {}
    """What was drawn for this site, by key path; written by raykd, never by hand."""
    source: SourceBlock
    spacing_mm: TargetSpacing | None = None
    """The site's voxel spacing along I, J, K, or one number for all three; null for an axis, or absent: as the source has it."""
    slice_gap_mm: NonNegativeFloat = 0.0
    """Part of the spacing along the coarsest axis that no slice covers; counts where that axis becomes coarser."""
    sampling: Sampling = Sampling()
    scanner: Scanner = Scanner()
    shifts: tuple[ShiftBlock, ...] = ()
    """Further shifts, applied in order after resolution and scanner."""
    labels: Labels = Labels()
    num_validation: NonNegativeInt = 0
    """Cases held out for choices made in training."""
    num_test: NonNegativeInt = 6
    """Cases held out to judge; 0: the site only trains, and nothing is known of how models do there."""
    link: Link = Link()
    compute_factor: PositiveFloat = 1.0
    """Speed of the site's machine relative to the one that runs the simulation, or to that of `clock.step_s`."""
    memory_gib: PositiveFloat | None = None
    """Memory of the site's machine, in GiB: `raykd plan` refuses a site whose work needs more. Absent: not asked."""
    availability: Availability = Availability()
    student: Student | None = None
    training: Training | None = None
    """Keys given here override the federation's; the others are inherited."""
    traffic: Uploads | None = None
    """Codecs of what leaves the site: kinds given here override the federation's."""

    @model_validator(mode="after")
    def _one_name(self) -> ClientGroup:
        if self.name is not None and self.count > 1:
            raise PydanticCustomError("name", "one name needs one site: count must be 1", {"at": "name"})
        return self

    @model_validator(mode="after")
    def _slices_are_wider_than_gaps(self) -> ClientGroup:
        given = [mm for mm in self.spacing_mm or () if mm is not None]
        if self.slice_gap_mm > 0 and self.slice_gap_mm >= max(given, default=0.0):
            rule = "must be below the largest of spacing_mm, which it is a part of; give both, or leave the gap out"
            raise PydanticCustomError("slice_gap", rule, {"at": "slice_gap_mm"})
        return self

    def site_names(self) -> tuple[str, ...]:
        """The names of its sites."""
        return site_names({"group": self.group, "count": self.count, "name": self.name})


def site_names(group: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the sites of a group as it is written, which may break other rules."""
    name, count = group.get("group"), group.get("count", 1)
    if not isinstance(count, int) or count <= 1:
        return (str(group.get("name") or name),)
    return tuple(f"{name}-{index}" for index in range(count))


class PoolSplit(Strict):
    """How the cases of a pool are shared among the clients that draw on it, always by patient."""

    by: Literal["iid", "column", "dirichlet", "quantity"] = "iid"
    """`iid`: equal random shares; `column`: each client gets the patients whose `column` is its `value`; `dirichlet`: the
    patients of each value of `column` are shared in proportions drawn from Dirichlet(alpha); `quantity`: shares of unequal size
    drawn from Dirichlet(alpha), alike otherwise."""
    column: str | None = None
    """A covariate of the source's cases, as `site` or `kl_grade`; numbers are cut at their quartiles for `dirichlet`."""
    alpha: PositiveFloat = 0.5
    """Concentration: the smaller, the more unlike the shares."""

    @model_validator(mode="after")
    def _names_its_column(self) -> PoolSplit:
        if (self.column is None) == (self.by in ("column", "dirichlet")):
            rule = "must be given for by: column and by: dirichlet, and for no other"
            raise PydanticCustomError("column", rule, {"at": "column"})
        return self


class Pool(Strict):
    """One source that several clients share: each holds some of its patients, none holds another's."""

    source: SourceBlock
    split: PoolSplit = PoolSplit()


class Client(Strict):
    """One site, as resolved from its group."""

    client_id: NonNegativeInt
    name: str
    group: ClientGroup
    student: Student
    training: Training
    held_out: bool = False
    """Whether it takes no part in training: all its labelled cases are test cases."""


def num_training(members: Sequence[Client]) -> int:
    """How many clients take part in training."""
    return sum(not member.held_out for member in members)
