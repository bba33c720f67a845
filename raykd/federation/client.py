"""One site: its data, its student, its local work. A plain class that knows neither Ray nor the other sites."""

from __future__ import annotations

import functools
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raykd.data.case import Case
from raykd.data.federation import ClientData, build_client_data, build_proxy_data, build_repository_data, client_site
from raykd.data.native import NativeReferences
from raykd.data.patches import TrainingCase, normalise, training_case
from raykd.data.pools import Pools
from raykd.data.sources._base import CaseKey
from raykd.federation.coding import seal_upload
from raykd.federation.description import client_row, describe_network, label_classes, record_rows
from raykd.federation.evaluation import calibration_rows, case_rows, native_scores
from raykd.federation.inference import predict, predict_labels
from raykd.federation.knowledge import cached_knowledge, compute_knowledge, payload_hash
from raykd.federation.previews import preview_rows, previewed
from raykd.federation.privacy import protected_upload, protects_uploads, records_row
from raykd.federation.protocols import EvaluationJob, EvaluationReply, LocalJob, LocalReply, Row
from raykd.federation.segmenter import site_reading
from raykd.federation.session import Session
from raykd.federation.teacher import model_seed
from raykd.federation.transport import Envelope, seal, unseal
from raykd.methods._base import LocalUpdate, Method, Upload
from raykd.methods._context import KnowledgeRequest, Role
from raykd.models._base import SegmentationNetwork, build_network
from raykd.numerics.params import MEMORY, Payload, is_finite, load_state, select
from raykd.scenario.schema import Scenario
from raykd.scenario.sites import Client as Member
from raykd.scenario.sites import Labels, num_training

Networks = dict[tuple[Any, ...], SegmentationNetwork]
"""By settings, the networks that the clients of a worker take turns with."""
SERVER = -1
"""The client id of the server, at work on the repository's cases."""
POOLED = -2
"""The client id of the one trainer that holds everybody's data, under a method that pools them."""


