"""A cache that computes once, bears damage and rivals, and takes nothing for the same that is not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from raykd.cli import app
from raykd.commands.cache import BYTES, SECONDS, parse_quantity
from raykd.data import cache
from raykd.data.cache import Entry, Stored, abandoned, cache_dir, cached, content_key, entries, remove, to_prune
from raykd.scenario.errors import RaykdError
from raykd.scenario.training import Augmentation
from raykd.storage import local_copy, place_in_cache

KEY = content_key(case="c-1")
TENSORS = {"image": torch.arange(6.0).reshape(2, 3), "label": torch.tensor([0, 255], dtype=torch.uint8)}
VALUES = {"record": {"scanner.noise": 0.1, "phantom.side": "left"}, "list": [1, 2.5, None]}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYKD_CACHE", str(tmp_path))


class Counted:
    """A computation that counts its calls."""

    def __init__(self, tensors: dict[str, torch.Tensor] = TENSORS, during: Callable[[], object] = lambda: None):
        self.num_calls, self.tensors, self.during = 0, tensors, during

    def __call__(self) -> Stored:
        self.num_calls += 1
        self.during()
        return dict(self.tensors), dict(VALUES)


def assert_same(stored: Stored) -> None:
    assert stored[1] == VALUES and stored[0].keys() == TENSORS.keys()
    assert all(torch.equal(stored[0][name], TENSORS[name]) and stored[0][name].dtype == TENSORS[name].dtype for name in TENSORS)


def the_file() -> Path:
    (path,) = (path for path in cache_dir().rglob("*") if path.is_file())
    return path


def test_the_first_call_computes_and_the_second_reads() -> None:
    compute = Counted()
    assert_same(cached("cases", KEY, compute))
    assert_same(cached("cases", KEY, compute))
    assert compute.num_calls == 1


def test_what_was_read_belongs_to_the_reader() -> None:
    cached("cases", KEY, Counted())
    cached("cases", KEY, Counted())[0]["image"].add_(1.0)
    assert_same(cached("cases", KEY, Counted()))


def test_tensors_that_are_views_are_stored_as_they_look() -> None:
    view = torch.arange(6.0).reshape(2, 3).T
    cached("cases", KEY, Counted({"image": view}))
    assert torch.equal(cached("cases", KEY, Counted())[0]["image"], view)


@pytest.mark.parametrize(("kind", "key"), [("teachers", KEY), ("cases", content_key(case="c-2"))])
def test_another_kind_or_key_is_another_entry(kind: str, key: str) -> None:
    cached("cases", KEY, Counted())
    other = Counted({"image": torch.zeros(1)})
    assert torch.equal(cached(kind, key, other)[0]["image"], torch.zeros(1)) and other.num_calls == 1


@pytest.mark.parametrize("damage", ["cut", "header", "empty", "text", "foreign"])
def test_a_file_that_cannot_be_read_is_computed_again_and_mended(damage: str) -> None:
    cached("cases", KEY, Counted())
    path = the_file()
    content = path.read_bytes()
    if damage == "foreign":
        from safetensors.torch import save_file

        save_file({"image": torch.zeros(1)}, path)
    else:
        damaged = {"cut": content[:-3], "header": b"\xff" * 8 + content[8:], "empty": b"", "text": b"not a tensor"}
        path.write_bytes(damaged[damage])
    again = Counted()
    assert_same(cached("cases", KEY, again))
    assert again.num_calls == 1
    assert_same(cached("cases", KEY, again))
    assert again.num_calls == 1


def test_of_two_writers_both_get_what_they_made_and_one_file_is_left() -> None:
    inner = Counted()
    # The rival computes and writes while the first is still computing.
    outer = Counted(during=lambda: cached("cases", KEY, inner))
    assert_same(cached("cases", KEY, outer))
    assert (outer.num_calls, inner.num_calls) == (1, 1)
    assert_same(cached("cases", KEY, outer))
    assert the_file().name == f"{KEY}.safetensors"


def test_a_writer_that_dies_leaves_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(cache, "save_file", half)
        cached("cases", KEY, Counted())
    again = Counted()
    assert_same(cached("cases", KEY, again))
    assert again.num_calls == 1


def test_a_computation_that_fails_stores_nothing() -> None:
    def fail() -> Stored:
        raise RuntimeError("no case")

    with pytest.raises(RuntimeError, match="no case"):
        cached("cases", KEY, fail)
    assert not [path for path in cache_dir().rglob("*") if path.is_file()]


INPUTS: dict[str, Any] = {
    "classes": ("a", "b"),
    "spacing_mm": (1.0, 2.0, 3.0),
    "seed": 3,
    "shifts": [{"noise": 0.1}],
    "gap_mm": None,
}


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ("b", "a")},
        {"spacing_mm": (1.0, 2.0, 3.0000000000000004)},
        {"seed": 4},
        {"seed": "3"},
        {"shifts": [{"noise": 0.2}]},
        {"shifts": [{"noise": 0.1}, {}]},
        {"gap_mm": 0.0},
        {"threads": 1},
    ],
)
def test_the_key_depends_on_every_input(change: dict[str, Any]) -> None:
    assert content_key(**INPUTS | change) != content_key(**INPUTS)


def test_the_key_does_not_depend_on_the_order_of_inputs_or_on_tuple_or_list() -> None:
    reordered = dict(reversed(INPUTS.items())) | {"classes": ["a", "b"]}
    assert content_key(**reordered) == content_key(**INPUTS)


def test_the_key_depends_on_the_version_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_key(**INPUTS)
    monkeypatch.setattr(cache, "CACHE_VERSION", cache.CACHE_VERSION + 1)
    assert content_key(**INPUTS) != before


def test_the_key_tells_settings_apart_that_are_no_json() -> None:
    assert content_key(augmentation=Augmentation(noise=0.1)) != content_key(augmentation=Augmentation(noise=0.2))


def test_without_the_variable_the_cache_lies_in_the_user_s_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYKD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "raykd"


def test_the_key_depends_on_the_versions_of_the_packages_that_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_key(**INPUTS)
    known = cache.versions()
    assert {"raykd", "torch", "torchio", "monai"} <= known.keys() and all(known.values())
    monkeypatch.setattr(cache, "versions", lambda: {**known, "torchio": "0.0"})
    assert content_key(**INPUTS) != before


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="tells what is mapped on Linux only")
def test_processes_share_what_is_cached_instead_of_copying_it() -> None:
    for _ in range(2):  # computed, then read
        stored = cached("cases", KEY, Counted())
        address = stored[0]["image"].data_ptr()
        spans = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if str(the_file()) in line]
        assert any(int(start, 16) <= address < int(end, 16) for start, end in spans)


def entry(name: str, used_s: float, num_bytes: int, kind: str = "cases") -> Entry:
    return Entry(kind, Path(name), num_bytes, used_s)


FOUND = [entry("c", 30.0, 4), entry("a", 10.0, 1), entry("b", 20.0, 2), Entry("cases", Path(".d"), 100, 0.0, is_whole=False)]


@pytest.mark.parametrize(
    ("rule", "gone"),
    [
        ({"unused_s": 15.0}, "a"),
        ({"unused_s": 20.0}, ""),  # a was used exactly so long ago
        ({"max_bytes": 7}, ""),
        ({"max_bytes": 6}, "a"),
        ({"max_bytes": 5}, "ab"),
        ({"max_bytes": 0}, "abc"),
        ({"unused_s": 15.0, "max_bytes": 4}, "ab"),
        ({}, ""),
    ],
)
def test_pruning_takes_the_least_recently_used_until_the_rest_fits(rule: dict[str, Any], gone: str) -> None:
    assert "".join(e.path.name for e in to_prune(FOUND, 30.0, **rule)) == gone


def test_reading_an_entry_counts_as_using_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cached("cases", KEY, Counted())
    os.utime(the_file(), (1000.0, 1000.0))
    assert [e.used_s for e in entries()] == [1000.0]
    assert cache.is_cached("cases", KEY) and [e.used_s for e in entries()] == [1000.0]
    monkeypatch.setattr(cache.time, "time", lambda: 5000.0)
    cached("cases", KEY, Counted())
    assert [e.used_s for e in entries()] == [5000.0]


def test_an_entry_that_is_removed_stays_with_its_reader_and_is_computed_again() -> None:
    cached("cases", KEY, Counted())
    held = cached("cases", KEY, Counted())
    assert remove(entries()) > 0 and not cache.is_cached("cases", KEY)
    assert_same(held)
    again = Counted()
    cached("cases", KEY, again)
    assert again.num_calls == 1


def test_what_vanishes_while_it_is_removed_is_no_error() -> None:
    cached("cases", KEY, Counted())
    found = entries()
    assert remove(found) > 0
    assert remove(found) == 0


def unfinished(name: str) -> Entry:
    path = cache_dir() / "cases" / "ab" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half")
    (found,) = (e for e in entries() if e.path == path)
    return found


def test_only_what_a_dead_process_left_unfinished_is_abandoned() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = socket.gethostname()
    dead, alive = unfinished(f".k.{ended.pid}.x.{here}"), unfinished(f".k.{os.getpid()}.x.{here}")
    elsewhere = unfinished(f".k.{ended.pid}.x.not-{here}")
    now_s = dead.used_s + 60.0
    assert abandoned([dead, alive, elsewhere], now_s) == [dead]
    assert abandoned([dead, alive, elsewhere], now_s + cache.ABANDONED_S) == [dead, alive, elsewhere]


def test_a_writer_names_itself_so_that_others_know_whether_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "save_file", half)
    with pytest.raises(KeyboardInterrupt):
        cached("cases", KEY, Counted())
    (left,) = entries()
    assert not left.is_whole and abandoned([left], left.used_s) == []  # this process lives
    monkeypatch.setattr(cache.os, "kill", lambda pid, signal: (_ for _ in ()).throw(ProcessLookupError))
    assert abandoned([left], left.used_s) == [left]


def prune(*words: str) -> Any:
    return CliRunner().invoke(app, ["cache", *words])


def test_the_command_shows_and_prunes(monkeypatch: pytest.MonkeyPatch) -> None:
    cached("cases", KEY, Counted())
    cached("teachers", KEY, Counted())
    size = sum(e.num_bytes for e in entries())
    shown = json.loads(prune("--json").output)
    assert [(row["kind"], row["number"]) for row in shown["kinds"]] == [("cases", 1), ("teachers", 1)]
    assert sum(row["bytes"] for row in shown["kinds"]) == size
    assert "would remove 1 of 1" in prune("prune", "--kind", "cases", "--all", "--dry-run").output and len(entries()) == 2
    assert "removed 0 of 2" in prune("prune", "--older-than", "1d", "--max-size", "1GB").output
    assert "removed 1 of 1" in prune("prune", "--kind", "cases", "--all").output
    assert [e.kind for e in entries()] == ["teachers"]


def test_what_was_fetched_from_stores_is_pruned_but_no_run_that_its_store_may_lack(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store/run"
    (tmp_path / "store/run").mkdir(parents=True)
    (tmp_path / "store/run/manifest.json").write_text("{}")
    copy = local_copy(url)
    runs = {status: place_in_cache(f"s3://bucket/{status}", "run") for status in ("done", "failed")}
    for status, run_dir in runs.items():
        run_dir.mkdir(parents=True)
        (run_dir / "manifest.json").write_text(json.dumps({"status": status}))
    assert [(row["kind"], row["number"]) for row in json.loads(prune("--json").output)["kinds"]] == [("fetched", 1), ("runs", 1)]
    assert "removed 0 of 2" in prune("prune", "--older-than", "1h").output
    assert "removed 2 of 2" in prune("prune", "--all").output
    assert [run_dir.exists() for run_dir in (copy, runs["done"], runs["failed"])] == [False, False, True]
    assert (local_copy(url) / "manifest.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--all"),
        (("--older-than", "soon"), "30d"),
        (("--max-size", "10"), "10GB"),
        (("--all", "--kind", "case"), "did you mean 'cases'?"),
    ],
)
def test_the_command_refuses_what_it_cannot_read(words: tuple[str, ...], said: str) -> None:
    cached("cases", KEY, Counted())
    ended = prune("prune", *words)
    assert isinstance(ended.exception, RaykdError) and said in str(ended.exception)
    assert len(entries()) == 1


def test_sizes_and_spans_have_units() -> None:
    assert parse_quantity("1.5GiB", BYTES, "--max-size", "") == 1.5 * 2**30
    assert parse_quantity("2w", SECONDS, "--older-than", "") == 14 * 24 * 3600
