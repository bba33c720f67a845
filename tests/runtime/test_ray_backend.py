"""Workers that die, fail or share a GPU. What they do is compared with the run in this process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray import cloudpickle

from raykd.execution import run_plans
from raykd.federation.protocols import Progress
from raykd.launch import Interrupted, Plan, launch
from raykd.results.reader import open_run
from raykd.runtime.ray_backend import RayBackend
from raykd.runtime.ray_workers import start_process
from raykd.scenario.errors import DataError, ResourceError, RunFailed

METHOD = "method={name: dual_kd, num_passes: 2}"
pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module", autouse=True)
def by_value() -> Iterator[None]:
    """What this module defines travels to the workers as code, since they cannot import it."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


class Trap:
    """A progress that acts in the worker when client 1 has finished its update of round 1 but has not answered yet.

    Args:
        folder: holds one file for each time that it acted.
        act: what to do there.
        times: how often at most.
    """

    def __init__(self, folder: Path, act: Callable[[], None], times: int):
        self.folder, self.act, self.times = folder, act, times
        self.told: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, **values: Any) -> None:
        self.told.append((event, values))
        if event == "client" and (values["client_id"], values["round"]) == (1, 1) and self.num_acted < self.times:
            (self.folder / f"acted-{self.num_acted}").touch()
            self.act()

    @property
    def num_acted(self) -> int:
        return len(list(self.folder.glob("acted-*")))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang() -> None:
    time.sleep(600)


def _fail() -> None:
    raise ZeroDivisionError("the scanner caught fire")


def _run_on_workers(scenario: Any, folder: Path, progress: Progress, num_slots: int = 2, num_killed: int = 0) -> None:
    """A run on workers of which the first ones are killed while they start."""
    resources = scenario.resources.model_copy(update={"slots": num_slots})
    processes = [start_process(resources, progress) for _ in range(num_slots)]
    for process in processes[:num_killed]:
        ray.kill(process.actor)
    backend = RayBackend(resources, processes, progress)
    try:
        run_plans([Plan(folder, scenario.method.name, scenario, folder.parent)], backend, progress, threading.Event())
    finally:
        backend.close()


@pytest.fixture
def trap(tmp_path: Path) -> Callable[..., Trap]:
    return lambda act, times: Trap(tmp_path, act, times)


def test_workers_killed_as_they_start_and_in_the_middle_of_a_round_change_no_number(
    trap: Callable[..., Trap],
    load: Callable[..., Any],
    run: Callable[..., Any],
    outcome_at: Callable[[Path], Any],
    assert_same_tables: Callable[..., None],
    tmp_path: Path,
) -> None:
    once = trap(_die, 1)
    _run_on_workers(load(METHOD), tmp_path / "run", once, num_killed=1)
    assert once.num_acted == 1
    disturbed = outcome_at(tmp_path / "run")
    assert_same_tables(disturbed, run(METHOD), but=("events",))
    assert disturbed.models == run(METHOD).models
    events = disturbed.table("events").query("kind != 'weak_start'")
    assert events["kind"].tolist() == ["worker_lost"] * 2
    assert sorted(text.split(":")[0] for text in events["detail"])[0] == "a worker that had just been started"
    (lost,) = [values for event, values in once.told if event == "worker_lost"]
    assert (lost["work"], lost["attempt"]) == ("local_update", 1)


@pytest.mark.slow
def test_a_worker_that_dies_each_time_fails_the_run_after_three_attempts(
    trap: Callable[..., Trap], load: Callable[..., Any], tmp_path: Path
) -> None:
    always = trap(_die, 99)
    with pytest.raises(RunFailed, match="local_update of client 1 was lost 3 times"):
        _run_on_workers(load(METHOD), tmp_path / "run", always, num_slots=1)
    assert always.num_acted == 3
    manifest = open_run(tmp_path / "run").manifest
    assert manifest["status"] == "failed" and "lost 3 times" in manifest["reason"]


@pytest.mark.slow
def test_a_client_that_hangs_is_given_up_at_its_deadline_and_done_elsewhere(
    trap: Callable[..., Trap],
    load: Callable[..., Any],
    run: Callable[..., Any],
    outcome_at: Callable[[Path], Any],
    assert_same_tables: Callable[..., None],
    tmp_path: Path,
) -> None:
    once = trap(_hang, 1)
    _run_on_workers(load("method={name: fedavg}", "resources.deadline_s=20"), tmp_path / "run", once)
    disturbed = outcome_at(tmp_path / "run")
    assert_same_tables(disturbed, run("method={name: fedavg}"), but=("events",))
    (detail,) = disturbed.table("events")["detail"]
    assert "resources.deadline_s" in detail and "local_update of client" in detail