class Client:
    """A site of the federation, the pooled trainer, or the server at work on the repository's cases.

    Args:
        scenario, method: what runs.
        member: the site.
        data: what it holds.
        device: where its networks run.
        proxy: public images, where the method shares some.
        steps_factor: local steps are multiplied by this; 1 but for the pooled trainer.
        original: gives a case of the site as its source has it, before any shift; None: unknown.
        networks: built before, for clients that work one after the other; those that are missing are added. None: its own.
    """

    def __init__(
        self,
        scenario: Scenario,
        method: Method,
        member: Member,
        data: ClientData,
        *,
        device: str = "cpu",
        proxy: tuple[Case, ...] = (),
        steps_factor: int = 1,
        original: Callable[[Case], Case] | None = None,
        networks: Networks | None = None,
    ):
        self.scenario = scenario
        self.device = device
        self.method = method
        self.member = member
        self.data = data
        self.proxy = proxy
        self._original = original
        self.annotated = label_classes(scenario, member, data.labelled)
        self.num_steps = member.training.num_local_steps * steps_factor
        self.labelled = [training_case(case) for case in data.labelled]
        self.unlabelled = [training_case(case) for case in data.unlabelled]
        self._networks = {} if networks is None else networks
        own = member.group.student
        self.student = self._shared(own.network if own else method.student_network())
        self._heard: dict[tuple[str, KnowledgeRequest], list[TrainingCase]] = {}
        self._normalised: dict[str, Tensor] = {}
        self._natives = NativeReferences(original if scenario.evaluation.native_grid else None)
        self.known_scores: dict[tuple[str, Role, tuple[int, ...] | None], list[tuple[float, int]]] = {}

    @classmethod
    def build(
        cls,
        scenario: Scenario,
        method: Method,
        member: Member,
        root: Path,
        device: str,
        networks: Networks | None = None,
        pools: Pools | None = None,
    ) -> Client:
        """The client with its data prepared; clients may share networks and what opens their sources. Raises `DataError`."""
        data = build_client_data(scenario, member, root, pools)

        def original(case: Case) -> Case:
            return client_site(scenario, member, root, pools).source.load(CaseKey(case.case_id, case.patient_id))

        proxy = _proxy(scenario, method, root)
        return cls(scenario, method, member, data, device=device, proxy=proxy, original=original, networks=networks)

    @classmethod
    def server(cls, scenario: Scenario, method: Method, root: Path, device: str) -> Client:
        """The server, for which the repository's cases are its own."""
        repository, first = build_repository_data(scenario, root), scenario.members()[0]
        group = first.group.model_copy(update={"student": None, "labels": Labels(classes=scenario.repository.classes)})
        own = {"client_id": SERVER, "name": "server", "group": group, "training": scenario.training}
        data = ClientData(repository.train, (), (), ())
        return cls(scenario, method, first.model_copy(update=own), data, device=device, proxy=_proxy(scenario, method, root))

    @classmethod
    def pooled(cls, scenario: Scenario, method: Method, root: Path, device: str) -> Client:
        """One trainer with the labelled and unlabelled cases of all clients, and as many steps as all take together."""
        members, pools = scenario.members(), Pools(scenario, root)
        parts = [build_client_data(scenario, member, root, pools) for member in members]
        data = ClientData(tuple(c for p in parts for c in p.labelled), tuple(c for p in parts for c in p.unlabelled), (), ())
        # Sites may outline different classes: every patch then says which, and the trainer itself has none in common.
        group = members[0].group.model_copy(update={"labels": Labels()})
        member = members[0].model_copy(update={"client_id": POOLED, "name": "pooled", "group": group})
        return cls(scenario, method, member, data, device=device, steps_factor=num_training(members))

    def describe(self) -> Row:
        """Its row of the `clients` table."""
        return {
            **client_row(self.scenario, self.member, self.data),
            "network": describe_network(self.student.settings),
            "num_params": sum(p.numel() for p in self.student.parameters()),
        }

    def local_update(self, job: LocalJob, download: Payload, handed_out: Payload) -> LocalReply:
        """One round's work: the method's local update, timed, its result checked for finite numbers."""
        start = time.perf_counter()
        session, kept = Session(self, job.round_index, handed_out), unseal(job.state)
        memory = select(kept, MEMORY)
        update = self.method.local_update(session, {key: kept[key] for key in kept.keys() - memory.keys()}, download)
        train_s = time.perf_counter() - start
        training: Row = {
            "round": job.round_index,
            "client_id": self.member.client_id,
            "num_steps": update.result.num_steps,
            "num_steps_taken": max(session.num_steps_taken, update.result.num_steps),
            "flops": session.num_flops,
            "loss_total": sum(update.result.terms.values()) if update.result.terms else None,
            **{f"loss_{name}": value for name, value in update.result.terms.items()},
            **update.notes,
            "train_s": train_s,
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        flaw = _flaw(update)
        payload, spent = self._protected(session, {} if flaw else update.payload, download)
        sealed = ({}, job.state, 0.0) if flaw else self._sealed(payload, update.state, session, download, memory)
        upload, state, training["coding_s"] = sealed
        events = () if flaw is None else ({"round": job.round_index, "client_id": self.member.client_id, **flaw},)
        counts = len(self.labelled), len(self.unlabelled)
        return LocalReply(self.member.client_id, state, upload, *counts, training, events, spent)

    def _protected(self, session: Session, payload: Payload, download: Payload) -> tuple[Payload, tuple[Row, ...]]:
        """What leaves the site of a payload, and what was spent of its privacy; in a personal round nothing leaves."""
        rows = (
            [records_row(self.member.training, self.data.labelled, session.num_private_steps)] if session.num_private_steps else []
        )
        words = protects_uploads(self.scenario)
        if words and payload and not session.is_personal:
            payload, row = protected_upload(self.scenario, words, payload, download, (session.round_index, session.client_id))
            rows.append(row)
        return payload, tuple(rows)

    def _sealed(
        self, payload: Payload, state: Payload, session: Session, download: Payload, memory: Payload
    ) -> tuple[Envelope, Envelope, float]:
        """An upload and a state as bytes, and the seconds that the upload took; codecs write what crosses a link, and keep
        what they lost in the state.
        """
        if self.method.pools_data or session.is_personal:
            return seal(payload), seal(state | memory), 0.0
        start = time.perf_counter()
        upload, kept = seal_upload(self.scenario, self.member, session.round_index, payload, download, memory)
        coding_s = time.perf_counter() - start
        return upload, seal(state | kept), coding_s

    def update_server(self, round_index: int, server: Payload, uploads: Sequence[Upload]) -> Payload:
        """The server's next state after its own work in a round; in round -1, before the first one."""
        session = Session(self, round_index, {})
        if round_index < 0:
            return self.method.start_server(session, server)
        return self.method.update_server(session, server, uploads)

    def evaluate(self, job: EvaluationJob, models: Mapping[str, Payload]) -> EvaluationReply:
        """Scores every model, by role, on the site's validation and test cases."""
        cases, calibration, previews = list[Row](), list[Row](), list[Row]()
        predictions: dict[str, dict[str, Any]] = {}
        client_id = self.member.client_id
        for role, params in models.items():
            network = self.load("teacher" if role == "teacher" else "student", params)
            how = site_reading(self.scenario, self.member, "teacher" if role == "teacher" else "student")
            if role != "teacher":
                network = self.method.module(network, params)
            for split, held in (("validation", self.data.validation), ("test", self.data.test)):
                for case in held:
                    said = predict(network, self._image(case), how.window, how.known)
                    predictions.setdefault(case.case_id, {})[role] = said.labels_IJK
                    of: dict[str, Any] = {"split": split, "model": role, "round_index": job.round_index, "client_id": client_id}
                    native = native_scores(self.scenario, said, self._natives.of(case, split), has_surface=job.has_surface)
                    cases += case_rows(self.scenario, case, said.labels_IJK, has_surface=job.has_surface, native=native, **of)
                    calibration += calibration_rows(case, said, **of) if job.has_calibration else []
        for case in previewed(self.data.test, cases, job.num_previews):
            source = None if self._original is None else self._original(case)
            drawn = predictions[case.case_id]
            previews += preview_rows(case, drawn, round_index=job.round_index, client_id=client_id, source=source)
        records = record_rows(client_id, vars(self.data)) if job.has_records else []
        return EvaluationReply(client_id, tuple(cases), tuple(previews), tuple(records), tuple(calibration))

    def with_knowledge(self, teacher: Payload, request: KnowledgeRequest, *, is_original: bool) -> list[TrainingCase]:
        """The site's training cases with what this teacher says of them, labelled first, then unlabelled.

        Only what the teacher says that was handed out is kept on disk; one that changed at the site speaks for this run alone.
        """
        key = (payload_hash(teacher), request)
        if key not in self._heard:
            network = self.load("teacher", teacher)
            learn = cached_knowledge if is_original else compute_knowledge
            window = site_reading(self.scenario, self.member, "teacher").window
            said = functools.partial(learn, network, request=request, seed=self.scenario.seed, version=key[0], window=window)
            self._heard = {key: [case.with_knowledge(said(case)) for case in self.labelled + self.unlabelled]}
        return self._heard[key]

    def predict(self, role: Role, payload: Payload, image_IJK: Tensor, known: Sequence[int] | None = None) -> Tensor:
        """The classes that a model gives to a normalised volume, as when it is evaluated; `known`: those that it was taught."""
        how = site_reading(self.scenario, self.member, role)
        return predict_labels(self.load(role, payload), image_IJK, how.window, known)

    def _network(self, settings: Any) -> SegmentationNetwork:
        training = self.member.training
        network = build_network(settings, len(self.scenario.classes) + 1, model_seed(self.scenario, "student")).to(self.device)
        if training.memory_format == "channels_last_3d":
            torch.nn.utils.convert_conv3d_weight_memory_format(network, torch.channels_last_3d)
        if training.compile:
            network.compile()
        return network

    def _shared(self, settings: Any) -> SegmentationNetwork:
        key = (settings, self.member.training.memory_format, self.member.training.compile)
        if key not in self._networks:
            self._networks[key] = self._network(settings)
        return self._networks[key]

    @property
    def num_bytes(self) -> int:
        """Of the cases that it holds in memory, and of what a teacher says of them."""
        cases = [*self.labelled, *self.unlabelled, *(case for heard in self._heard.values() for case in heard)]
        tensors = [tensor for case in cases for tensor in vars(case).values() if isinstance(tensor, Tensor)]
        soft = [case.knowledge.soft_label_LIJK for case in cases if case.knowledge is not None]
        return sum({id(t): t.nbytes for t in [*tensors, *soft, *self._normalised.values(), *self._natives.tensors]}.values())

    def fresh_network(self, role: Role) -> SegmentationNetwork:
        """A new network of a role."""
        return self._network(self.student.settings if role == "student" else self.scenario.repository.teacher.network)

    def network_of(self, role: Role) -> SegmentationNetwork:
        """The network of a role, whose parameters are whatever was done with it last."""
        return self.student if role == "student" else self._shared(self.scenario.repository.teacher.network)

    def load(self, role: Role, payload: Payload) -> SegmentationNetwork:
        """The network of a role with these parameters, a teacher's under `teacher/`."""
        network = self.network_of(role)
        load_state(network, payload, "params" if role == "student" else "teacher")
        return network

    def _image(self, case: Case) -> Tensor:
        if case.case_id not in self._normalised:
            self._normalised[case.case_id] = normalise(case.image_CIJK)
        return self._normalised[case.case_id]


def _proxy(scenario: Scenario, method: Method, root: Path) -> tuple[Case, ...]:
    return build_proxy_data(scenario, root) if method.needs_proxy else ()


def _flaw(update: LocalUpdate) -> Row | None:
    """Why an update is left out of its round, as kind and detail of an event; None: it counts."""
    if not (is_finite(update.payload) and is_finite(update.state)):
        return {"kind": "excluded", "detail": "its parameters held NaN or infinity"}
    if update.result.num_steps == 0:
        return {"kind": "idle", "detail": "it holds nothing that this method learns from"}
    return None
