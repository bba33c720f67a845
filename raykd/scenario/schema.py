"""The words of a scenario, as frozen and strict pydantic models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from raykd.scenario.errors import did_you_mean
from raykd.scenario.fields import (
    MethodBlock,
    NetworkBlock,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SafeName,
    Shape,
    SiteNames,
    SourceBlock,
    Strict,
    TargetSpacing,
)
from raykd.scenario.labels import Label
from raykd.scenario.privacy import Privacy
from raykd.scenario.sites import Client, ClientGroup, Pool
from raykd.scenario.timing import Clock, Federation, timing_problems
from raykd.scenario.traffic import Traffic, own_uploads
from raykd.scenario.training import Augmentation, Student, Training


class Teacher(Strict):
    """The model that the repository trains before the federation starts."""

    network: NetworkBlock
    num_steps: PositiveInt = 600
    """Optimiser steps."""
    batch_size: PositiveInt = 2
    """Patches a step."""
    learning_rate: PositiveFloat = 2.0e-3
    patch_shape: Shape = (16, 64, 64)
    """Voxels of a patch along I, J, K."""
    augmentation: Augmentation = Augmentation()


class Repository(Strict):
    """The external, richly annotated, high-resolution source. All its cases are labelled."""

    source: SourceBlock
    spacing_mm: TargetSpacing | None = None
    """The grid its cases are brought to, along I, J, K, or one number for all three; null for an axis, or absent: as the source has
    it."""
    num_validation: NonNegativeInt = 4
    """Cases held out to evaluate the teacher."""
    classes: tuple[Label, ...] | None = None
    """The classes that the repository outlines; absent: all. Of the others its teacher knows nothing."""
    teacher: Teacher


class Proxy(Strict):
    """Public images without labels, at hand at every site and at the server before the federation starts; they cross no link."""

    source: SourceBlock
    spacing_mm: TargetSpacing | None = None
    """The grid they are brought to; absent: as the source has them."""


class Evaluation(Strict):
    every: PositiveInt = 5
    """Rounds between evaluations; the last round is always evaluated."""
    surface_metrics: Literal["final", "always", "never"] = "final"
    """When NSD, HD95 and ASSD are computed beside DSC."""
    calibration: Literal["final", "never"] = "final"
    """When it is counted how sure the models are of the voxels near the structures, and how often they are right."""
    nsd_tolerance_mm: Literal["auto"] | PositiveFloat = "auto"
    """Surfaces no further apart than this count as the same in NSD; `auto`: the finest voxel edge of each case, below which no
    distance but 0 is possible. A number must not lie below it."""
    native_grid: bool = False
    """Whether test cases whose source has a finer label than their site are scored on the source's grid, too, with the
    probabilities of the classes interpolated to it: `dsc_native` and its neighbours in the table `cases`."""
    previews: NonNegativeInt = 1
    """Test cases a client whose slices are kept for the report, beside those of the one it does worst on; 0 keeps none."""


class Resources(Strict):
    cpus_per_client: NonNegativeFloat = 1.0
    """CPUs that one running client holds."""
    gpus_per_client: NonNegativeFloat = 0.0
    """Fraction of a GPU that one running client holds, and of its memory that it may use; above 0 networks run there."""
    threads_per_client: PositiveInt = 1
    """Torch threads of a running client: part of the scenario, because it changes the last bits of a result."""
    threads_teacher: PositiveInt = 1
    """Torch threads while the teacher is trained."""
    slots: Literal["auto"] | PositiveInt = "auto"
    """Clients running at once; `auto`: as many as fit."""
    workers: Literal["processes", "threads"] = "processes"
    """What a slot is: a process of its own, or one thread of one process a node, which starts faster and needs less memory; clients
    whose networks have dropout then take turns."""
    deadline_s: Literal["auto"] | PositiveFloat = "auto"
    """Seconds after which a client's work is given up as hung and done again elsewhere; `auto`: twenty times what it took last, ten
    minutes at least, and an hour where it was not timed yet."""


class Scenario(Strict):
    """A federation, the method that runs in it, and how both are judged."""

    name: SafeName
    """What tables and reports call it, and the folder under runs/."""
    description: str = ""
    """A sentence for reports."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Everything that is drawn follows from it: the same seed, the same numbers."""
    classes: Annotated[tuple[Label, ...], Field(min_length=1, max_length=64)]
    """Foreground classes by name, in any script, in the order of the labels 1, 2, ...; 0 is background."""
    repository: Repository
    pools: dict[SafeName, Pool] = {}
    """Sources that several clients share, by name; a client draws on one with `source: {name: pool, pool: NAME}`."""
    proxy: Proxy | None = None
    """For the methods that compare responses on shared images."""
    clients: Annotated[tuple[ClientGroup, ...], Field(min_length=1)]
    """The sites, in groups that are alike."""
    held_out: SiteNames = ()
    """Sites, or groups of sites, that take no part in training and are only tested on: they train and send nothing, and all their
    labelled cases are test cases of the models that the others made. One name or a list of names."""
    student: Student
    """What every site trains, unless its group says otherwise."""
    method: MethodBlock
    """How the sites learn together."""
    training: Training = Training()
    """How every site trains, unless its group says otherwise."""
    federation: Federation = Federation()
    traffic: Traffic = Traffic()
    """Codecs, by direction and kind of payload; absent: everything travels as it is."""
    clock: Clock = Clock()
    privacy: Privacy | None = None
    """Noise that hides single sites, or single patients of a site, in what is uploaded; absent: none."""
    evaluation: Evaluation = Evaluation()
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _threads_share_a_setting(self) -> Scenario:
        own = self.resources
        if own.workers == "threads" and own.threads_teacher != own.threads_per_client:
            rule = "must be resources.threads_per_client where workers are threads, since one process has one setting"
            raise PydanticCustomError("threads", rule, {"at": "resources.threads_teacher"})
        return self

    @model_validator(mode="after")
    def _inherit(self) -> Scenario:
        """A group's `training` and `traffic` state only what differs from the federation's."""
        groups = []
        for group in self.clients:
            if group.training is not None:
                own = {key: getattr(group.training, key) for key in group.training.model_fields_set}
                group = group.model_copy(update={"training": self.training.model_copy(update=own)})
            if group.traffic is not None:
                group = group.model_copy(update={"traffic": own_uploads(self.traffic, group.traffic)})
            groups.append(group)
        object.__setattr__(self, "clients", tuple(groups))  # frozen models are frozen for their users
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        if len(set(self.classes)) != len(self.classes):
            raise PydanticCustomError("classes", "must differ from one another", {"at": "classes"})
        if self.federation.personal_rounds >= self.federation.rounds:
            raise PydanticCustomError(
                "personal_rounds", "must be less than federation.rounds", {"at": "federation.personal_rounds"}
            )
        names = [name for group in self.clients for name in group.site_names()]
        if len(set(names)) != len(names):
            raise PydanticCustomError(
                "groups", "groups must have different names, got {names}", {"names": ", ".join(names), "at": "clients"}
            )
        if unknown := set(self.repository.classes or ()) - set(self.classes):
            raise PydanticCustomError("label_classes", "must be among the scenario's classes", {"at": "repository.classes"})
        _check_held_out(self.held_out, self.clients)
        for index, group in enumerate(self.clients):
            unknown = set(group.labels.classes or ()) - set(self.classes)
            if unknown:
                at = f"clients[{index}].labels.classes"
                raise PydanticCustomError("label_classes", "must be among the scenario's classes", {"at": at})
        return self

    @model_validator(mode="after")
    def _times_are_known(self) -> Scenario:
        training = [member for member in self.members() if not member.held_out]
        num_validation = sum(member.group.num_validation for member in training)
        for path, rule in timing_problems(self.federation, self.clock, len(training), num_validation):
            raise PydanticCustomError("timing", "{rule}", {"rule": rule, "at": path})
        if self.privacy is not None and self.federation.schedule.name == "buffered":
            rule = "must be absent where schedule is buffered: what is spent is reckoned by rounds; choose synchronous or deadline"
            raise PydanticCustomError("privacy", rule, {"at": "privacy"})
        return self

    def members(self) -> tuple[Client, ...]:
        """The clients, numbered from 0 in the order of their groups."""
        named = [(group, name) for group in self.clients for name in group.site_names()]
        return tuple(
            Client(
                client_id=client_id,
                name=name,
                group=group,
                student=group.student or self.student,
                training=group.training or self.training,
                held_out=bool({group.group, name} & set(self.held_out)),
            )
            for client_id, (group, name) in enumerate(named)
        )

    def with_repository_classes(self, classes: Sequence[str]) -> Scenario:
        """The scenario with other classes that the repository outlines."""
        return self.model_copy(update={"repository": self.repository.model_copy(update={"classes": tuple(classes)})})

    def content_hash(self) -> str:
        """SHA-256 (first 16 hex digits) of the resolved scenario: equal for scenarios that mean the same."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_held_out(held_out: Sequence[str], groups: Sequence[ClientGroup]) -> None:
    """Refuses names that no site has, a federation of nobody else, and one that no case is tested on."""
    sites = {name: group for group in groups for name in group.site_names()}
    known = {*sites, *(group.group for group in groups)}
    if unknown := [name for name in held_out if name not in known]:
        rule, hint = "must name sites or groups of the scenario, got {names}; {hint}", did_you_mean(unknown[0], known)
        raise PydanticCustomError("held_out", rule, {"names": ", ".join(unknown), "hint": hint, "at": "held_out"})
    training = [group for name, group in sites.items() if not {name, group.group} & set(held_out)]
    if not training:
        raise PydanticCustomError("held_out", "must leave a site that trains, got all of them", {"at": "held_out"})
    if len(training) == len(sites) and not any(group.num_test for group in training):
        rule = "must be at least 1 at one site, or a site must be in held_out: otherwise no model is ever tested"
        raise PydanticCustomError("num_test", rule, {"at": "clients[0].num_test"})