@pytest.mark.parametrize("network", [pytest.param("unet", marks=pytest.mark.slow), "vnet"], ids=["without dropout", "with dropout"])
def test_slots_that_are_threads_give_the_same_bits(
    network: str,
    load: Callable[..., Any],
    run: Callable[..., Any],
    outcome_at: Callable[[Path], Any],
    assert_same_tables: Callable[..., None],
    tmp_path: Path,
) -> None:
    settings = ("method={name: fedavg}", f"student.network={{name: {network}, width: 4}}", "training.patch_shape=[16, 16, 16]")
    launch([Plan(tmp_path / "run", "fedavg", load(*settings, "resources.workers=threads"), tmp_path)], backend="ray")
    threads = outcome_at(tmp_path / "run")
    assert threads.run.manifest["num_slots"] == 2
    assert_same_tables(threads, run(*settings))
    assert threads.models == run(*settings).models


@pytest.mark.slow
def test_where_a_worker_runs_out_of_memory_fewer_clients_run_at_once(
    load: Callable[..., Any],
    run: Callable[..., Any],
    outcome_at: Callable[[Path], Any],
    assert_same_tables: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Ray's memory monitor is stood in for: the first answer of round 1 is what Ray raises after it has killed a worker."""
    real, is_out = ray.get, [False]

    def get(ref: Any, **options: Any) -> Any:
        found = real(ref, **options)
        first = found[0] if isinstance(found, list) and found else None
        if isinstance(first, tuple) and getattr(first[0], "training", {}).get("round") == 1 and not is_out[0]:
            is_out[0] = True
            raise ray.exceptions.OutOfMemoryError("worker used too much")
        return found

    monkeypatch.setattr("raykd.runtime.ray_backend.ray.get", get)
    _run_on_workers(load("method={name: fedavg}"), tmp_path / "run", lambda event, **values: None)
    disturbed = outcome_at(tmp_path / "run")
    assert_same_tables(disturbed, run("method={name: fedavg}"), but=("events",))
    assert disturbed.table("events")["detail"].str.contains("1 fewer run at once from now on, 1 in all").any()


def test_what_a_client_raises_fails_the_run_at_once_with_its_words(
    trap: Callable[..., Trap], load: Callable[..., Any], tmp_path: Path
) -> None:
    faulty = trap(_fail, 99)
    with pytest.raises(RunFailed, match="local_update failed: ZeroDivisionError: the scanner caught fire"):
        _run_on_workers(load(METHOD), tmp_path / "run", faulty, num_slots=1)
    assert faulty.num_acted == 1


@pytest.mark.slow
def test_a_share_of_a_gpu_is_asked_of_ray_and_without_cuda_the_cpu_gives_the_same_numbers(
    load: Callable[..., Any],
    run: Callable[..., Any],
    outcome_at: Callable[[Path], Any],
    assert_same_tables: Callable[..., None],
    tmp_path: Path,
) -> None:
    if torch.cuda.is_available():
        pytest.skip("here the share is one of a real GPU, whose sums are in another order")
    scenario = load(METHOD, "resources={gpus_per_client: 0.5, cpus_per_client: 0.5}")
    told = list[str]()
    launch([Plan(tmp_path / "run", "dual_kd", scenario, tmp_path)], backend="ray", progress=lambda event, **_: told.append(event))
    outcome = outcome_at(tmp_path / "run")
    assert told.count("gpu_unseen") == 3
    assert outcome.run.manifest["num_slots"] == 3  # four fit, three are needed
    assert_same_tables(outcome, run(METHOD))


def _fill_the_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")


def test_a_client_that_outgrows_its_share_of_a_gpu_fails_the_run_with_what_to_do(
    trap: Callable[..., Trap], load: Callable[..., Any], tmp_path: Path
) -> None:
    greedy = trap(_fill_the_gpu, 99)
    with pytest.raises(
        RunFailed, match=r"local_update: a client needs .*resources\.gpus_per_client.*2\.00 GiB\. Give a client a larger share"
    ):
        _run_on_workers(load(METHOD), tmp_path / "run", greedy, num_slots=1)
    assert greedy.num_acted == 1


@pytest.mark.slow
def test_a_refusal_of_data_stays_a_refusal_across_processes(load: Callable[..., Any], tmp_path: Path) -> None:
    source = "clients[1].source={name: folder, images: 'data/*_t1.nii.gz', labels: 'data/*_seg.nii.gz'}"
    scenario = load(METHOD, source)
    with pytest.raises(DataError, match="university"):
        launch([Plan(tmp_path / "run", "dual_kd", scenario, tmp_path)], backend="ray")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_divergence_across_processes_is_told_as_in_one(load: Callable[..., Any], tmp_path: Path) -> None:
    scenario = load("method={name: fedavg}", "training.learning_rate=1e30", "resources.slots=1")
    with pytest.raises(RunFailed, match="learning_rate"):
        launch([Plan(tmp_path / "run", "fedavg", scenario, tmp_path)], backend="ray")
    assert open_run(tmp_path / "run").manifest["status"] == "failed"


def test_asked_to_stop_while_a_worker_hangs_it_ends_at_once(
    trap: Callable[..., Trap], load: Callable[..., Any], tmp_path: Path
) -> None:
    """The work in hand would take ten minutes; its round is given up, and the one before stands."""
    scenario, stop = load("method={name: fedavg}", "resources.slots=1"), threading.Event()
    hanging = trap(_hang, 1)
    backend = RayBackend(scenario.resources, [start_process(scenario.resources, hanging)], hanging, stop)
    threading.Thread(target=lambda: (_until(lambda: hanging.num_acted == 1), stop.set()), daemon=True).start()
    start_s = time.monotonic()
    try:
        with pytest.raises(Interrupted, match="in round 2 of 2, which is given up; `raykd resume"):
            run_plans([Plan(tmp_path / "run", "fedavg", scenario, tmp_path)], backend, lambda event, **values: None, stop)
    finally:
        backend.close()
    assert time.monotonic() - start_s < 120
    left = open_run(tmp_path / "run")
    assert (left.manifest["status"], left.rounds["round"].tolist()) == ("interrupted", [0])


def test_a_full_store_is_one_sentence_and_the_run_can_go_on(
    load: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray spills what its memory does not hold, so that the store is full only when the disk is: hence by a stand-in."""
    scenario, put, puts = load("method={name: fedavg}", "resources.slots=1"), ray.put, list[int]()

    def full(value: Any) -> Any:
        puts.append(1)
        if len(puts) == 4:  # the teacher's evaluation, round, evaluation, round
            raise ray.exceptions.OutOfDiskError("Local disk is full\nThe object cannot be created")
        return put(value)

    monkeypatch.setattr("raykd.runtime.ray_backend.ray.put", full)
    with pytest.raises(RunFailed, match=r"object store is full.*holds what was done") as failed:
        _run_on_workers(scenario, tmp_path / "run", lambda event, **values: None, num_slots=1)
    assert "\n" not in str(failed.value)
    assert open_run(tmp_path / "run").manifest["status"] == "failed"


def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        time.sleep(0.1)


def test_what_happens_there_is_told_here(load: Callable[..., Any], tmp_path: Path) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    scenario = load("method={name: fedavg}", "resources.slots=1")
    launch(
        [Plan(tmp_path / "run", "fedavg", scenario, tmp_path)],
        backend="ray",
        progress=lambda event, **values: told.append((event, values)),
    )
    assert [values["round"] for event, values in told if event == "round"] == [0, 1]


def test_more_slots_than_fit_are_refused(load: Callable[..., Any], tmp_path: Path) -> None:
    scenario = load("method={name: fedavg}", "resources.slots=3")
    with pytest.raises(ResourceError, match="3 clients at 1 CPU and 0 GPU must fit, got 2"):
        launch([Plan(tmp_path / "run", "fedavg", scenario, tmp_path)], backend="ray")
    assert not (tmp_path / "run").exists()


def test_cells_that_ask_for_different_resources_are_refused(load: Callable[..., Any], tmp_path: Path) -> None:
    plans = [Plan(tmp_path / str(slots), "fedavg", load(f"resources.slots={slots}"), tmp_path) for slots in (1, 2)]
    with pytest.raises(ResourceError, match="same resources"):
        launch(plans, backend="ray")
