"""Run directories in a store: what lies there at any moment, who writes it, and what is said when it fails."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from object_store import ObjectStore

from raykd.execution import run_plans
from raykd.launch import Plan
from raykd.results import lease
from raykd.results.checksums import findings
from raykd.results.reader import load_runs, open_run
from raykd.resume import resume_plan
from raykd.runtime.in_process import InProcessBackend
from raykd.scenario.errors import RaykdError, RunFailed
from raykd.staging import staged, to_begin
from raykd.storage import OWNER, Folder, StorageError, _opened, url_of

ROOT = Path(__file__).parent.parent
FEDAVG = "method={name: fedavg}"
SECRET = "a-secret-key-of-the-tests"


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    """A store that S3's own client is told of as usual."""
    started = ObjectStore()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", started.address)
        patch.setenv("AWS_ACCESS_KEY_ID", "key-of-the-tests")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        _opened.cache_clear()
        yield started
    _opened.cache_clear()
    started.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "DEAD_S", 0.6)
    monkeypatch.setattr(lease, "LOOK_S", 0.1)


def _silent(event: str, **values: Any) -> None:
    pass


def _begin(load: Callable[..., Any], url: str) -> Plan:
    return to_begin(Plan(Path("unused"), "fedavg", load(FEDAVG), ROOT), url)


def _carry_out(plan: Plan) -> Plan:
    run_plans([plan], InProcessBackend(_silent), _silent, threading.Event())
    return plan


def _elsewhere() -> None:
    """Forgets what this machine wrote, as another one would not know it."""
    shutil.rmtree(Path(os.environ["RAYKD_CACHE"]) / "remote", ignore_errors=True)


def _objects(store: ObjectStore, url: str) -> dict[str, bytes]:
    prefix = url.removeprefix("s3://bucket/") + "/"
    return {
        key.removeprefix(prefix): content
        for key, content in store.objects.items()
        if key.startswith(prefix) and not key.endswith("/")
    }


@pytest.fixture(scope="module")
def whole(store: ObjectStore, load: Callable[..., Any]) -> tuple[str, list[tuple[str, str, bytes]]]:
    """The URL of a run that is done, and what was written for it in order."""
    url, first = "s3://bucket/runs/whole", len(store.log)
    _carry_out(_begin(load, url))
    return url, [entry for entry in store.log[first:] if not entry[1].endswith(("/", OWNER))]


def test_a_run_in_a_store_is_the_run_in_a_directory(
    whole: Any, store: ObjectStore, run: Callable[..., Any], outcome_at: Any, assert_same_tables: Any
) -> None:
    url, _ = whole
    here, there = staged(url), _objects(store, url)
    on_disk = {path.relative_to(here).as_posix(): path.read_bytes() for path in here.rglob("*") if path.is_file()}
    del on_disk["run.lock"], there[OWNER]
    assert there == on_disk
    assert not [name for name, content in {**there, **on_disk}.items() if SECRET.encode() in content]
    _elsewhere()
    assert open_run(url).manifest["status"] == "done"
    assert_same_tables(outcome_at(Path(open_run(url).path)), run(FEDAVG))
    assert len(load_runs(["s3://bucket/runs"]).runs) == 1
    assert run(FEDAVG).models == {name[7:]: content for name, content in there.items() if name.startswith("models/")}


