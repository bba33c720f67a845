"""What a method promises, and what a client offers it.

A method is a few functions of payloads: state in, state out, nothing kept on `self` after `__init__`. Where it runs is not its
business.
"""

from __future__ import annotations

import inspect
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from torch import Tensor

from raykd.methods._context import LocalContext
from raykd.models._base import SegmentationNetwork
from raykd.numerics.aggregation import Weighting, aggregation_weights
from raykd.numerics.local_sgd import Batch, LocalResult, Loss
from raykd.numerics.params import Payload, select, weighted_mean
from raykd.numerics.segmentation_losses import dice_ce_loss, over_patches
from raykd.scenario.fields import Strict
from raykd.scenario.schema import Scenario

A = TypeVar("A")
Noise = Literal["none", "upload", "sum"]
"""What of the uploads of a method noise can protect."""


@dataclass(frozen=True)
class Upload:
    """What one client sends after its local update."""

    client_id: int
    payload: Mapping[str, Tensor]
    num_labelled: int
    num_unlabelled: int


@dataclass(frozen=True)
class LocalUpdate:
    """The outcome of one local update: the state that stays at the client, the payload that leaves it, and what happened."""

    state: Payload
    payload: Payload
    result: LocalResult
    notes: dict[str, float] = field(default_factory=dict)
    """Further numbers of the `training` table; names begin with `share_`."""


@dataclass(frozen=True)
class ServerStart:
    """What a server has before the first round.

    Attributes:
        student: initial parameters of the student network; trained on the repository where the method says `is_warm`.
        teacher: the teacher's parameters, filed under `teacher/`; empty where the method needs none.
    """

    student: Payload
    teacher: Payload


def takes_older_updates(aggregate: A) -> A:
    """Marks an `aggregate` that knows clients by a weighted mean of their parameters alone, so that an update may have started from
    an older model: it is moved to the server's own before. Only for methods whose local update takes all steps of the scenario, or
    none. A subclass that aggregates otherwise loses the mark.
    """
    aggregate.takes_older_updates = True  # type: ignore[attr-defined]
    return aggregate


class MethodSettings(Strict):
    """What every method can be told."""

    name: str


