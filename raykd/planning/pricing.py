"""What a unit of each client's work costs on this machine: real cases of a site, the real network and loss, a few timed steps."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raykd.data.case import Case
from raykd.data.federation import ClientData, RepositoryData, Site
from raykd.data.patches import TrainingCase, training_case
from raykd.data.sources._base import CaseKey
from raykd.federation.client import Client
from raykd.federation.evaluation import calibration_rows, nsd_tolerance_mm
from raykd.federation.inference import Prediction, predict_labels
from raykd.federation.protocols import ServerJob
from raykd.federation.segmenter import repository_reading, site_reading
from raykd.federation.teacher import train_model
from raykd.methods._context import Role
from raykd.models._base import build_network
from raykd.numerics.local_sgd import LocalResult
from raykd.numerics.metrics import evaluate_case
from raykd.numerics.params import Payload
from raykd.planning.rehearsal import Rehearsal, StandInWorker, Task, num_passes
from raykd.scenario.schema import Scenario
from raykd.scenario.sites import Client as Member

NUM_TIMED = 4
"""Steps that are timed, after one that is not."""
PATIENCE_S = 1.0
"""Of a step that takes longer than this, warming up included, one is timed."""
BY_VOLUME = ("listen", "predict", "score")
"""Tasks whose price grows with a case's voxels."""


@dataclass
class Prices:
    """Costs of one kind of client.

    Attributes:
        seconds: of one unit, by task.
        voxels: of the case that those by volume were measured on.
        bytes_training: that a training case takes in memory, by voxel, with what a teacher says of it.
        bytes_held: that a validation or test case takes, by voxel.
    """

    voxels: int
    seconds: dict[Task, float] = field(default_factory=dict)
    bytes_training: float = 0.0
    bytes_held: float = 0.0

    def of(self, task: Task, voxels: int) -> float:
        """Seconds of one unit for a client whose cases have so many voxels; 0 for what could not be measured."""
        return self.seconds.get(task, 0.0) * (voxels / self.voxels if task[0] in BY_VOLUME else 1.0)


@dataclass(frozen=True)
class RepositoryPrices:
    """Costs of training one network on the repository.

    Attributes:
        step_s: seconds of a step.
        judge_s: seconds of the evaluation of one held-out case.
        case_bytes: memory of a training case.
    """

    step_s: float
    judge_s: float
    case_bytes: int


def price(
    scenario: Scenario, root: Path, rehearsal: Rehearsal, kind: Hashable, client_id: int, case: Case, has: tuple[bool, bool]
) -> Prices:
    """Does the first job that holds each task once more, with real training, and times it.

    Args:
        scenario, root, rehearsal: what was rehearsed.
        kind: of client, as in the rehearsal.
        client_id: one of that kind.
        case: one of its cases, prepared, with a label.
        has: whether it holds labelled training cases, and whether unlabelled ones.
    """
    prices = Prices(voxels=case.image_CIJK[0].numel())
    worker = PricingWorker(case, prices, has)
    worker.open(scenario, root)
    if rehearsal.handed_out:
        worker.receive(rehearsal.handed_out)
    tasks = {task: job for (of_kind, task), job in rehearsal.firsts.items() if of_kind == kind}
    for job, download in {id(job[0]): job for job in tasks.values()}.values():
        if isinstance(job, ServerJob):
            worker.update_server(job)
        else:
            worker.local_update(job, download)
    worker.price_evaluation(client_id)
    return prices


class PricingWorker(StandInWorker):
    """Clients that hold one real case each, and sessions that time what they do.

    Args:
        case: the real one, which stands for all.
        prices: where the times go.
        has: whether a client holds labelled training cases, and whether unlabelled ones.
    """

    def __init__(self, case: Case, prices: Prices, has: tuple[bool, bool]):
        super().__init__(lambda event, **values: None)
        self._case, self._prices, self._has = case, prices, has

    def data_of(self, client_id: int, member: Member) -> tuple[Member, ClientData]:
        bare = replace(self._case, label_IJK=None)
        return member, ClientData((self._case,) * self._has[0], (bare,) * self._has[1], (), (self._case,))

    def direct(self, session: Any, client: Client) -> Any:
        return TimedSession(session, client, self._prices)

    def price_evaluation(self, client_id: int) -> None:
        """Times the prediction of the case by both networks, and the scores of a prediction that is a voxel off."""
        client, case, prices = self._client(client_id), self._case, self._prices
        training = training_case(case)
        image = training.image_IJK
        roles: tuple[Role, ...] = ("student", "teacher")
        for role in roles:
            how = site_reading(self._scenario, client.member, role)
            predict = functools.partial(predict_labels, client.network_of(role), image, how.window, how.known)
            prices.seconds["predict", role] = per_unit(_times(predict))
        for has_surface in (False, True):
            judge = functools.partial(score, self._scenario, case, has_surface=has_surface)
            prices.seconds["score", has_surface] = per_unit(_times(judge))
        prices.seconds["calibrate",] = per_unit(_times(functools.partial(calibrate, case, len(self._scenario.classes) + 1)))
        prices.bytes_held = memory_of([*_tensors_of_case(case), image]) / prices.voxels
        if not prices.bytes_training:
            prices.bytes_training = memory_of(_tensors_of_training(case, training)) / prices.voxels


