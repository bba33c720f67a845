"""What a method promises, and what a client offers it.

A method is a few functions of payloads: state in, state out, nothing kept on `self` after `__init__`. Where it runs is not its
business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from torch import nn

from raykd.numerics.aggregation import Weighting, aggregation_weights
from raykd.numerics.local_sgd import Batch, LocalResult, Loss
from raykd.numerics.params import Payload, select, weighted_mean
from raykd.numerics.segmentation_losses import dice_ce_loss
from raykd.scenario.fields import Strict
from raykd.scenario.schema import Scenario

Role = Literal["student", "teacher"]
"""Whose network a model is of."""


@dataclass(frozen=True)
class KnowledgeRequest:
    """What a method wants to know of a teacher about every training case.

    Attributes:
        num_passes: stochastic passes averaged into the soft label, each with fresh input noise and dropout; 0: one clean pass.
        input_noise: standard deviation of the noise on the z-scored input, clipped at twice that.
        layers: named layers whose feature maps are kept, of the clean pass.
    """

    num_passes: int = 8
    input_noise: float = 0.1
    layers: tuple[str, ...] = ()


class LocalContext(Protocol):
    """One client during one local update, as a method sees it."""

    client_id: int
    round_index: int
    num_rounds: int
    num_classes: int
    num_labelled: int
    num_unlabelled: int
    annotated: tuple[int, ...] | None
    """Foreground classes that the site outlines; None: all."""
    teacher: Payload
    """The teacher's parameters as handed out, under `teacher/`; empty where the method needs none."""

    def fit(self, start: Payload, loss: Loss, *, num_unlabelled: int = 0) -> tuple[Payload, LocalResult]:
        """Trains the student from `start` by the scenario's local steps, each with `num_unlabelled` unlabelled patches beside
        the labelled ones, and returns its parameters."""

    def adapt(self, teacher: Payload, num_steps: int) -> Payload:
        """The teacher after `num_steps` supervised steps on the site's labelled cases. Nothing of it leaves the site."""

    def learn_from(self, teacher: Payload, request: KnowledgeRequest) -> None:
        """Attaches the teacher's knowledge of every training case to the batches of this update's `fit`. What a teacher says is
        computed once a (case, version, request), whatever the round."""

    def support_scores(self, model: Payload, role: Role) -> list[tuple[float, int]]:
        """By foreground class, the sum of a model's DSCs over the site's labelled cases that hold the class, and their number."""


@dataclass(frozen=True)
class Upload:
    """What one client sends after its local update."""

    client_id: int
    payload: Payload
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
    needs_teacher: ClassVar[bool] = False
    """Whether every client receives the teacher's parameters before the first round."""
    hands_out_student: ClassVar[bool] = False
    """Whether a warm student is sent to every client before the first round, because no broadcast brings it."""
    deployed: ClassVar[str] = "global"
    """The model that a site would use in the end: global, personal or teacher."""

    def __init__(self, settings: Any, scenario: Scenario):
        self.settings = settings
        self.scenario = scenario

    @property
    def is_warm(self) -> bool:
        """Whether students start from a model of their own network trained on the repository."""
        return False

    def student_network(self) -> Any:
        """The network block that clients train; the scenario's student unless the method says otherwise."""
        return self.scenario.student.network

    def problems(self) -> list[str]:
        """Why this scenario cannot run under this method, one sentence each; empty where it can."""
        return []

    def init_server(self, start: ServerStart) -> Payload:
        """The server's state before the first round."""
        return dict(start.student)

    def init_client(self, student: Payload) -> Payload:
        """A client's state before its first round, given the initial student."""
        return {}

    def broadcast(self, server: Payload) -> Payload:
        """What every selected client receives in a round."""
        return select(server, "params")

    @abstractmethod
    def local_update(self, context: LocalContext, state: Payload, download: Payload) -> LocalUpdate:
        """One client's work in a round."""

    @abstractmethod
    def aggregate(self, server: Payload, uploads: Sequence[Upload]) -> Payload:
        """The server's next state from the uploads, given in client order."""

    def personal_model(self, state: Mapping[str, Any]) -> Payload | None:
        """The client's own model from its state, where the method keeps one."""
        return None


def supervised_loss(annotated: tuple[int, ...] | None) -> Loss:
    """Half cross-entropy, half Dice on the labelled patches."""

    def loss(model: nn.Module, batch: Batch) -> dict[str, Any]:
        return {"supervised": dice_ce_loss(model(batch.image_BCIJK), batch.label_BIJK, annotated)}

    return loss


def average(uploads: Sequence[Upload], weighting: Weighting) -> Payload:
    """The weighted mean of the uploaded parameters, summed in client order."""
    weights = aggregation_weights(
        weighting, [upload.num_labelled for upload in uploads], [upload.num_unlabelled for upload in uploads]
    )
    return weighted_mean([select(upload.payload, "params") for upload in uploads], weights)
