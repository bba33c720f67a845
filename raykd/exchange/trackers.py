"""Experiment trackers: each takes a run's settings and points, after the fact or while the run goes on."""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from raykd.exchange.curves import Point
from raykd.scenario.errors import RaykdError

MAX_MLFLOW_VALUE = 500
"""Characters that every MLflow store takes for a parameter."""


class Tracker(Protocol):
    """Where the curves of one run go."""

    place: str
    """What to tell its viewer."""

    def add(self, points: Iterable[Point]) -> None:
        """Takes points, each once."""

    def end(self, status: str) -> None:
        """Takes the run's status, and closes."""


INSTALLS = {"tensorboard": "tensorboard>=2.18", "mlflow": "mlflow-skinny>=3", "wandb": "wandb>=0.19"}
"""What each tracker is to be installed as, by itself; the same as raykd's extra of that name."""


def _package(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        how = f"pip install '{INSTALLS[extra]}', or raykd with its extra, pip install 'raykd[{extra}]'"
        raise RaykdError(f"--to {extra} needs a package that is not installed ({error}); {how}") from None


class TensorBoard:
    """Event files of one run; those of an earlier export are replaced."""

    def __init__(self, folder: Path, run_id: str, settings: Mapping[str, str]):
        _package("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        for old in (folder / run_id).glob("events.out.tfevents.*.raykd"):
            old.unlink()
        self.place = f"tensorboard --logdir {folder}"
        self._writer = SummaryWriter(str(folder / run_id), filename_suffix=".raykd")
        self._writer.add_text("settings", "\n".join(f"    {key}: {value}" for key, value in settings.items()), 0)

    def add(self, points: Iterable[Point]) -> None:
        for point in points:
            self._writer.add_scalar(point.tag, point.value, point.step)
        self._writer.flush()

    def end(self, status: str) -> None:
        self._writer.add_text("status", status, 0)
        self._writer.close()


class MLflow:
    """A run in the experiment named after the scenario, at `MLFLOW_TRACKING_URI` or else in files of its own. A run of the same
    run_id is replaced."""

    def __init__(self, folder: Path, run_id: str, settings: Mapping[str, str]):
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            uri = folder.absolute().as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        mlflow = _package("mlflow", "mlflow")
        entities = _package("mlflow.entities", "mlflow")
        self._client, self._metric = mlflow.MlflowClient(tracking_uri=uri), entities.Metric
        self.place = f"mlflow ui --backend-store-uri {uri}"
        if importlib.util.find_spec("flask") is None:  # MLflow's server is built on it
            self.place += " (after pip install mlflow: what is installed here is its client alone)"
        name = f"raykd/{settings.get('name', 'run')}"
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        for old in self._client.search_runs([experiment], f"tags.`raykd.run_id` = '{run_id}'"):
            self._client.delete_run(old.info.run_id)
        run = self._client.create_run(experiment, run_name=run_id, tags={"raykd.run_id": run_id})
        self._run = run.info.run_id
        params = [entities.Param(_mlflow_name(key), value[:MAX_MLFLOW_VALUE]) for key, value in settings.items()]
        for first in range(0, len(params), 100):
            self._client.log_batch(self._run, params=params[first : first + 100])

    def add(self, points: Iterable[Point]) -> None:
        now_ms = int(time.time() * 1000)
        metrics = [self._metric(_mlflow_name(point.tag), point.value, now_ms, point.step) for point in points]
        for first in range(0, len(metrics), 1000):
            self._client.log_batch(self._run, metrics=metrics[first : first + 1000])

    def end(self, status: str) -> None:
        words = {"done": "FINISHED", "failed": "FAILED"}
        self._client.set_terminated(self._run, words.get(status, "KILLED"))


def _mlflow_name(tag: str) -> str:
    """The tag in the characters that MLflow allows."""
    return "".join(character if character.isalnum() or character in "_-. /" else "_" for character in tag)


class WandB:
    """A run in the project named after the scenario: offline, for `wandb sync`, unless `WANDB_MODE` says online."""

    def __init__(self, folder: Path, run_id: str, settings: Mapping[str, str]):
        wandb = _package("wandb", "wandb")
        folder.mkdir(parents=True, exist_ok=True)
        mode = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=f"raykd-{settings.get('name', 'run')}", name=run_id, id=run_id, dir=str(folder), mode=mode,
            config=dict(settings), settings=wandb.Settings(silent=True, console="off"), reinit="create_new",
        )  # fmt: skip
        self.place = f"wandb sync {folder}/wandb/offline-run-*" if mode == "offline" else str(self._run.url)
        for pattern, step in (("repository/*", "optimiser_step"), ("*", "round")):
            self._run.define_metric(pattern, step_metric=step)

    def add(self, points: Iterable[Point]) -> None:
        rows: dict[tuple[str, int], dict[str, float]] = {}
        for point in points:
            clock = "optimiser_step" if point.tag.startswith("repository/") else "round"
            rows.setdefault((clock, point.step), {})[point.tag] = point.value
        for (clock, step), values in sorted(rows.items()):
            self._run.log({clock: step, **values})

    def end(self, status: str) -> None:
        self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status == "done" else 1)


TRACKERS: dict[str, type[TensorBoard] | type[MLflow] | type[WandB]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
