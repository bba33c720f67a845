"""One site: its data, its student, its local work. A plain class that knows neither Ray nor the other sites."""

from __future__ import annotations

import functools
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from raykd.data.case import Case
from raykd.data.federation import ClientData, build_client_data
from raykd.data.patches import TrainingCase, batches, normalise, training_case
from raykd.federation.evaluation import case_rows, support_scores
from raykd.federation.inference import predict_labels
from raykd.federation.knowledge import cached_knowledge, compute_knowledge, payload_hash
from raykd.federation.previews import preview_rows
from raykd.federation.protocols import EvaluationJob, EvaluationReply, LocalJob, LocalReply, Row
from raykd.federation.teacher import model_seed
from raykd.federation.transport import seal, unseal
from raykd.methods._base import KnowledgeRequest, LocalUpdate, Method, Role, supervised_loss
from raykd.models._base import SegmentationNetwork, build_network
from raykd.numerics.local_sgd import LocalResult, Loss, Schedule, build_optimiser, local_sgd
from raykd.numerics.params import Payload, is_finite, load_state, rename, state_of
from raykd.numerics.rng import generator, seeded_layers
from raykd.scenario.schema import Scenario
from raykd.scenario.sites import Client as Member

POOLED = -2
"""The client id of the one trainer that holds everybody's data, under a method that pools them."""


def describe_scanner(member: Member) -> str:
    """A site's acquisition in a few words."""
    scanner = member.group.scanner
    protocol = getattr(member.group.source, "protocol", member.group.source.name)
    strengths = {
        "noise": scanner.noise,
        "bias": scanner.bias_field,
        "blur mm": scanner.blur_mm,
        "motion": scanner.motion,
        "ghosting": scanner.ghosting,
    }
    parts = [str(protocol), *(f"{name} {value:g}" for name, value in strengths.items() if value)]
    if scanner.gamma != (1.0, 1.0):
        parts.append(f"gamma {scanner.gamma[0]:g} to {scanner.gamma[1]:g}")
    return ", ".join(parts)


def describe_network(settings: Any) -> str:
    """A network in a few words: its name and, where it has one, its width."""
    width = getattr(settings, "width", None)
    return settings.name if width is None else f"{settings.name} {width}"


