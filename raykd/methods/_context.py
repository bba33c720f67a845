"""What a client offers a method during one local update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import nn

from raykd.models._base import SegmentationNetwork
from raykd.numerics.local_sgd import Batch, Hook, LocalResult, Loss
from raykd.numerics.params import Payload

Role = Literal["student", "teacher"]
"""Whose network a model is of."""


@dataclass(frozen=True)
class KnowledgeRequest:
    """What a method wants to know of a teacher about every training case.

    Attributes:
        num_passes: stochastic passes averaged into the soft label, each with fresh input noise and dropout; 0: one clean pass.
        input_noise: standard deviation of the noise on the z-scored input, clipped at twice that.
        layers: named layers whose feature maps are kept, of the clean pass.
        known: the foreground classes that this teacher was taught, ascending; None: all. What it gives to others is background.
    """

    num_passes: int = 8
    input_noise: float = 0.1
    layers: tuple[str, ...] = ()
    known: tuple[int, ...] | None = None


class LocalContext(Protocol):
    """One client during one local update, as a method sees it; for `update_server`, the server with the repository's cases."""

    client_id: int
    """-1 is the server."""
    round_index: int
    num_rounds: int
    num_steps: int
    """Optimiser steps of one local update."""
    num_classes: int
    """With the background."""
    num_labelled: int
    num_unlabelled: int
    is_personal: bool
    """Whether this is a personal round: the download is then the client's own model, and nothing that the method uploads
    travels."""
    annotated: tuple[int, ...] | None
    """Foreground classes that were outlined in one of the site's labelled cases or more; None: all of them in every case. A batch
    says it of every patch."""
    teacher_classes: tuple[int, ...] | None
    """Foreground classes that the repository outlines and its teacher knows; None: all."""
    teacher: Payload
    """The teacher's parameters as handed out, under `teacher/`; empty where the method needs none."""
    handed_out: Payload
    """Whatever else the server sent before the first round: what the method's `hand_out` gave."""

    def fit(
        self,
        start: Payload,
        loss: Loss,
        *,
        role: Role = "student",
        num_unlabelled: int = 0,
        num_steps: int | None = None,
        batches: Iterable[Batch] | None = None,
        trains: Callable[[str], bool] | None = None,
        beside: nn.Module | None = None,
        before_step: Hook | None = None,
        after_step: Hook | None = None,
        purpose: str = "patches",
    ) -> tuple[Payload, LocalResult]:
        """Trains a network from `start` and returns its parameters.

        Args:
            start: parameters under `params/`.
            loss: of the network and a batch.
            role: whose network; the student's, but for methods that train both.
            num_unlabelled: unlabelled patches beside the labelled ones in every step.
            num_steps: None: as many as the scenario says.
            batches: to train on; None: patches of the site's own cases.
            trains: by the name of a parameter (without `params/`), whether it moves; None: all do.
            beside: a module whose parameters are trained too, where the loss uses it: a projection head, an adapter.
            before_step, after_step: as for `local_sgd`.
            purpose: address of the patches; two fits of one update draw different ones under different purposes.
        """

    def network(self, params: Payload, role: Role = "student") -> SegmentationNetwork:
        """A network of its own with these parameters, in evaluation mode and without gradients: to compare with, or to move."""

    def patches(
        self, num_batches: int, *, num_labelled: int = 2, num_unlabelled: int = 0, purpose: str = "look"
    ) -> Iterator[Batch]:
        """Patches of the site's own cases, not augmented: to measure something on, not to train with."""

    def proxy_patches(self, num_batches: int, batch_size: int = 2, *, round_index: int | None = None) -> list[Batch]:
        """Unlabelled patches of the scenario's `proxy` cases: the same at every site and at the server in a round, this one or the
        one that is given; before the first round is -1."""

    def generator(self, purpose: str) -> torch.Generator:
        """A generator at this round's and client's address."""

    def adapt(self, teacher: Payload, num_steps: int) -> Payload:
        """The teacher after `num_steps` supervised steps on the site's labelled cases. Nothing of it leaves the site."""

    def learn_from(self, teacher: Payload, request: KnowledgeRequest) -> None:
        """Attaches the teacher's knowledge of every training case to the batches of this update's `fit`. What a teacher says is
        computed once a (case, version, request), whatever the round."""

    def support_scores(self, model: Payload, role: Role, known: tuple[int, ...] | None = None) -> list[tuple[float, int]]:
        """By foreground class, the sum of a model's DSCs over the site's labelled cases that hold the class, and their number.

        Args:
            known: the foreground classes that the model was taught, as when it is evaluated; None: all.
        """
