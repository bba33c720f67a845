"""The words of a scenario for its sites: what each has, acquires, annotates, and by which line and machine it takes part."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from raykd.scenario.fields import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    SafeName,
    ShiftBlock,
    SourceBlock,
    Spacing,
    Strict,
)
from raykd.scenario.training import Student, Training


class LabelNoise(Strict):
    """How the annotators of a site err. All zeros: as the source has it. Validation and test labels are never touched."""

    boundary_mm: NonNegativeFloat = 0.0
    """Standard deviation of a smooth random displacement of every boundary."""
    bias_mm: Annotated[float, Field(ge=-10.0, le=10.0)] = 0.0
    """How far the site's boundaries lie outside (> 0, over-segmentation) or inside (< 0) the true ones."""
    missing: Probability = 0.0
    """Probability that a connected component of a class is overlooked."""


class Labels(Strict):
    """The annotations a client can afford."""

    num_shots: NonNegativeInt = 2
    """Labelled training cases; the rest of the training cases have no label."""
    num_unlabelled: NonNegativeInt | None = None
    """Training cases without a label that are kept; absent: all that are left."""
    classes: tuple[str, ...] | None = None
    """The classes its annotators outline; absent: all. What the others would be is unknown there, not background."""
    slices: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the slices of a labelled case that are outlined, evenly spaced; what lies in the others is unknown."""
    noise: LabelNoise = LabelNoise()


class Scanner(Strict):
    """The acquisition of a client: a signature fixed for the run and a jitter for each scan. All zeros: images as they are."""

    noise: NonNegativeFloat = 0.0
    """Standard deviation of the noise, in units of the image's own standard deviation; Rician for magnitude images."""
    bias_field: NonNegativeFloat = 0.0
    """Standard deviation of the coefficients of TorchIO's polynomial bias field of order 3."""
    gamma: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Range of the exponent on intensities scaled to [0, 1], drawn for each scan."""
    blur_mm: NonNegativeFloat = 0.0
    """Standard deviation of the point spread, in mm."""
    motion: Annotated[int, Field(ge=0, le=10)] = 0
    """Number of sudden movements during a scan."""
    motion_degrees: NonNegativeFloat = 3.0
    motion_mm: NonNegativeFloat = 2.0
    ghosting: Probability = 0.0
    """Intensity of the ghosts along the phase axis."""
    jitter: Probability = 0.2
    """Relative spread, between a client's scans, of every strength above."""


class Sampling(Strict):
    """How a site samples the body beyond its voxel spacing."""

    slice_profile: Literal["box", "gaussian"] = "box"
    """What a slice averages along the coarsest axis: all of its thickness alike, or with a Gaussian whose full width at half
    maximum is the thickness."""
    field_of_view_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Edges of the imaged block along I, J, K around the source's centre; what lies outside is cut off. Absent: all of it."""
    matrix: tuple[PositiveInt, PositiveInt] | None = None
    """Samples acquired along the two finest axes, interpolated by zero filling to the grid: a blur, not another spacing. Absent:
    one a voxel."""


class Link(Strict):
    """The line of a client."""

    up_mbps: PositiveFloat = 100.0
    """Megabits a second, client to server."""
    down_mbps: PositiveFloat = 100.0
    """Megabits a second, server to client."""
    latency_ms: NonNegativeFloat = 20.0


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

    group: SafeName
    count: Annotated[int, Field(ge=1, le=10000)] = 1
    name: SafeName | None = None
    """Of its one site; absent: the group's name, numbered where `count` is above 1."""
    drawn: dict[str, Any] = {}
    """What was drawn for this site, by key path; written by raykd, never by hand."""
    source: SourceBlock
    spacing_mm: Spacing | None = None
    """The site's voxel spacing; absent: as the source has it."""
    slice_gap_mm: NonNegativeFloat = 0.0
    """Part of the spacing along the coarsest axis that no slice covers."""
    sampling: Sampling = Sampling()
    scanner: Scanner = Scanner()
    shifts: tuple[ShiftBlock, ...] = ()
    """Further shifts, applied in order after resolution and scanner."""
    labels: Labels = Labels()
    num_validation: NonNegativeInt = 0
    num_test: PositiveInt = 6
    link: Link = Link()
    compute_factor: PositiveFloat = 1.0
    """Speed of the site's machine relative to the one that runs the simulation."""
    availability: Availability = Availability()
    student: Student | None = None
    training: Training | None = None
    """Keys given here override the federation's; the others are inherited."""

    @model_validator(mode="after")
    def _one_name(self) -> ClientGroup:
        if self.name is not None and self.count > 1:
            raise PydanticCustomError("name", "one name needs one site: count must be 1", {"at": "name"})
        return self

    def site_names(self) -> tuple[str, ...]:
        """The names of its sites."""
        if self.count == 1:
            return (self.name or self.group,)
        return tuple(f"{self.group}-{index}" for index in range(self.count))


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
