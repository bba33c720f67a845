"""The words of a scenario, as frozen and strict pydantic models."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from raykd.scenario.fields import (
    MethodBlock,
    NetworkBlock,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    SafeName,
    Shape,
    ShiftBlock,
    SourceBlock,
    Spacing,
    Strict,
)


class Augmentation(Strict):
    """What is drawn anew for every training patch. All zeros: patches as they are. Spatial draws move image, labels and cached
    teacher maps together; intensity draws touch the image alone."""

    flip: tuple[Probability, Probability, Probability] = (0.5, 0.0, 0.0)
    """Probability of mirroring along I, J, K. A right knee mirrored along I is a left knee."""
    spacing_factor: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.0)
    """Largest coarsening along I, J, K: the patch is averaged to a spacing drawn from 1 to this many times the case's own."""
    contrast: Probability = 0.0
    """Probability that intensities pass through a random, non-monotone map (and a labelled class through its own)."""
    gamma: NonNegativeFloat = 0.0
    """Half width of a uniform draw of log(gamma)."""
    bias_field: NonNegativeFloat = 0.0
    """Standard deviation of the coefficients of a smooth multiplicative field, in log intensity."""
    blur: NonNegativeFloat = 0.0
    """Largest standard deviation of a Gaussian blur, in voxels."""
    noise: NonNegativeFloat = 0.0
    """Largest standard deviation of additive Gaussian noise, in units of the image's own standard deviation."""


class Training(Strict):
    """How a model is fitted locally."""

    num_local_steps: PositiveInt = 16
    """Optimiser steps of one local update."""
    batch_size: PositiveInt = 2
    """Labelled patches in a step; 1 is avoided because PyTorch sends it to a slow convolution."""
    optimiser: Literal["adam", "sgd"] = "adam"
    learning_rate: PositiveFloat = 2.0e-3
    schedule: Literal["constant", "cosine", "poly"] = "constant"
    """How the learning rate falls over all steps of the federation; `poly` has power 0.9."""
    weight_decay: NonNegativeFloat = 0.0
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Of SGD; Adam keeps its betas."""
    clip_norm: NonNegativeFloat = 0.0
    """Largest gradient norm; 0 clips nothing."""
    patch_shape: Shape = (16, 64, 64)
    foreground: Probability = 0.75
    """Share of labelled patches that hold a labelled voxel of a class drawn uniformly, at a uniform place."""
    augmentation: Augmentation = Augmentation()


class Student(Strict):
    """The model that every client trains."""

    network: NetworkBlock


class Teacher(Strict):
    """The model that the repository trains before the federation starts."""

    network: NetworkBlock
    num_steps: PositiveInt = 600
    batch_size: PositiveInt = 2
    learning_rate: PositiveFloat = 2.0e-3
    patch_shape: Shape = (16, 64, 64)
    augmentation: Augmentation = Augmentation()


class Repository(Strict):
    """The external, richly annotated, high-resolution source. All its cases are labelled."""

    source: SourceBlock
    spacing_mm: Spacing | None = None
    """The grid its cases are brought to; absent: as the source has them."""
    num_validation: NonNegativeInt = 4
    """Cases held out to evaluate the teacher."""
    teacher: Teacher


class Labels(Strict):
    """The annotations a client can afford."""

    num_shots: NonNegativeInt = 2
    """Labelled training cases; the rest of the training cases have no label."""
    classes: tuple[str, ...] | None = None
    """The classes its annotators outline; absent: all. What the others would be is unknown there, not background."""


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


class Link(Strict):
    """The line of a client."""

    up_mbps: PositiveFloat = 100.0
    """Megabits a second, client to server."""
    down_mbps: PositiveFloat = 100.0
    """Megabits a second, server to client."""
    latency_ms: NonNegativeFloat = 20.0


class ClientGroup(Strict):
    """One or more sites that are alike."""

    group: SafeName
    count: Annotated[int, Field(ge=1, le=10000)] = 1
    source: SourceBlock
    spacing_mm: Spacing | None = None
    """The site's voxel spacing; absent: as the source has it."""
    slice_gap_mm: NonNegativeFloat = 0.0
    """Part of the spacing along the coarsest axis that no slice covers."""
    scanner: Scanner = Scanner()
    shifts: tuple[ShiftBlock, ...] = ()
    """Further shifts, applied in order after resolution and scanner."""
    labels: Labels = Labels()
    num_validation: NonNegativeInt = 0
    num_test: PositiveInt = 6
    link: Link = Link()
    compute_factor: PositiveFloat = 1.0
    """Speed of the site's machine relative to the one that runs the simulation."""
    student: Student | None = None
    training: Training | None = None
    """Keys given here override the federation's; the others are inherited."""


