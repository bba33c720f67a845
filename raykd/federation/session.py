"""One local update of one client: the `LocalContext` that a method sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import nn

from raykd.data.patches import batches, training_case
from raykd.federation.evaluation import support_scores
from raykd.federation.knowledge import payload_hash
from raykd.federation.private_training import patients, poisson_batches, private_gradients
from raykd.federation.teacher import taught_classes
from raykd.methods._base import supervised_loss
from raykd.methods._context import KnowledgeRequest, Role
from raykd.models._base import SegmentationNetwork, draws_masks
from raykd.numerics.flops import CountedGradients
from raykd.numerics.local_sgd import Batch, Gradients, Hook, LocalResult, Loss, Schedule, build_optimiser, in_bfloat16, local_sgd
from raykd.numerics.params import Payload, load_state, select, state_of
from raykd.numerics.rng import generator, seeded_layers
from raykd.scenario.errors import RaykdError
from raykd.scenario.training import Augmentation

if TYPE_CHECKING:
    from raykd.federation.client import Client

AS_THEY_ARE = Augmentation(flip=(0.0, 0.0, 0.0))
"""No augmentation."""


class Session:
    """A client in one round.

    Args:
        client: whose data and networks are used.
        round_index: of every random address.
        handed_out: what the server sent before the first round, the teacher included.
    """

    def __init__(self, client: Client, round_index: int, handed_out: Payload):
        self._client = client
        self.handed_out = handed_out
        self.teacher = select(handed_out, "teacher")
        self.client_id = client.member.client_id
        self.round_index = round_index
        self.num_rounds = client.scenario.federation.rounds
        self.num_steps, self.num_steps_taken = client.num_steps, 0
        self.num_classes = len(client.scenario.classes) + 1
        self.num_labelled = len(client.labelled)
        self.num_unlabelled = len(client.unlabelled)
        federation = client.scenario.federation
        self.is_personal = not client.method.pools_data and round_index >= federation.rounds - federation.personal_rounds
        self.annotated = client.annotated
        self.teacher_classes = taught_classes(client.scenario)
        self._cases = client.labelled + client.unlabelled
        privacy = client.scenario.privacy
        self._private = privacy.records if privacy and self.client_id >= 0 else None
        self.num_private_steps = 0
        self.num_flops: int | None = 0
        """Of the steps taken; None: some could not be counted, as those of a compiled network."""

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
        training, wanted = self._client.member.training, self.num_steps if num_steps is None else num_steps
        if num_unlabelled or batches is not None:
            self._refuse_private("trains on more than labelled patches")
        drawn = self._training_patches(wanted, num_unlabelled, purpose) if batches is None else batches
        schedule = Schedule(
            training.learning_rate, training.schedule, self.num_rounds * self.num_steps, self.round_index * self.num_steps
        )
        network = self._client.network_of(role)
        load_state(network, start)
        hooks = {"before_step": before_step, "after_step": after_step}
        result = self._train(network, drawn, loss, schedule, purpose, trains=trains, beside=beside, **hooks)
        return state_of(network), result

    def adapt(self, teacher: Payload, num_steps: int) -> Payload:
        self._refuse_private("adapts a teacher")
        schedule = Schedule(self._client.member.training.learning_rate, "cosine", num_steps)
        network = self._client.load("teacher", teacher)
        drawn = self._training_patches(num_steps, 0, "adaptation-patches")
        self._train(network, drawn, supervised_loss(self.annotated), schedule, "adaptation-patches")
        return state_of(network, "teacher")

    def _train(
        self,
        network: SegmentationNetwork,
        drawn: Iterable[Batch],
        loss: Loss,
        schedule: Schedule,
        purpose: str,
        *,
        trains: Callable[[str], bool] | None = None,
        beside: nn.Module | None = None,
        before_step: Hook | None = None,
        after_step: Hook | None = None,
    ) -> LocalResult:
        """The scenario's training settings applied to a network."""
        client, training = self._client, self._client.member.training
        moving = [parameter for name, parameter in network.named_parameters() if trains is None or trains(name)]
        moving += [] if beside is None else list(beside.to(client.device).parameters())
        optimiser = build_optimiser(
            moving,
            training.optimiser,
            training.learning_rate,
            weight_decay=training.weight_decay,
            momentum=training.momentum,
        )
        on_device = (batch.to(client.device) for batch in drawn)
        gradients = self._private_gradients(optimiser, purpose) if self._private else None
        counted = None if training.compile else CountedGradients(gradients)
        if training.precision == "bf16":
            loss = in_bfloat16(loss, client.device)
        rng = generator(client.scenario.seed, f"{purpose}-layers", self.round_index, self.client_id)
        draws = draws_masks(network) or (beside is not None and draws_masks(beside))
        with seeded_layers(rng, client.device) if draws else nullcontext():
            result = local_sgd(
                network,
                on_device,
                loss,
                optimiser,
                schedule,
                clip_norm=training.clip_norm,
                gradients=counted or gradients,
                before_step=before_step,
                after_step=after_step,
            )
        self.num_steps_taken += result.num_steps
        of_steps = counted.num_flops if counted else None
        self.num_flops = None if self.num_flops is None or of_steps is None else self.num_flops + of_steps
        self.num_private_steps += result.num_steps if gradients else 0
        return result

    def _private_gradients(self, optimiser: torch.optim.Optimizer, purpose: str) -> Gradients | None:
        """Clipped and noised gradients in the place of plain ones; None where there is nothing to learn from."""
        client, groups = self._client, patients(self._client.data.labelled)
        if self._private is None or not groups:
            return None
        rng = generator(client.scenario.seed, f"{purpose}-privacy", self.round_index, self.client_id)
        return private_gradients(optimiser, self._private, len(groups), client.member.training.batch_size, rng)

    def _refuse_private(self, what: str) -> None:
        """Raises `RaykdError` where noise on gradients is meant to protect patients and a method uses their cases otherwise."""
        if self._private:
            name = self._client.scenario.method.name
            raise RaykdError(f"privacy.records protects gradients of labelled patches alone, and method {name} {what}")

    def _training_patches(self, num_steps: int, num_unlabelled: int, purpose: str) -> Iterator[Batch]:
        """Patches drawn at this round's and client's address with the scenario's augmentation; none where there is nothing."""
        training = self._client.member.training
        if self._private:
            return poisson_batches(
                [[self._cases[index] for index in own] for own in patients(self._client.data.labelled)],
                batch_size=training.batch_size,
                shape=training.patch_shape,
                augmentation=training.augmentation,
                num_steps=num_steps,
                foreground=training.foreground,
                rng=generator(self._client.scenario.seed, purpose, self.round_index, self.client_id),
            )
        return self._draw(num_steps, training.batch_size, num_unlabelled, training.augmentation, purpose)

    def patches(
        self, num_batches: int, *, num_labelled: int = 2, num_unlabelled: int = 0, purpose: str = "look"
    ) -> Iterator[Batch]:
        self._refuse_private("looks at patches besides")
        drawn = self._draw(num_batches, num_labelled, num_unlabelled, AS_THEY_ARE, purpose)
        return (batch.to(self._client.device) for batch in drawn)

    def _draw(
        self, num_batches: int, num_labelled: int, num_unlabelled: int, augmentation: Augmentation, purpose: str
    ) -> Iterator[Batch]:
        if not (self.num_labelled and num_labelled) and not (self.num_unlabelled and num_unlabelled):
            return iter(())
        training = self._client.member.training
        return batches(
            self._cases[: self.num_labelled],
            self._cases[self.num_labelled :],
            shape=training.patch_shape,
            augmentation=augmentation,
            num_steps=num_batches,
            num_labelled=num_labelled,
            num_unlabelled=num_unlabelled,
            foreground=training.foreground,
            rng=generator(self._client.scenario.seed, purpose, self.round_index, self.client_id),
        )

    def proxy_patches(self, num_batches: int, batch_size: int = 2, *, round_index: int | None = None) -> list[Batch]:
        if not self._client.proxy:
            raise RaykdError("this method needs images that server and clients share; add a `proxy` block to the scenario")
        drawn = batches(
            (),
            [training_case(case) for case in self._client.proxy],
            shape=self._client.scenario.training.patch_shape,
            augmentation=AS_THEY_ARE,
            num_steps=num_batches,
            num_labelled=0,
            num_unlabelled=batch_size,
            foreground=0.0,
            rng=generator(self._client.scenario.seed, "proxy", self.round_index if round_index is None else round_index),
        )
        return [batch.to(self._client.device) for batch in drawn]

    def network(self, params: Payload, role: Role = "student") -> SegmentationNetwork:
        network = self._client.fresh_network(role)
        load_state(network, params)
        return network.eval().requires_grad_(False)

    def generator(self, purpose: str) -> torch.Generator:
        return generator(self._client.scenario.seed, purpose, self.round_index, self.client_id)

    def learn_from(self, teacher: Payload, request: KnowledgeRequest) -> None:
        self._cases = self._client.with_knowledge(teacher, request, is_original=teacher is self.teacher)

    def support_scores(self, model: Payload, role: Role, known: tuple[int, ...] | None = None) -> list[tuple[float, int]]:
        self._refuse_private("scores models on labelled cases")
        client, key = self._client, (payload_hash(model), role, known)
        if key in client.known_scores:
            return client.known_scores[key]
        pairs = [
            (client.predict(role, model, case.image_IJK, known), case.label_IJK)
            for case in client.labelled
            if case.label_IJK is not None
        ]
        scores = support_scores(pairs, self.num_classes - 1)
        if role == "teacher":  # a student is another one in every round
            client.known_scores = {key: scores}
        return scores
