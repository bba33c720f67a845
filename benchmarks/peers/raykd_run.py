"""raykd: whole rounds as `raykd run` does them on Ray, with tables and checkpoints on the disk."""

from __future__ import annotations

import functools
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.task import CLASSES, COOL_DOWN, LEARNING_RATE, MOMENTUM, PATCH, Task, Watch
from raykd.data.patches import batches
from raykd.federation.checkpoint import Checkpoints
from raykd.federation.client import Client
from raykd.federation.driver import Driver
from raykd.federation.shelf import Shelf
from raykd.federation.teacher import model_seed
from raykd.models._base import build_network
from raykd.results.writer import RunWriter, create_run_dir
from raykd.runtime.ray_session import run_on_ray
from raykd.scenario.load import scenario_from_dict
from raykd.scenario.registry import METHODS
from raykd.scenario.schema import Scenario


def scenario_of(task: Task) -> Scenario:
    """Sites with two outlined cases as large as a patch, so that every batch holds both whole, and a third to be scored."""
    unet = {"name": "unet", "width": 8}
    source = {"name": "npz", "spacing_mm": [1.0, 1.0, 1.0]}
    data = {
        "name": "side-by-side",
        "classes": CLASSES,
        "repository": {
            "source": source | {"file": "client-0.npz"},
            "num_validation": 1,
            "teacher": {"network": unet, "patch_shape": PATCH},
        },
        "clients": [
            {
                "group": f"site-{client}",
                "source": source | {"file": f"client-{client}.npz"},
                "labels": {"num_shots": 2},
                "num_test": 1,
            }
            for client in range(task.clients)
        ],
        "student": {"network": unet},
        "method": {"name": "fedavg", "weighting": "uniform"},
        "training": {
            "num_local_steps": task.steps,
            "batch_size": 2,
            "patch_shape": PATCH,
            "optimiser": "sgd",
            "learning_rate": LEARNING_RATE,
            "momentum": MOMENTUM,
            "clip_norm": 0.0,
            "foreground": 0.0,
            "augmentation": {"flip": [0.0, 0.0, 0.0]},
        },
        "federation": {"rounds": task.num_rounds},
        "evaluation": {"every": task.num_rounds, "surface_metrics": "never", "previews": 0},
        "resources": {"slots": task.workers, "workers": "threads" if task.use_threads else "processes"},
    }
    return scenario_from_dict(data, task.data).scenario


def prepare(task: Task) -> None:
    """Writes the cases, and what the others need: every client's batch as raykd makes it, and the first weights."""
    rng = np.random.default_rng(0)
    for client in range(task.clients):
        labels = rng.integers(0, len(CLASSES) + 1, size=(3, *PATCH), dtype=np.uint8)
        images = rng.normal(size=(3, *PATCH)).astype(np.float32) + labels
        np.savez(task.data / f"client-{client}.npz", images=images, labels=labels)
    scenario = scenario_of(task)
    method, training = METHODS.get("fedavg")(scenario.method, scenario), scenario.training
    for member in scenario.members():
        own = Client.build(scenario, method, member, task.data, "cpu")
        drawn = batches(
            own.labelled,
            (),
            shape=training.patch_shape,
            augmentation=training.augmentation,
            num_steps=1,
            num_labelled=2,
            num_unlabelled=0,
            foreground=0.0,
            rng=torch.Generator().manual_seed(0),
        )
        batch = next(iter(drawn))
        torch.save((batch.image_BCIJK, batch.label_BIJK), task.data / f"client-{member.client_id}.pt")
    start = build_network(scenario.student.network, len(CLASSES) + 1, model_seed(scenario, "student"))
    torch.save(torch.cat([p.detach().reshape(-1) for p in start.parameters()]), task.data / "start.pt")


def rounds_of(
    scenario: Scenario, root: Path, backend: Any, progress: Any, stop: threading.Event
) -> tuple[float, list[float], torch.Tensor]:
    """A whole run: when its first round began, when every round ended, and the last weights."""
    begins, began = list[float](), list[float]()

    def note(event: str, **values: Any) -> None:
        if event == "round":
            begins.append(time.perf_counter())
            began.append(time.time())

    with tempfile.TemporaryDirectory() as folder:
        common = {"run_id": "benchmark", "scenario": scenario.name, "method": scenario.method.name, "seed": 0}
        writer = RunWriter(create_run_dir(Path(folder) / "run"), common)
        driver = Driver(scenario, root, backend, writer, note, stop, Checkpoints(Shelf(Path(folder) / "run/checkpoints"), writer))
        models = dict(driver.run(driver.prepare()))
        model = next(payload for name, payload in models.items() if name.startswith("global"))
    weights = torch.cat([value.reshape(-1) for value in model.values()])
    return began[0], [*begins[1:], time.perf_counter()], weights


def main() -> None:
    """Prints the line."""
    task, watch = Task.of_arguments(), Watch()
    assert COOL_DOWN, "the end of the last round is not seen apart from the end of the run"
    scenario = scenario_of(task)
    job = functools.partial(rounds_of, scenario, task.data)
    began, ends, weights = run_on_ray(
        job, scenario.resources, task.clients, address="local", progress=lambda event, **values: None, stop=threading.Event()
    )
    watch.starts(began)
    watch.tell(ends, weights)


if __name__ == "__main__":
    main()