class Federation(Strict):
    """How the federation proceeds."""

    rounds: PositiveInt = 20
    personal_rounds: NonNegativeInt = 0
    """How many of the rounds, the last ones, every site goes on alone from its own model: nothing travels, and `personal` is
    what it deploys."""
    participation: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the clients selected in a round (at least one)."""
    client_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Probability that a selected client does not answer."""


class Evaluation(Strict):
    every: PositiveInt = 5
    """Rounds between evaluations; the last round is always evaluated."""
    surface_metrics: Literal["final", "always", "never"] = "final"
    """When NSD, HD95 and ASSD are computed beside DSC."""
    nsd_tolerance_mm: PositiveFloat = 1.0
    previews: NonNegativeInt = 1
    """Test cases a client whose slices are kept for the report."""


class Resources(Strict):
    cpus_per_client: NonNegativeFloat = 1.0
    gpus_per_client: NonNegativeFloat = 0.0
    """Fraction of a GPU that one running client holds."""
    threads_per_client: PositiveInt = 1
    """Torch threads of a running client: part of the scenario, because it changes the last bits of a result."""
    threads_teacher: PositiveInt = 1
    """Torch threads while the teacher is trained."""
    slots: Literal["auto"] | PositiveInt = "auto"
    """Clients running at once; `auto`: as many as fit."""


class Client(Strict):
    """One site, as resolved from its group."""

    client_id: NonNegativeInt
    name: str
    group: ClientGroup
    student: Student
    training: Training


class Scenario(Strict):
    """A federation, the method that runs in it, and how both are judged."""

    name: SafeName
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    classes: Annotated[tuple[SafeName, ...], Field(min_length=1, max_length=64)]
    """Foreground classes by name, in the order of the labels 1, 2, ...; 0 is background."""
    repository: Repository
    clients: Annotated[tuple[ClientGroup, ...], Field(min_length=1)]
    student: Student
    method: MethodBlock
    training: Training = Training()
    federation: Federation = Federation()
    evaluation: Evaluation = Evaluation()
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _inherit_training(self) -> Scenario:
        """A group's `training` states only what differs from the federation's."""
        groups = []
        for group in self.clients:
            if group.training is not None:
                own = {key: getattr(group.training, key) for key in group.training.model_fields_set}
                group = group.model_copy(update={"training": self.training.model_copy(update=own)})
            groups.append(group)
        object.__setattr__(self, "clients", tuple(groups))  # frozen models are frozen for their users
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        if len(set(self.classes)) != len(self.classes):
            raise PydanticCustomError("classes", "must differ from one another", {"at": "classes"})
        if self.federation.personal_rounds >= self.federation.rounds:
            raise PydanticCustomError(
                "personal_rounds", "must be less than federation.rounds", {"at": ("federation", "personal_rounds")}
            )
        names = [group.group for group in self.clients]
        if len(set(names)) != len(names):
            raise PydanticCustomError(
                "groups", "groups must have different names, got {names}", {"names": ", ".join(names), "at": "clients"}
            )
        for index, group in enumerate(self.clients):
            unknown = set(group.labels.classes or ()) - set(self.classes)
            if unknown:
                at = f"clients[{index}].labels.classes"
                raise PydanticCustomError("label_classes", "must be among the scenario's classes", {"at": at})
        return self

    def members(self) -> tuple[Client, ...]:
        """The clients, numbered from 0 in the order of their groups."""
        clients: list[Client] = []
        for group in self.clients:
            for i in range(group.count):
                name = group.group if group.count == 1 else f"{group.group}-{i}"
                clients.append(
                    Client(
                        client_id=len(clients),
                        name=name,
                        group=group,
                        student=group.student or self.student,
                        training=group.training or self.training,
                    )
                )
        return tuple(clients)

    def content_hash(self) -> str:
        """SHA-256 (first 16 hex digits) of the resolved scenario: equal for scenarios that mean the same."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