class TimedSession:
    """A client's session that times what it is asked for, a few steps at most."""

    def __init__(self, session: Any, client: Client, prices: Prices):
        self._session, self._client, self._prices = session, client, prices

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def fit(self, start: Payload, loss: Any, **options: Any) -> tuple[Payload, LocalResult]:
        if options.get("batches") is not None:  # they can be drawn once only
            begin = time.perf_counter()
            result: tuple[Payload, LocalResult] = self._session.fit(start, loss, **options)
            seconds = (time.perf_counter() - begin) / max(1, result[1].num_steps)
        else:
            results: list[tuple[Payload, LocalResult]] = []
            seconds = per_unit(
                lambda num_steps: results.append(self._session.fit(start, loss, **{**options, "num_steps": num_steps}))
            )
            result = results[-1]
        self._prices.seconds["fit", options.get("role", "student")] = seconds
        return result

    def adapt(self, teacher: Payload, num_steps: int) -> Payload:
        adapted: list[Payload] = []
        self._prices.seconds[("adapt",)] = per_unit(lambda n: adapted.append(self._session.adapt(teacher, min(n, num_steps))))
        return adapted[-1]

    def learn_from(self, teacher: Payload, request: Any) -> None:
        small = replace(request, num_passes=min(2, request.num_passes))
        copy = dict(teacher)  # so that an untrained teacher's words are not kept on disk
        begin = time.perf_counter()
        self._session.learn_from(copy, small)
        seconds = time.perf_counter() - begin
        cases = self._client.with_knowledge(copy, small, is_original=False)
        self._prices.seconds["listen", request] = seconds / (num_passes(small) * len(cases))
        self._prices.bytes_training = memory_of(_tensors_of_training(self._client.data.test[0], cases[0])) / self._prices.voxels

    def support_scores(self, model: Payload, role: str, known: tuple[int, ...] | None = None) -> list[tuple[float, int]]:
        return [(0.5, 1)] * (self.num_classes - 1)


def per_unit(run: Callable[[int], Any]) -> float:
    """Seconds of one unit, given what does so many of them; the first is for warming up, and tells how many can be afforded."""
    begin = time.perf_counter()
    run(1)
    count = NUM_TIMED if time.perf_counter() - begin < PATIENCE_S else 1
    begin = time.perf_counter()
    run(count)
    return (time.perf_counter() - begin) / count


def _times(action: Callable[[], Any]) -> Callable[[int], None]:
    """What does an action so many times."""

    def repeat(count: int) -> None:
        for _ in range(count):
            action()

    return repeat


def price_preparing(site: Site, key: CaseKey) -> tuple[Case, float]:
    """A prepared case and the seconds that it took, which are few where it was in the cache."""
    begin = time.perf_counter()
    case = site.prepare(key)
    return case, time.perf_counter() - begin


def price_repository(scenario: Scenario, network: Any, case: Case) -> RepositoryPrices:
    """Times training on the repository.

    Args:
        network: the block of the network.
        case: one of the repository's cases, prepared.
    """
    teacher = scenario.repository.teacher
    torch.set_num_threads(scenario.resources.threads_teacher)

    def train(num_steps: int) -> None:
        short = scenario.repository.model_copy(update={"teacher": teacher.model_copy(update={"num_steps": num_steps})})
        data = RepositoryData(train=(case,), validation=())
        train_model(scenario.model_copy(update={"repository": short}), network, data, "cpu", None)

    step_s, how = per_unit(train), repository_reading(scenario)
    model, training = build_network(network, len(scenario.classes) + 1, 0), training_case(case)
    predict_s = per_unit(_times(functools.partial(predict_labels, model, training.image_IJK, how.window, how.known)))
    score_s = per_unit(_times(functools.partial(score, scenario, case, has_surface=True)))
    torch.set_num_threads(scenario.resources.threads_per_client)
    return RepositoryPrices(step_s, predict_s + score_s, memory_of(_tensors_of_training(case, training)))


def score(scenario: Scenario, case: Case, *, has_surface: bool) -> None:
    """Scores a prediction that is the label, a voxel off: an untrained network's would have surfaces everywhere."""
    assert case.label_IJK is not None
    evaluate_case(
        case.label_IJK.roll(1, dims=1).numpy(),
        case.label_IJK.numpy(),
        len(scenario.classes),
        case.spacing_mm,
        surface=has_surface,
        nsd_tolerance_mm=nsd_tolerance_mm(scenario, case.spacing_mm),
    )


def calibrate(case: Case, num_classes: int) -> None:
    """Counts how sure a model is of the voxels near the structures that knows nothing."""
    logits = torch.zeros((num_classes, *case.image_CIJK.shape[1:]))
    calibration_rows(case, Prediction(logits, None), split="", model="", round_index=0, client_id=0)


def memory_of(tensors: Iterable[Tensor | None]) -> int:
    """Bytes of the distinct storages behind tensors."""
    storages = [tensor.untyped_storage() for tensor in tensors if tensor is not None]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _tensors_of_case(case: Case) -> list[Tensor | None]:
    return [case.image_CIJK, case.label_IJK]


def _tensors_of_training(case: Case, training: TrainingCase) -> list[Tensor | None]:
    known = training.knowledge
    said = [] if known is None else [known.soft_label_LIJK, known.entropy_IJK, *known.features.values()]
    return [*_tensors_of_case(case), training.image_IJK, training.sample, *training.foreground.values(), *said]