def test_the_commands_read_a_url(whole: Any, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from raykd.cli import app

    url, _ = whole
    monkeypatch.chdir(tmp_path)

    def said(*words: str) -> tuple[int, str]:
        ended = CliRunner().invoke(app, list(words))
        return ended.exit_code, ended.stdout

    assert said("verify", url) == (0, f"{url}: sound, every file is as it was written\n")
    code, out = said("status", url, "--json")
    assert (code, [(row["run_dir"], row["status"], row["rounds_done"]) for row in json.loads(out)]) == (0, [(url, "done", 2)])
    assert said("report", url)[0] == 0 and (tmp_path / "report.html").is_file()
    assert said("export", url)[0] == 0 and (tmp_path / "export/cases.parquet").is_file()
    model = "runs/whole/models/global.safetensors"
    kept = store.objects[model]
    store.objects[model] = kept[:-1] + bytes([kept[-1] ^ 1])
    code, out = said("verify", url)
    store.objects[model] = kept
    assert code == 3 and f"{url}/models/global.safetensors: damaged" in out


def _materialised(log: list[tuple[str, str, bytes]], folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    objects = {key: content for verb, key, content in log if verb == "put"}
    last = {key: verb for verb, key, _ in log}
    for key, content in objects.items():
        if last[key] == "put":
            path = folder / key.removeprefix("runs/whole/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return folder


def test_at_any_moment_the_store_holds_what_a_crash_would_have_left_on_a_disk(whole: Any, tmp_path: Path) -> None:
    _, log = whole
    begun = 1 + next(number for number, (_, key, _) in enumerate(log) if key.endswith("manifest.json"))
    assert len(log) - begun > 30
    for number in range(begun, len(log) + 1):
        assert findings(_materialised(log[:number], tmp_path / "run")) == [], log[number - 1][:2]
    assert [key for verb, key, _ in log if verb == "delete"]  # of checkpoints that later ones replaced


def test_a_run_goes_on_on_another_machine(
    whole: Any, store: ObjectStore, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From what was in the store when the first round had been kept and the second was being written."""
    _, log = whole
    url = "s3://bucket/runs/moved"
    second = next(number for number, (_, key, _) in enumerate(log) if key.endswith("rounds/round-00001.parquet"))
    for verb, key, content in log[: second + 1]:
        moved = key.replace("/whole/", "/moved/")
        store.objects[moved], store.times[moved] = content, 0
        if verb == "delete":
            del store.objects[moved]
    _elsewhere()
    with monkeypatch.context() as patch:
        patch.setattr("raykd.resume.new_manifest", lambda *_: {"raykd": "another"})
        with pytest.raises(RaykdError, match=f"^{url}: a run goes on only with the raykd that began it"):
            resume_plan(Path(url))
    _elsewhere()
    plan = resume_plan(Path(url))
    assert plan.is_resumed and plan.place == url
    _carry_out(plan)
    there = _objects(store, url)
    assert json.loads(there["manifest.json"])["status"] == "done"
    assert {name[7:]: content for name, content in there.items() if name.startswith("models/")} == run(FEDAVG).models
    with pytest.raises(RaykdError, match="done, there is nothing to go on with"):
        resume_plan(Path(url))


def test_a_study_in_a_store_goes_on_on_another_machine(
    store: ObjectStore, tiny: dict[str, Any], run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second cell fails in its second round; elsewhere the first is left as it is, and the second gone on with."""
    from typer.testing import CliRunner

    from raykd.cli import app

    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    (tmp_path / "study.yaml").write_text("base: tiny.yaml\nmethods: [{name: local}, {name: fedavg}]\n")
    url, cells = "s3://bucket/studies/both", ("local--seed7", "fedavg--seed7")

    def said(*words: str) -> tuple[str, BaseException | None]:
        command = ["study", str(tmp_path / "study.yaml"), "--out", url, "--backend", "in-process", "--quiet", *words]
        ended = CliRunner().invoke(app, command)
        return ended.stdout, ended.exception

    def manifest(cell: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(_objects(store, url)[f"{cell}/manifest.json"])
        return found

    class Faulty(InProcessBackend):
        def local_updates(self, jobs: Any, download: Any) -> Any:
            if jobs[0].round_index == 1 and self._worker._scenario.method.name == "fedavg":
                raise ConnectionAbortedError("cut off")
            return super().local_updates(jobs, download)

    with monkeypatch.context() as patch:
        patch.setattr("raykd.runtime.in_process.InProcessBackend", Faulty)
        _, failed = said()
    assert isinstance(failed, RunFailed) and f"--out {url} --continue" in str(failed)
    assert [manifest(cell)["status"] for cell in cells] == ["done", "failed"]
    first = manifest(cells[0])
    for words, why in (((), "holds a study already"), (("--continue", "--set", "seeds=[1]"), "holds a study that differs")):
        _, refused = said(*words)
        assert isinstance(refused, RaykdError) and why in str(refused) and str(refused).startswith(url)
    _elsewhere()
    assert said("--continue") == (f"{url}\n", None)
    assert manifest(cells[0]) == first and manifest(cells[1])["status"] == "done"
    models = {name.split("/")[-1]: content for name, content in _objects(store, url).items() if "fedavg--seed7/models/" in name}
    assert models == run(FEDAVG).models
    assert said("--dry-run", "--continue")[0].splitlines()[-1] == "2 cells: 2 done"
    assert [loaded.path.name for loaded in load_runs([url]).runs] == sorted(cells)
    rows = json.loads(CliRunner().invoke(app, ["status", url, "--json"]).stdout)
    assert [(row["run_dir"], row["status"], row["rounds_done"]) for row in rows] == [
        (f"{url}/{cell}", "done", 2) for cell in sorted(cells)
    ]


def test_a_store_that_refuses_in_the_middle_fails_the_run_and_it_goes_on_from_here(
    store: ObjectStore, load: Callable[..., Any], run: Callable[..., Any]
) -> None:
    url = "s3://bucket/runs/cut"
    plan = _begin(load, url)
    store.takes = 40
    try:
        with pytest.raises(RunFailed, match=r"no permission .*holds what was done") as failed:
            _carry_out(plan)
    finally:
        store.takes = 10**9
    assert "\n" not in str(failed.value) and url in str(failed.value) and SECRET not in str(failed.value)
    assert f"`raykd resume {url}` goes on" in str(failed.value)
    manifest = json.loads((staged(url) / "manifest.json").read_text())
    assert manifest["status"] == "failed" and findings(staged(url)) == []
    assert json.loads(_objects(store, url)["manifest.json"])["status"] == "running"  # it could not be told
    _carry_out(resume_plan(Path(url)))
    there = _objects(store, url)
    assert there["models/global.safetensors"] == run(FEDAVG).models["global.safetensors"]
    assert _materialise_and_judge(there, staged(url).with_name("judged")) == []


def _materialise_and_judge(objects: dict[str, bytes], folder: Path) -> list[Any]:
    for name, content in objects.items():
        if name != OWNER and name and not name.endswith("/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return findings(folder)


def test_a_writer_that_lives_is_respected_and_a_dead_one_is_not(store: ObjectStore) -> None:
    folder = Folder("s3://bucket/runs/shared")
    first = lease.claim(folder, None)
    with lease.held(folder, first) as holding:
        os_name = lease.platform.node
        lease.platform.node = lambda: "another"  # seen from another machine, which cannot ask whether the process lives
        try:
            threading.Timer(0.25, holding.beat).start()
            with pytest.raises(RaykdError, match=r"one writer at a time, and process .* writes this one"):
                lease.claim(folder, None)
            second = lease.claim(folder, None)  # the number stood still
        finally:
            lease.platform.node = os_name
        assert second != first
        with pytest.raises(RaykdError, match="another process took it over"):
            holding.beat()
        with pytest.raises(RaykdError, match="another process took it over"):
            holding.refuse_lost()
    assert lease.owner_of(folder)["name"] == second  # type: ignore[index]
    assert lease.claim(folder, second) == second


def test_what_cannot_be_begun_in_a_store_is_refused_with_a_sentence(
    whole: Any, store: ObjectStore, load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = whole
    for place, words in {
        url: "empty or not there yet, got one with a run .done; `raykd report s3://bucket/runs/whole` shows it",
        "s3://bucket/runs": "got one that holds",
        "s3://nobucket/run": "there is no bucket nobucket",
        "nonsense://x/run": "must begin with a scheme that is known",
        "abfs://container/run": "is not installed here",
    }.items():
        with pytest.raises(RaykdError, match=words) as refused:
            _begin(load, place)
        assert "\n" not in str(refused.value)
    with pytest.raises(StorageError, match="must hold no password") as refused:
        url_of("s3://somebody:secret@bucket/run")
    assert "secret" not in str(refused.value)
    store.refuses = (403, "AccessDenied")
    with pytest.raises(StorageError, match="no permission"):
        _begin(load, "s3://bucket/runs/new")
    store.refuses = None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    _opened.cache_clear()
    start_s = time.monotonic()
    with pytest.raises(StorageError, match="nobody answers there"):
        _begin(load, "s3://bucket/runs/new")
    assert time.monotonic() - start_s < 20
    _opened.cache_clear()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://bucket/run", "s3://bucket/run"),
        (Path("s3://bucket/run"), "s3://bucket/run"),
        ("s3://bucket/run/", "s3://bucket/run"),
        ("file:///tmp/run", "file:///tmp/run"),
        (Path("file:///tmp/run"), "file:///tmp/run"),
        ("memory://run", "memory://run"),
        ("runs/first", None),
        ("/tmp/a:/b", None),
        ("c:/run", None),
    ],
)
def test_which_texts_are_urls(text: str | Path, url: str | None) -> None:
    assert url_of(text) == url


@pytest.mark.parametrize("scheme", ["memory://raykd", "file://{tmp}"])
def test_other_stores_keep_files_by_fsspec(scheme: str, tmp_path: Path) -> None:
    folder = Folder(f"{scheme.format(tmp=tmp_path)}/a/run")
    assert folder.listing() == {} and folder.read("x/y") is None
    folder.write("x/y", b"1")
    folder.write("z", b"22")
    assert sorted(folder.listing()) == ["x/y", "z"]
    folder.fetch(tmp_path / "copy")
    folder.write("x/y", b"333")
    folder.remove("z")
    folder.remove("z")
    folder.fetch(tmp_path / "copy")
    assert {p.name: p.read_bytes() for p in (tmp_path / "copy").rglob("*") if p.is_file()} == {"y": b"333"}


def test_further_wildcards_of_a_url_stand_for_the_same_name() -> None:
    from raykd.data.remote import _matching

    is_wanted = _matching("", "/*_t1.nii.gz")
    assert is_wanted("p1/p1_t1.nii.gz") and not is_wanted("p1/p2_t1.nii.gz") and not is_wanted("p1/*_t1.nii.gz")


@pytest.mark.parametrize(
    "block",
    [
        {"name": "folder", "images": "{url}/*_t1.nii.gz", "labels": "{url}/*_seg.nii.gz"},
        {"name": "folder", "manifest": "{url}/cases.csv"},
    ],
)
def test_cases_are_read_from_a_store_as_from_a_folder(block: dict[str, str], store: ObjectStore, tmp_path: Path) -> None:
    from raykd.data import remote
    from raykd.data.sources._base import CaseKey
    from raykd.data.sources.folder import FolderSettings, FolderSource
    from raykd.data.volume_io import write_nifti

    image, label = np.arange(120, dtype=np.float32).reshape(4, 5, 6), np.ones((4, 5, 6), dtype=np.int16)
    (tmp_path / "uni").mkdir()
    for name in ("one", "two"):
        write_nifti(tmp_path / f"uni/{name}_t1.nii.gz", image + (name == "two"), np.eye(4))
        write_nifti(tmp_path / f"uni/{name}_seg.nii.gz", label, np.eye(4))
    rows = [f"{name}_t1.nii.gz,{name}_seg.nii.gz,{name}" for name in ("one", "two")]
    (tmp_path / "uni/cases.csv").write_text("\n".join(["image,label,case", *rows]))
    for path in (tmp_path / "uni").iterdir():
        store.objects[f"data/uni/{path.name}"], store.times[f"data/uni/{path.name}"] = path.read_bytes(), 0
    store.objects["data/uni/other.nii"], store.times["data/uni/other.nii"] = b"not asked for", 0

    def source(place: str) -> FolderSource:
        settings = FolderSettings(**{key: value.format(url=place) for key, value in block.items()})
        return FolderSource(settings, ("liver",), 0, "university", tmp_path)

    remote._fetched.cache_clear()
    there, here = source("s3://bucket/data/uni"), source("uni")
    assert there.keys() == here.keys() == [CaseKey("one", "one"), CaseKey("two", "two")]
    assert (there.load(there.keys()[1]).image_CIJK == here.load(here.keys()[1]).image_CIJK).all()
    assert os.environ["RAYKD_CACHE"] not in json.dumps(there.fingerprint())  # the same on every machine
    assert there.fingerprint() == source("s3://bucket/data/uni").fingerprint()
    there.check()
    remote._fetched.cache_clear()
    store.objects["data/uni/two_t1.nii.gz"] = (tmp_path / "uni/one_t1.nii.gz").read_bytes()
    store.times["data/uni/two_t1.nii.gz"] = 7
    with pytest.raises(RaykdError, match="images must differ"):
        source("s3://bucket/data/uni").check()
    remote._fetched.cache_clear()
    with pytest.raises(StorageError, match="got nothing; correct the URL"):
        source("s3://bucket/data/nowhere")
