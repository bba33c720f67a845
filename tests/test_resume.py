"""A run that is cut off and resumed ends as if nothing had happened, under every method."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raykd.commands.study_record import continued, record_of, refuse_other_study
from raykd.data.volume_io import write_nifti
from raykd.execution import only_writer, run_plans
from raykd.launch import Interrupted, Plan, check_plans
from raykd.results.checksums import findings
from raykd.results.writer import new_manifest
from raykd.resume import resume_plan
from raykd.runtime.in_process import InProcessBackend
from raykd.scenario.errors import RaykdError, RunFailed
from raykd.scenario.registry import METHODS
from raykd.scenario.study import load_study

ROOT = Path(__file__).parent.parent
TRAINED = [name for name in METHODS.names() if METHODS.get(name).is_trained]


class Cut(BaseException):
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


class StoppedIn(InProcessBackend):
    """Is asked to stop when one client has answered, in the round's work or in its evaluation."""

    def __init__(self, stop: threading.Event, what: str, round_index: int):
        super().__init__(_silent, stop)
        self._what, self._round = what, round_index

    def _answers(self, what: str, jobs: Any, answers: Any) -> Any:
        for reply in answers:
            if (what, jobs[0].round_index) == (self._what, self._round):
                self._stop.set()
            yield reply

    def local_updates(self, jobs: Any, download: Any) -> Any:
        return self._answers("local_update", jobs, super().local_updates(jobs, download))

    def evaluate(self, jobs: Any, shared: Any) -> Any:
        return self._answers("evaluate", jobs, super().evaluate(jobs, shared))


@pytest.mark.parametrize(("what", "round_index"), [("local_update", 1), ("evaluate", 1), ("evaluate", -1)])
def test_a_round_that_is_given_up_leaves_nothing_and_is_done_again(
    what: str, round_index: int, load: Callable[..., Any], record: Callable[..., Any], tmp_path: Path, assert_same_tables: Any
) -> None:
    scenario, stop, folder = load("method={name: fedavg}"), threading.Event(), tmp_path / "run"
    with pytest.raises(Interrupted, match="in round 2 of 2, which is given up" if round_index > 0 else "before the first round"):
        _carry_out(Plan(folder, "fedavg", scenario, ROOT), StoppedIn(stop, what, round_index), stop)
    parts = {path.relative_to(folder / "tables").as_posix() for path in folder.rglob("*.parquet")}
    assert parts and not [
        part for part in parts if f"round-{round_index:05d}" in part or (round_index < 0 and "clients" not in part)
    ]
    assert sorted(path.name for path in (folder / "checkpoints").glob("*.pack")) == [
        f"round-{n:05d}.pack" for n in range(round_index + 1)
    ]
    _carry_out(resume_plan(folder))
    undisturbed = record("method={name: fedavg}").outcome
    assert_same_tables(undisturbed, type(undisturbed)(folder))
    assert undisturbed.models == type(undisturbed)(folder).models


def test_asked_to_stop_while_it_prepares_or_trains_the_teacher_it_does_so_and_begins_nothing(
    load: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario, stop = load("method={name: fedavg}"), threading.Event()
    stop.set()
    with pytest.raises(Interrupted, match="while data were prepared; nothing had begun"):
        _carry_out(Plan(tmp_path / "run", "fedavg", scenario, ROOT), InProcessBackend(_silent, stop), stop)
    assert not (tmp_path / "run").exists()
    stop.clear()
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "cache"))
    steps = []

    def tell(event: str, **values: Any) -> None:
        if event == "teacher_step":
            steps.append(values["step"])
            stop.set()

    scenario = load("method={name: dual_kd}", "repository.teacher.num_steps=400")
    with pytest.raises(Interrupted, match="before the first round"):
        _carry_out(Plan(tmp_path / "run", "dual_kd", scenario, ROOT), InProcessBackend(tell, stop), stop)
    assert steps == [20]


class Faulty(InProcessBackend):
    """Has a mistake in its second round, as a plug-in may."""

    def local_updates(self, jobs: Any, download: Any) -> Any:
        if jobs[0].round_index == 1:
            raise KeyError("lambda_\nand a second line")
        return super().local_updates(jobs, download)