class Client:
    """A site of the federation, or the pooled trainer.

    Args:
        scenario, method: what runs.
        member: the site.
        data: what it holds.
        device: where its networks run.
        steps_factor: local steps are multiplied by this; 1 but for the pooled trainer.
    """

    def __init__(
        self, scenario: Scenario, method: Method, member: Member, data: ClientData, *, device: str = "cpu", steps_factor: int = 1
    ):
        self.scenario = scenario
        self.device = device
        self.method = method
        self.member = member
        self.data = data
        self.num_steps = member.training.num_local_steps * steps_factor
        self.labelled = [training_case(case) for case in data.labelled]
        self.unlabelled = [training_case(case) for case in data.unlabelled]
        own = member.group.student
        self.student = self._network(own.network if own else method.student_network())
        self._teacher: SegmentationNetwork | None = None
        self._heard: dict[tuple[str, KnowledgeRequest], list[TrainingCase]] = {}
        self._normalised: dict[str, Tensor] = {}
        self.known_scores: dict[tuple[str, Role], list[tuple[float, int]]] = {}

    @classmethod
    def build(cls, scenario: Scenario, method: Method, member: Member, root: Path, device: str) -> Client:
        """The client with its data prepared. Raises `DataError`."""
        return cls(scenario, method, member, build_client_data(scenario, member, root), device=device)

    @classmethod
    def pooled(cls, scenario: Scenario, method: Method, root: Path, device: str) -> Client:
        """One trainer with the labelled and unlabelled cases of all clients, and as many steps as all take together."""
        members = scenario.members()
        parts = [build_client_data(scenario, member, root) for member in members]
        data = ClientData(tuple(c for p in parts for c in p.labelled), tuple(c for p in parts for c in p.unlabelled), (), ())
        member = members[0].model_copy(update={"client_id": POOLED, "name": "pooled"})
        return cls(scenario, method, member, data, device=device, steps_factor=len(members))

    def describe(self) -> Row:
        """Its row of the `clients` table."""
        group, spacing = self.member.group, self.data.spacing_mm
        row: Row = {
            "client_id": self.member.client_id,
            "client_name": self.member.name,
            "group": group.group,
            **{f"spacing_{axis}_mm": value for axis, value in zip("ijk", spacing, strict=True)},
            "scanner": describe_scanner(self.member),
            "label_classes": ", ".join(group.labels.classes or self.scenario.classes),
            "num_labelled": len(self.data.labelled),
            "num_unlabelled": len(self.data.unlabelled),
            "num_validation": len(self.data.validation),
            "num_test": len(self.data.test),
            "num_previews": min(self.scenario.evaluation.previews, len(self.data.test)),
            "network": describe_network(self.student.settings),
            "num_params": sum(p.numel() for p in self.student.parameters()),
            "link_up_mbps": group.link.up_mbps,
            "link_down_mbps": group.link.down_mbps,
            "link_latency_ms": group.link.latency_ms,
            "compute_factor": group.compute_factor,
        }
        return row

    def local_update(self, job: LocalJob, download: Payload, teacher: Payload) -> LocalReply:
        """One round's work: the method's local update, timed, its result checked for finite numbers."""
        start = time.perf_counter()
        update = self.method.local_update(_Session(self, job.round_index, teacher), unseal(job.state), download)
        train_s = time.perf_counter() - start
        training: Row = {
            "round": job.round_index,
            "client_id": self.member.client_id,
            "num_steps": update.result.num_steps,
            "loss_total": sum(update.result.terms.values()) if update.result.terms else None,
            **{f"loss_{name}": value for name, value in update.result.terms.items()},
            **update.notes,
            "train_s": train_s,
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        flaw = _flaw(update)
        payload, state = (update.payload, seal(update.state)) if flaw is None else ({}, job.state)
        events = () if flaw is None else ({"round": job.round_index, "client_id": self.member.client_id, **flaw},)
        return LocalReply(self.member.client_id, state, seal(payload), len(self.labelled), len(self.unlabelled), training, events)

    def evaluate(self, job: EvaluationJob, models: Mapping[str, Payload]) -> EvaluationReply:
        """Scores every model, by role, on the site's validation and test cases."""
        cases: list[Row] = []
        previews: list[Row] = []
        predictions: dict[str, dict[str, Any]] = {}
        for role, params in models.items():
            network = self.load("teacher" if role == "teacher" else "student", params)
            for split, held in (("validation", self.data.validation), ("test", self.data.test)):
                for case in held:
                    predicted = predict_labels(network, self._image(case))
                    predictions.setdefault(case.case_id, {})[role] = predicted
                    cases += case_rows(
                        self.scenario,
                        case,
                        predicted,
                        split=split,
                        model=role,
                        round_index=job.round_index,
                        client_id=self.member.client_id,
                        has_surface=job.has_surface,
                    )
        for case in self.data.test[: job.num_previews]:
            previews += preview_rows(case, predictions[case.case_id], round_index=job.round_index, client_id=self.member.client_id)
        return EvaluationReply(self.member.client_id, tuple(cases), tuple(previews))

    def with_knowledge(self, teacher: Payload, request: KnowledgeRequest, *, is_original: bool) -> list[TrainingCase]:
        """The site's training cases with what this teacher says of them, labelled first, then unlabelled.

        Only what the teacher says that was handed out is kept on disk; one that changed at the site speaks for this run alone.
        """
        key = (payload_hash(teacher), request)
        if key not in self._heard:
            network = self.load("teacher", teacher)
            learn = cached_knowledge if is_original else compute_knowledge
            said = functools.partial(learn, network, request=request, seed=self.scenario.seed, version=key[0])
            self._heard = {key: [case.with_knowledge(said(case)) for case in self.labelled + self.unlabelled]}
        return self._heard[key]

    def predict(self, role: Role, payload: Payload, image_IJK: Tensor) -> Tensor:
        """The classes that a model gives to a volume."""
        return predict_labels(self.load(role, payload), image_IJK)

    def _network(self, settings: Any) -> SegmentationNetwork:
        return build_network(settings, len(self.scenario.classes) + 1, model_seed(self.scenario, "student")).to(self.device)

    def load(self, role: Role, payload: Payload) -> SegmentationNetwork:
        """The network of a role with these parameters."""
        if role == "student":
            load_state(self.student, payload)
            return self.student
        if self._teacher is None:
            self._teacher = self._network(self.scenario.repository.teacher.network)
        load_state(self._teacher, rename(payload, "teacher", "params"))
        return self._teacher

    def _image(self, case: Case) -> Tensor:
        if case.case_id not in self._normalised:
            self._normalised[case.case_id] = normalise(case.image_CIJK)
        return self._normalised[case.case_id]


def _flaw(update: LocalUpdate) -> Row | None:
    """Why an update is left out of its round, as kind and detail of an event; None: it counts."""
    if not (is_finite(update.payload) and is_finite(update.state)):
        return {"kind": "excluded", "detail": "its parameters held NaN or infinity"}
    if update.result.num_steps == 0:
        return {"kind": "idle", "detail": "it holds nothing that this method learns from"}
    return None


class _Session:
    """One local update of one client: the `LocalContext` that a method sees."""

    def __init__(self, client: Client, round_index: int, teacher: Payload):
        self._client = client
        self.teacher = teacher
        self.client_id = client.member.client_id
        self.round_index = round_index
        self.num_rounds = client.scenario.federation.rounds
        self.num_classes = len(client.scenario.classes) + 1
        self.num_labelled = len(client.labelled)
        self.num_unlabelled = len(client.unlabelled)
        names = client.member.group.labels.classes
        self.annotated = tuple(sorted(client.scenario.classes.index(name) + 1 for name in names)) if names else None
        self._cases = client.labelled + client.unlabelled

    def fit(self, start: Payload, loss: Loss, *, num_unlabelled: int = 0) -> tuple[Payload, LocalResult]:
        client, training = self._client, self._client.member.training
        total = self.num_rounds * client.num_steps
        schedule = Schedule(training.learning_rate, training.schedule, total, self.round_index * client.num_steps)
        network = client.load("student", start)
        result = self._train(network, loss, schedule, client.num_steps, num_unlabelled, "patches")
        return state_of(network), result

    def adapt(self, teacher: Payload, num_steps: int) -> Payload:
        schedule = Schedule(self._client.member.training.learning_rate, "cosine", num_steps)
        network = self._client.load("teacher", teacher)
        self._train(network, supervised_loss(self.annotated), schedule, num_steps, 0, "adaptation-patches")
        return state_of(network, "teacher")

    def _train(
        self, network: SegmentationNetwork, loss: Loss, schedule: Schedule, num_steps: int, num_unlabelled: int, purpose: str
    ) -> LocalResult:
        """The scenario's training settings applied to a network, with patches drawn at this round's and client's address."""
        client, training = self._client, self._client.member.training
        if not self.num_labelled and not (self.num_unlabelled and num_unlabelled):
            return LocalResult(0, {})
        drawn = batches(
            self._cases[: self.num_labelled],
            self._cases[self.num_labelled :],
            shape=training.patch_shape,
            augmentation=training.augmentation,
            num_steps=num_steps,
            num_labelled=training.batch_size,
            num_unlabelled=num_unlabelled,
            foreground=training.foreground,
            rng=generator(client.scenario.seed, purpose, self.round_index, self.client_id),
        )
        optimiser = build_optimiser(
            network.parameters(),
            training.optimiser,
            training.learning_rate,
            weight_decay=training.weight_decay,
            momentum=training.momentum,
        )
        on_device = (batch.to(client.device) for batch in drawn)
        with seeded_layers(generator(client.scenario.seed, f"{purpose}-layers", self.round_index, self.client_id), client.device):
            return local_sgd(network, on_device, loss, optimiser, schedule, clip_norm=training.clip_norm)

    def learn_from(self, teacher: Payload, request: KnowledgeRequest) -> None:
        self._cases = self._client.with_knowledge(teacher, request, is_original=teacher is self.teacher)

    def support_scores(self, model: Payload, role: Role) -> list[tuple[float, int]]:
        client, key = self._client, (payload_hash(model), role)
        if key in client.known_scores:
            return client.known_scores[key]
        pairs = [
            (client.predict(role, model, case.image_IJK), case.label_IJK) for case in client.labelled if case.label_IJK is not None
        ]
        scores = support_scores(pairs, self.num_classes - 1)
        if role == "teacher":  # a student is another one in every round
            client.known_scores = {key: scores}
        return scores
