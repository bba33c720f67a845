"""Training on the repository: the teacher, and any other network that a method wants to start from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raykd.data.cache import cached, content_key
from raykd.data.federation import RepositoryData, build_repository_data, repository_site, repository_split
from raykd.data.patches import batches, training_case
from raykd.data.references import union
from raykd.methods._base import supervised_loss
from raykd.models._base import build_network
from raykd.numerics.local_sgd import Schedule, build_optimiser, local_sgd
from raykd.numerics.params import Payload, state_of
from raykd.numerics.rng import generator, seeded_layers
from raykd.scenario.errors import DataError
from raykd.scenario.schema import Scenario

CURVE_POINTS = 50
"""Points of the training curve that are kept."""


@dataclass(frozen=True)
class RepositoryModel:
    """A model trained on the repository.

    Attributes:
        params: under `params/`.
        curve: rows (step, loss) of its training.
        train_s: seconds that the training took when it was done, on whatever machine that was.
    """

    params: Payload
    curve: tuple[tuple[int, float], ...]
    train_s: float


def model_seed(scenario: Scenario, role: str) -> int:
    """The seed of a network's initial parameters: one a role, not one a client, so that students start alike."""
    return generator(scenario.seed, "initial-parameters", role).initial_seed()


def taught_classes(scenario: Scenario) -> tuple[int, ...] | None:
    """The foreground classes that the repository outlines, ascending; None: all."""
    names = scenario.repository.classes
    return None if names is None else tuple(sorted(scenario.classes.index(name) + 1 for name in names))


def with_taught_classes(scenario: Scenario, root: Path) -> Scenario:
    """The scenario whose `repository.classes` leaves out what none of the repository's training cases was outlined for, known from
    names and settings alone: nobody can be taught it there. Raises `DataError`."""
    site, names = repository_site(scenario, root), scenario.repository.classes or scenario.classes
    split = repository_split(scenario, site)
    outlined = union((site.source.outlined(key) for key in split.labelled + split.unlabelled), len(scenario.classes))
    taught = tuple(
        name for i, name in enumerate(scenario.classes, start=1) if name in names and (outlined is None or i in outlined)
    )
    if not taught:
        raise DataError(
            f"repository: its training cases must be outlined for one of {', '.join(names)}, got none; "
            "map its labels in label_values, or list other classes in repository.classes"
        )
    return scenario if set(taught) == set(names) else scenario.with_repository_classes(taught)


def repository_model(
    scenario: Scenario, network: Any, root: Path, device: str = "cpu", on_step: Callable[[int, float], None] | None = None
) -> RepositoryModel:
    """The network trained on the repository's cases at their own resolution, with the augmentation that lets it serve other
    grids and contrasts; read from the cache where the same one was trained before. Where the repository outlines some of the
    classes, background there means "none of these", and what the network says of the others means nothing.

    Args:
        scenario: gives repository, classes, seed and threads.
        network: the network block to train; the teacher's, or a student's for a warm start.
        root: folder of the scenario file.
        device: where it is trained.
        on_step: told the number of each finished step and its loss.
    """

    def compute() -> tuple[Payload, dict[str, Any]]:
        model = train_model(scenario, network, build_repository_data(scenario, root), device, on_step)
        return model.params, {"curve": list(model.curve), "train_s": model.train_s}

    params, values = cached("teachers", model_key(scenario, network, root, device), compute)
    return RepositoryModel(params, tuple((int(step), float(loss)) for step, loss in values["curve"]), values["train_s"])


def model_key(scenario: Scenario, network: Any, root: Path, device: str = "cpu") -> str:
    """The trained network's key in the cache; arguments as for `repository_model`."""
    repository = scenario.repository
    source = repository_site(scenario, root).source
    return content_key(
        classes=scenario.classes,
        source=source.fingerprint(),
        repository=repository.model_dump(mode="json", exclude={"teacher": {"network"}, "source": True}),
        network=network.model_dump(mode="json"),
        seed=scenario.seed,
        threads=scenario.resources.threads_teacher,
        torch=torch.__version__,
        device=device,
    )


def train_model(
    scenario: Scenario, network: Any, data: RepositoryData, device: str, on_step: Callable[[int, float], None] | None
) -> RepositoryModel:
    settings = scenario.repository.teacher
    model = build_network(network, len(scenario.classes) + 1, model_seed(scenario, "repository")).to(device)
    losses: list[float] = []

    def note(step: int, terms: dict[str, float]) -> None:
        losses.append(sum(terms.values()))
        if on_step is not None:
            on_step(step, losses[-1])

    start = time.perf_counter()
    drawn = batches(
        [training_case(case) for case in data.train],
        [],
        shape=settings.patch_shape,
        augmentation=settings.augmentation,
        num_steps=settings.num_steps,
        num_labelled=settings.batch_size,
        num_unlabelled=0,
        foreground=0.75,
        rng=generator(scenario.seed, "repository-patches"),
    )
    optimiser = build_optimiser(model.parameters(), "adam", settings.learning_rate)
    schedule = Schedule(settings.learning_rate, "cosine", settings.num_steps)
    on_device = (batch.to(device) for batch in drawn)
    with seeded_layers(generator(scenario.seed, "repository-layers"), device):
        local_sgd(model, on_device, supervised_loss(taught_classes(scenario)), optimiser, schedule, clip_norm=10.0, on_step=note)
    return RepositoryModel(state_of(model), _curve(losses), time.perf_counter() - start)


def _curve(losses: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """Means of the loss over consecutive stretches of steps, at the last step of each."""
    size = max(1, len(losses) // CURVE_POINTS)
    return tuple((end, sum(losses[end - size : end]) / size) for end in range(size, len(losses) + 1, size))