def test_a_mistake_of_a_plug_in_fails_the_run_with_a_sentence_and_it_goes_on(
    load: Callable[..., Any], record: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    plan = Plan(folder, "fedavg", load("method={name: fedavg}"), ROOT)
    with pytest.raises(RunFailed) as failed:
        _carry_out(plan, Faulty(_silent))
    said = str(failed.value)
    assert "KeyError: 'lambda_" in said and "test_resume.py, line " in said and "\n" not in said and str(folder / "run.log") in said
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "failed" and "lambda_" in manifest["reason"]
    assert "Traceback (most recent call last)" in (folder / "run.log").read_text()
    assert findings(folder) == []
    _carry_out(resume_plan(folder))
    assert record("method={name: fedavg}").outcome.models == type(record("method={name: fedavg}").outcome)(folder).models


def test_a_case_that_turns_bad_between_two_rounds_fails_the_run_and_it_goes_on_when_it_is_mended(
    load: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client has to be prepared anew, as on a worker that replaces a lost one, and the file is none any more."""
    for number in range(3):
        rng = np.random.default_rng(number)
        write_nifti(
            tmp_path / f"data/{number}_t1.nii.gz", rng.normal(100, 20, (12, 24, 24)).astype(np.float32), np.diag([3.0, 2, 2, 1])
        )
        label_IJK = rng.integers(0, len(load().classes) + 1, (12, 24, 24)).astype(np.int16)
        write_nifti(tmp_path / f"data/{number}_seg.nii.gz", label_IJK, np.diag([3.0, 2, 2, 1]))
    source = "clients[1].source={name: folder, images: 'data/*_t1.nii.gz', labels: 'data/*_seg.nii.gz'}"
    scenario, bad = load("method={name: fedavg}", source), tmp_path / "data/1_t1.nii.gz"
    whole, folder = bad.read_bytes(), tmp_path / "run"

    class Poisoned(InProcessBackend):
        def local_updates(self, jobs: Any, download: Any) -> Any:
            if jobs[0].round_index == 1:
                bad.write_bytes(whole[:-40])
                self._worker.open(scenario, tmp_path)
                monkeypatch.setenv("RAYKD_CACHE", str(tmp_path / "cache"))
            return super().local_updates(jobs, download)

    with pytest.raises(RunFailed, match=r"1_t1\.nii\.gz.*checksum.*holds what was done") as failed:
        _carry_out(Plan(folder, "fedavg", scenario, tmp_path), Poisoned(_silent))
    assert "\n" not in str(failed.value) and findings(folder) == []
    with pytest.raises(RaykdError, match=r"1_t1\.nii\.gz"):
        resume_plan(folder)
    bad.write_bytes(whole)
    _carry_out(resume_plan(folder))
    assert json.loads((folder / "manifest.json").read_text())["status"] == "done"


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


def test_a_run_of_another_raykd_is_refused_in_one_sentence_whatever_else_differs(load: Callable[..., Any], tmp_path: Path) -> None:
    """Its scenario may have keys of then, and its data other fingerprints: both are no change that anybody made."""
    folder = _cut_off(load("method={name: fedavg}"), tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "code": "cafe", "data": {}, "scenario_hash": "0"}))
    (folder / "scenario.yaml").write_text("a_key_of_then: 1\n")
    with pytest.raises(
        RaykdError, match=r"only with the raykd that began it, but the code of raykd .* was cafe and is \w+; go on with"
    ) as told:
        resume_plan(folder)
    assert "scenario.yaml" not in str(told.value) and "the data of" not in str(told.value)


def test_a_study_of_another_raykd_is_not_told_that_its_keys_were_changed(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        f"name: s\nbase: {ROOT / 'scenarios/smoke.yaml'}\nmethods: [{{name: fedavg}}]\nseeds: [0]\n"
    )
    study, folder = load_study(tmp_path / "study.yaml"), tmp_path / "out"
    (cell,) = study.cells
    run_dir, now = folder / cell.cell_id, new_manifest("", "")
    run_dir.mkdir(parents=True)
    hash_then = cell.loaded.scenario.content_hash()
    (folder / "study.yaml").write_text(record_of(study, folder).replace(hash_then, "a0b1"))
    plan = Plan(run_dir, "fedavg", cell.loaded.scenario, ROOT)
    for manifest, why in ((now, "differs|another scenario"), (now | {"code": "cafe"}, "only with the raykd that began it")):
        (run_dir / "manifest.json").write_text(json.dumps({**manifest, "scenario_hash": "a0b1", "status": "interrupted"}))
        with pytest.raises(RaykdError, match=why):
            refuse_other_study(study, folder)
        with pytest.raises(RaykdError, match=why):
            continued(plan)


def test_a_run_directory_has_one_writer(tmp_path: Path) -> None:
    with only_writer(tmp_path), pytest.raises(RaykdError, match="one writer at a time"), only_writer(tmp_path):
        pass