class Method(ABC):
    """A federated algorithm. Subclasses are registered with `METHODS.register(name)`, one file each.

    Args:
        settings: the validated `method` block.
        scenario: read only.
    """

    Settings: ClassVar[type[MethodSettings]]
    pools_data: ClassVar[bool] = False
    """Whether one trainer holds every client's data: an upper bound, not a federation."""
    is_trained: ClassVar[bool] = True
    """Whether there are rounds at all."""
    needs_teacher: bool = False
    """Whether every client receives the teacher's parameters before the first round."""
    keeps_teacher: bool = False
    """Whether a teacher is trained that the server keeps for its own work and sends to nobody."""
    hands_out_student: ClassVar[bool] = False
    """Whether a warm student is sent to every client before the first round, because no broadcast brings it."""
    averages: ClassVar[bool] = True
    """Whether students are averaged, so that all must be one network."""
    optimisers: ClassVar[tuple[str, ...]] = ("adam", "sgd")
    """The optimisers that its formulas hold for."""
    kinds: ClassVar[tuple[str, ...]] = ("params",)
    """What travels in a round; anything else that a client or the server would send ends the run."""
    codecs_may_write_params: ClassVar[bool] = True
    """Whether lossy codecs may write its parameters: not where it packs them itself and both sides must hold the same."""
    learns_from_repository: ClassVar[bool] = False
    """Whether the server trains on the repository's labels in the rounds."""
    serves: bool = False
    """Whether the server works on the repository's cases: `start_server` before the first round, `update_server` in each."""
    needs_proxy: bool = False
    """Whether server and clients must share the images of the scenario's `proxy`."""
    noise: Noise = "none"
    """What can be protected by noise: nothing; each `upload`, which then is real numbers alone, in as many as are always sent,
    that may turn out negative; or their `sum` too, because under uniform weighting the server takes their plain mean and nothing
    else of them."""
    has_global_model: bool = True
    """Whether the server has a model that can be used at a site which has not taken part."""
    learns_without_labels: ClassVar[bool] = False
    """Whether sites can learn where none of them has a labelled case, because a teacher or the server has labels."""
    learns_by_gradients_alone: ClassVar[bool] = False
    """Whether what a site uploads follows from the gradients of its labelled patches in `fit` and from nothing else of its data, so
    that clipping and noise in the local steps protect its patients."""
    deployed: ClassVar[str] = "global"
    """The model that a site would use in the end: global, personal or teacher."""

    def __init__(self, settings: Any, scenario: Scenario):
        self.settings = settings
        self.scenario = scenario

    @classmethod
    def facts(cls) -> dict[str, Any]:
        """What a list of methods tells beside the settings: source, what travels in a round, what the method needs."""
        text = inspect.getdoc(sys.modules[cls.__module__]) or ""
        needs = {
            "one network for all clients": cls.averages,
            "a teacher at every client": cls.needs_teacher,
            "labels at the server": cls.learns_from_repository,
            "public images": cls.needs_proxy,
            "SGD": "adam" not in cls.optimisers,
            "all cases in one place": cls.pools_data,
        }
        url = re.search(r"https://[^\s)\]]+[^\s)\].,;]", text)
        return {
            "source": text.splitlines()[0],
            "url": url.group() if url else None,
            "travels": list(cls.kinds),
            "needs": [need for need, is_needed in needs.items() if is_needed],
            "deploys": cls.deployed,
        }

    @property
    def deployed_model(self) -> str:
        """The model that a site uses in the end: `deployed`, or its own where personal rounds follow those that average."""
        has_own = self.deployed == "global" and self.scenario.federation.personal_rounds > 0 and not self.pools_data
        return "personal" if has_own else self.deployed

    @property
    def handed_kinds(self) -> tuple[str, ...]:
        """What travels once, before a client's first round."""
        return ("teacher",) * self.needs_teacher + ("params",) * self.hands_out_student

    @property
    def is_warm(self) -> bool:
        """Whether students start from a model of their own network trained on the repository."""
        return False

    @property
    def can_be_buffered(self) -> bool:
        """Whether an update that started from an older model can be averaged: all that a client sends is an average's part, and
        all that it is sent is the broadcast."""
        is_marked = getattr(type(self).aggregate, "takes_older_updates", False)
        is_plain = type(self).download is Method.download and not (self.serves or self.pools_data)
        return bool(is_marked and is_plain and self.averages)

    def student_network(self) -> Any:
        """The network block that clients train; the scenario's student unless the method says otherwise."""
        return self.scenario.student.network

    def problems(self) -> list[str]:
        """Why this scenario cannot run under this method, one sentence each; empty where it can."""
        name, scenario = self.settings.name, self.scenario
        found: list[str] = []
        if self.averages:
            found += [
                f"method {name} averages parameters, so every client must train the federation's student network; {client.name} "
                "has another one; drop clients[...].student or choose a method that does not average"
                for client in scenario.members()
                if client.student.network != scenario.student.network
            ]
        if wrong := {member.training.optimiser for member in scenario.members()} - set(self.optimisers):
            found.append(
                f"method {name} holds for training.optimiser {' or '.join(self.optimisers)} only, got {', '.join(sorted(wrong))}"
            )
        traffic = [scenario.traffic.down, *((own.group.traffic or scenario.traffic).up for own in scenario.members())]
        if not self.codecs_may_write_params and any(codecs.params for codecs in traffic):
            found.append(f"method {name} packs its parameters itself, so that no codec may write them; drop params from traffic")
        schedule = scenario.federation.schedule.name
        if schedule != "synchronous" and self.pools_data:
            found.append(f"method {name} has one trainer and no links, so federation.schedule must be synchronous, got {schedule}")
        elif schedule == "buffered" and not self.can_be_buffered:
            found.append(
                f"method {name} needs its clients in step: what they send is not averaged alone, so an update that started from an "
                "older model has no meaning; choose federation.schedule synchronous or deadline, or method fedavg or dual_kd"
            )
        labels = [member.group.labels for member in scenario.members() if not member.held_out]
        can_learn = any(own.num_shots or (self.learns_without_labels and own.num_unlabelled != 0) for own in labels)
        if self.is_trained and not can_learn:
            found.append(
                f"method {name} needs a site with labelled cases, got none; give one labels.num_shots, or leave it unlabelled "
                "cases and choose a method whose labels lie with a teacher or the server, as dual_kd, ssfl or semi_fl"
            )
        outside = [member.name for member in scenario.members() if member.held_out]
        if outside and not (self.has_global_model or self.needs_teacher):
            found.append(
                f"method {name} has neither a global model nor a teacher for a site that takes no part, got held_out: "
                f"{', '.join(outside)}; choose a method with a global model, as fedavg, ditto or dual_kd, or leave held_out out"
            )
        if self.needs_proxy and scenario.proxy is None:
            found.append(f"method {name} needs images that server and clients share; add `proxy: {{source: ...}}`")
        return found

    def init_server(self, start: ServerStart) -> Payload:
        """The server's state before the first round."""
        return dict(start.student)

    def start_server(self, context: LocalContext, server: Payload) -> Payload:
        """The server's state after what it does on the repository's cases before the first round. Only where it `serves`."""
        return server

    def hand_out(self, server: Payload) -> Payload:
        """What every client receives once, before the first round, beside a teacher."""
        return {}

    def init_client(self, student: Payload) -> Payload:
        """A client's state before its first round, given the initial student."""
        return {}

    def broadcast(self, server: Payload) -> Payload:
        """What every selected client receives in a round."""
        return select(server, "params")

    def download(self, server: Payload, client_id: int) -> Payload:
        """What one client receives in a round beside what all do; it replaces entries of the broadcast with the same keys."""
        return {}

    @abstractmethod
    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        """One client's work in a round."""

    @abstractmethod
    def aggregate(self, server: Payload, uploads: Sequence[Upload], round_index: int) -> Payload:
        """The server's next state from the uploads, given in client order. They lie on disk and are read one at a time: take what
        is needed of each in passing, and hold whole models of all clients only where the formula asks for it.
        """

    def update_server(self, context: LocalContext, server: Payload, uploads: Sequence[Upload]) -> Payload:
        """The server's state after it has worked on the repository's cases or the proxy's, given the uploads of the round that
        were aggregated into it. Only where it `serves`."""
        return server

    def module(self, network: SegmentationNetwork, model: Payload) -> SegmentationNetwork:
        """What predicts, given a network that has the model's `params/` and all that the model holds besides."""
        return network

    def global_model(self, server: Payload) -> Payload:
        """The model that is evaluated as the federation's, from the server's state; empty where there is none."""
        return select(self.broadcast(server), "params")

    def uploaded_model(self, upload: Payload) -> Payload:
        """The client's model as its upload holds it; empty where it holds none."""
        return select(upload, "params")

    def personal_model(self, state: Mapping[str, Any]) -> Payload | None:
        """The client's own model from its state, where the method keeps one."""
        return None


def supervised_loss(annotated: tuple[int, ...] | None) -> Loss:
    """Half cross-entropy, half Dice on the labelled patches, each with the classes that were outlined in it.

    Args:
        annotated: foreground classes that the site outlines, None for all; what counts where the patches do not say for themselves.
    """
    return lambda model, batch: {"supervised": labelled_loss(model(batch.image_BCIJK), batch, annotated)}


def labelled_loss(logits_BLIJK: Tensor, batch: Batch, annotated: tuple[int, ...] | None) -> Tensor:
    """Half cross-entropy, half Dice of the logits of a batch's labelled patches; `annotated` as for `supervised_loss`."""
    return over_patches(dice_ce_loss, logits_BLIJK[: batch.num_labelled], batch.label_BIJK, batch.outlined(annotated))


def average(uploads: Sequence[Upload], weighting: Weighting) -> Payload:
    """The weighted mean of the uploaded parameters, summed in client order."""
    weights = aggregation_weights(
        weighting, [upload.num_labelled for upload in uploads], [upload.num_unlabelled for upload in uploads]
    )
    return weighted_mean((select(upload.payload, "params") for upload in uploads), weights)
