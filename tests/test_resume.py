"""A run that is cut off and resumed ends as if nothing had happened, under every method."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raykd.execution import only_writer, run_plans
from raykd.launch import Interrupted, Plan, check_plans
from raykd.resume import resume_plan
from raykd.runtime.in_process import InProcessBackend
from raykd.scenario.errors import RaykdError
from raykd.scenario.registry import METHODS

ROOT = Path(__file__).parent.parent
TRAINED = [name for name in METHODS.names() if METHODS.get(name).is_trained]


class Cut(Exception):
    """Stands for whatever ends a process."""


def _silent(event: str, **values: Any) -> None:
    pass


def _carry_out(plan: Plan, backend: Any = None, stop: threading.Event | None = None) -> None:
    run_plans([plan], backend or InProcessBackend(_silent), _silent, stop or threading.Event())


class CutOff(InProcessBackend):
    """Dies in its second round, with the first client's work done."""

    def local_updates(self, jobs: Any, download: Any) -> Any:
        if jobs and jobs[0].round_index == 1:
            list(super().local_updates(jobs[:1], download))
            raise Cut
        return super().local_updates(jobs, download)


def _cut_off(scenario: Any, folder: Path) -> Path:
    plan = Plan(folder, scenario.method.name, scenario, ROOT)
    check_plans([plan])
    with pytest.raises(Cut):
        _carry_out(plan, CutOff(_silent))
    return folder


@pytest.mark.parametrize("name", TRAINED)
def test_a_resumed_run_equals_an_undisturbed_one(
    name: str,
    load: Callable[..., Any],
    record: Callable[..., Any],
    tmp_path: Path,
    outcome_at: Callable[..., Any],
    assert_same_tables: Callable[..., None],
) -> None:
    method = f"method={{name: {name}}}"
    folder = _cut_off(load(method), tmp_path / "run")
    _carry_out(resume_plan(folder))
    straight, resumed = record(method).outcome, outcome_at(folder)
    assert_same_tables(straight, resumed)
    assert straight.models == resumed.models


def test_nothing_that_was_finished_is_done_again(load: Callable[..., Any], tmp_path: Path) -> None:
    folder = _cut_off(load("method={name: dual_kd}"), tmp_path / "run")
    rounds, trained = [], []

    class Watched(InProcessBackend):
        def local_updates(self, jobs: Any, download: Any) -> Any:
            rounds.extend(job.round_index for job in jobs)
            return super().local_updates(jobs, download)

        def train_on_repository(self, networks: Any) -> Any:
            trained.append(networks)
            return super().train_on_repository(networks)

    _carry_out(resume_plan(folder), Watched(_silent))
    assert rounds == [1, 1, 1]
    assert not trained


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    load: Callable[..., Any], record: Callable[..., Any], tmp_path: Path, outcome_at: Callable[..., Any]
) -> None:
    method = "method={name: fedavg}"
    folder = _cut_off(load(method), tmp_path / "run")
    index = json.loads((folder / "checkpoints/round-00001.json").read_text())
    pack, start, parts = index["server"]
    newest = folder / "checkpoints" / pack
    content = bytearray(newest.read_bytes())
    content[start + parts[0][1] - 5] ^= 1
    newest.write_bytes(content)
    _carry_out(resume_plan(folder))
    assert outcome_at(folder).models == record(method).outcome.models


def test_two_checkpoints_are_kept_and_no_file_that_none_of_them_names(load: Callable[..., Any], tmp_path: Path) -> None:
    scenario = load("method={name: fedavg}", "federation.rounds=4")
    folder = tmp_path / "run"
    _carry_out(Plan(folder, "fedavg", scenario, ROOT))
    found = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert found == ["round-00003.json", "round-00003.pack", "round-00004.json", "round-00004.pack"]


def test_a_stopped_run_says_how_to_go_on(load: Callable[..., Any], tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    plan = Plan(tmp_path / "run", "fedavg", load("method={name: fedavg}"), ROOT)
    with pytest.raises(Interrupted, match=f"raykd resume {tmp_path / 'run'}"):
        _carry_out(plan, stop=stop)
    assert json.loads((tmp_path / "run/manifest.json").read_text())["status"] == "interrupted"


def test_a_finished_run_is_not_resumed(record: Callable[..., Any]) -> None:
    with pytest.raises(RaykdError, match="done, there is nothing to go on with"):
        resume_plan(record("method={name: fedavg}").outcome.path)


def test_a_directory_without_a_run_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(RaykdError, match=r"must be the directory of a run"):
        resume_plan(tmp_path)


def test_a_changed_scenario_software_or_data_is_refused_with_every_difference(load: Callable[..., Any], tmp_path: Path) -> None:
    folder = _cut_off(load("method={name: fedavg}"), tmp_path / "run")
    scenario = folder / "scenario.yaml"
    scenario.write_text(scenario.read_text().replace("num_local_steps: 2", "num_local_steps: 3"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {"torch": "1.0", "data": manifest["data"] | {"repository": "0"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RaykdError) as refusal:
        resume_plan(folder)
    for difference in ("scenario.yaml is not the one", "torch was 1.0 and is", "the data of repository are others"):
        assert difference in str(refusal.value)


def test_a_run_directory_has_one_writer(tmp_path: Path) -> None:
    with only_writer(tmp_path), pytest.raises(RaykdError, match="one writer at a time"), only_writer(tmp_path):
        pass
