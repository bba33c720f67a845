"""The tiny federation that the tests of the whole run, where they run it, and what they look at afterwards."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="1")
os.environ |= {"RAY_worker_niceness": "0"}  # at Ray's own 15 its workers would wait for whatever else is tested on the same cores
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("COLUMNS", None)  # what is printed into a pipe is fitted to no width

ROOT = Path(__file__).parent.parent
FIELD_OF_VIEW_MM = (100, 100, 100)
QUICK = {"adapt_steps": 2, "num_passes": 2, "num_server_steps": 4}
"""Defaults of methods that would take most of the time of a tiny run."""
SAFETENSORS_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Which tests one of several processes keeps together: those of one Ray cluster, of one method's runs, else of one file."""
    from xdist.scheduler import LoadScopeScheduling

    class ByWhatIsShared(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            if file.endswith(("test_parity.py", "test_ray_backend.py", "test_infeasible.py")):
                return "ray"
            is_of_methods = file.endswith(("test_contract.py", "test_resume.py", "test_boundary.py")) and test.endswith("]")
            return f"method {test[test.rindex('[') + 1 : -1]}" if is_of_methods else file

    return ByWhatIsShared(config, log)


@dataclass(frozen=True)
class Outcome:
    """A finished run: its directory, and what two runs of one scenario must agree in."""

    path: Path

    @property
    def run(self) -> Any:
        from raykd.results.reader import open_run

        return open_run(self.path)

    def table(self, name: str) -> Any:
        """A table without what is measured and without the run's name."""
        from raykd.results.schema import measured_columns

        return self.run.table(name).drop(columns=[*measured_columns(name), "run_id"])

    @property
    def models(self) -> dict[str, bytes]:
        """The bytes of the final models by file name."""
        return {file.name: file.read_bytes() for file in sorted((self.path / "models").iterdir())}

    def tensors(self, name: str) -> dict[str, Any]:
        """One final model as arrays."""
        return read_safetensors((self.path / "models" / f"{name}.safetensors").read_bytes())


@dataclass
class Recording:
    """What went through the backend's seam in one run."""

    scenario: Any
    outcome: Outcome
    rounds: list[tuple[list[Any], Any, list[Any]]] = field(default_factory=list)
    """Jobs, download and replies of every round."""
    teacher: Any = None
    """What was handed out before the first round."""
    clients: list[int] = field(default_factory=list)
    """Those that were evaluated, and so stand behind a link."""

    @property
    def jobs(self) -> list[Any]:
        return [job for jobs, _, _ in self.rounds for job in jobs]

    @property
    def replies(self) -> list[Any]:
        return [reply for _, _, replies in self.rounds for reply in replies]


def read_safetensors(blob: bytes) -> dict[str, Any]:
    """The arrays of a safetensors file, read by its published format and not by its library."""
    import numpy as np

    (size,) = struct.unpack("<Q", blob[:8])
    header, data = json.loads(blob[8 : 8 + size]), blob[8 + size :]
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        arrays[name] = np.frombuffer(data[start:end], SAFETENSORS_TYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this session alone, which Ray's workers see too because the cluster inherits the environment."""
    before, folder = os.environ.get("RAYKD_CACHE"), tmp_path_factory.mktemp("cache")
    os.environ["RAYKD_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["RAYKD_CACHE"]
    else:
        os.environ["RAYKD_CACHE"] = before


@pytest.fixture(scope="session")
def ray_cluster(cache: Path) -> Iterator[None]:
    """One cluster for the session: two CPUs and two logical GPUs."""
    import raykd.runtime  # noqa: F401, I001 (sets what Ray reads when it is imported)
    import ray

    folder = tempfile.mkdtemp(prefix="rk", dir="/tmp")  # the path of a socket has at most 107 bytes
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 * 2**20,
        _temp_dir=folder,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def _tiny() -> dict[str, Any]:
    import yaml

    data: dict[str, Any] = yaml.safe_load((ROOT / "scenarios/smoke.yaml").read_text())
    data["repository"]["source"].update(num_cases=2, field_of_view_mm=list(FIELD_OF_VIEW_MM))
    data["repository"]["teacher"].update(network={"name": "unet", "width": 8}, num_steps=4, patch_shape=[8, 32, 32])
    for group in data["clients"]:
        group["source"].update(num_cases=3, field_of_view_mm=list(FIELD_OF_VIEW_MM))
        group["num_test"] = 1
    data["proxy"] = {
        "source": {"name": "phantom", "num_cases": 2, "field_of_view_mm": list(FIELD_OF_VIEW_MM)},
        "spacing_mm": [3.0, 2.0, 2.0],
    }
    data["training"] = {"num_local_steps": 2, "batch_size": 2, "patch_shape": [8, 32, 32]}
    data["evaluation"] = {**data.get("evaluation", {}), "previews": 0}
    return {**data, "name": "tiny"}


@pytest.fixture
def tiny() -> dict[str, Any]:
    """The tiny scenario as plain data: three sites of three cases (one labelled, one not, one test), two rounds of two steps."""
    return _tiny()


@pytest.fixture(scope="session")
def load() -> Callable[..., Any]:
    """The tiny scenario with `key=value` overrides, validated; slow defaults of its method are shortened."""

    def load(*overrides: str) -> Any:
        from raykd.scenario.load import scenario_from_dict
        from raykd.scenario.registry import METHODS

        scenario = scenario_from_dict(_tiny(), ROOT, overrides).scenario
        quick = {
            key: value
            for key, value in QUICK.items()
            if key in type(scenario.method).model_fields.keys() - scenario.method.model_fields_set
        }
        method, training = scenario.method.model_copy(update=quick), scenario.training
        if training.optimiser not in (allowed := METHODS.get(method.name).optimisers):
            training = training.model_copy(update={"optimiser": allowed[0]})
        return scenario.model_copy(update={"method": method, "training": training})

    return load


@pytest.fixture(scope="session")
def record(load: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Recording]:
    """Runs the tiny scenario with overrides in this process and gives what went through the seam; the same again is not run again.

    `fresh`: run anew, with an empty cache; `again`: run anew with a second cache, shared by all who ask, and with the clients of
    every round in the opposite order.
    """
    known: dict[tuple[str, ...], Recording] = {}
    second = tmp_path_factory.mktemp("second-cache")

    def anew(overrides: tuple[str, ...], cache: Path, *, is_reversed: bool = False) -> Recording:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAYKD_CACHE", str(cache))
            return _record(load(*overrides), tmp_path_factory.mktemp("run") / "run", is_reversed=is_reversed)

    def record(*overrides: str, fresh: bool = False, again: bool = False) -> Recording:
        if again:
            if ("again", *overrides) not in known:
                known["again", *overrides] = anew(overrides, second, is_reversed=True)
            return known["again", *overrides]
        if fresh:
            return anew(overrides, tmp_path_factory.mktemp("fresh"))
        if overrides not in known:
            known[overrides] = _record(load(*overrides), tmp_path_factory.mktemp("run") / "run")
        return known[overrides]

    return record


def _record(scenario: Any, folder: Path, *, is_reversed: bool = False) -> Recording:
    from raykd.execution import run_plans
    from raykd.launch import Plan, check_plans
    from raykd.runtime.in_process import InProcessBackend

    recording = Recording(scenario, Outcome(folder))

    class Recorder(InProcessBackend):
        def local_updates(self, jobs: Any, download: Any) -> Any:
            # Last client first: what a client does must not depend on who was before it.
            kept = list(jobs)
            replies = list(super().local_updates(jobs[::-1] if is_reversed else jobs, download))
            recording.rounds.append((kept, download, sorted(replies, key=lambda reply: reply.client_id)))
            return iter(replies)

        def hand_out(self, teacher: Any) -> None:
            recording.teacher = teacher
            super().hand_out(teacher)

        def evaluate(self, jobs: Any, shared: Any) -> Any:
            recording.clients = list(jobs.client_ids)
            return super().evaluate(jobs, shared)

    def silent(event: str, **values: Any) -> None:
        pass

    plan = Plan(folder, scenario.method.name, scenario, ROOT)
    check_plans([plan])
    run_plans([plan], Recorder(silent), silent, threading.Event())
    return recording


@pytest.fixture(scope="session")
def run(record: Callable[..., Recording]) -> Callable[..., Outcome]:
    """Runs the tiny scenario with overrides in this process and gives its tables and models."""
    return lambda *overrides, fresh=False: record(*overrides, fresh=fresh).outcome


@pytest.fixture(scope="session")
def tensors_in() -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The arrays in an envelope by key, read without raykd's own code."""

    def tensors_in(envelope: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for blob in envelope.values() for key, value in read_safetensors(blob.tobytes()).items()}

    return tensors_in


@pytest.fixture(scope="session")
def outcome_at() -> Callable[[Path], Outcome]:
    """The outcome in a directory that something else wrote."""
    return Outcome


@pytest.fixture(scope="session")
def assert_same_tables() -> Callable[..., None]:
    """Asserts that two runs agree in every row and column that is not measured, to the last bit."""

    def assert_same_tables(one: Outcome, other: Outcome, but: tuple[str, ...] = ()) -> None:
        import pandas as pd

        from raykd.results.schema import TABLES

        for name in TABLES.keys() - set(but):
            pd.testing.assert_frame_equal(one.table(name), other.table(name), check_exact=True, obj=name)

    return assert_same_tables


@pytest.fixture(scope="session")
def cut_and_resumed() -> Callable[[Any, Path], Outcome]:
    """Runs a scenario that is cut off in its second round, in this process, and goes on with it."""

    def cut_and_resumed(scenario: Any, folder: Path) -> Outcome:
        from raykd.execution import run_plans
        from raykd.launch import Plan
        from raykd.resume import resume_plan
        from raykd.runtime.in_process import InProcessBackend
        from raykd.scenario.errors import RunFailed

        class CutOff(InProcessBackend):
            def local_updates(self, jobs: Any, download: Any) -> Any:
                if jobs and jobs[0].round_index == 1:
                    raise ConnectionAbortedError("cut off")
                return super().local_updates(jobs, download)

        def silent(event: str, **values: Any) -> None:
            pass

        with pytest.raises(RunFailed, match="cut off"):
            run_plans([Plan(folder, scenario.method.name, scenario, ROOT)], CutOff(silent), silent, threading.Event())
        run_plans([resume_plan(folder)], InProcessBackend(silent), silent, threading.Event())
        return Outcome(folder)

    return cut_and_resumed
