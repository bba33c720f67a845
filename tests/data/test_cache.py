"""A cache that computes once, bears damage and rivals, and takes nothing for the same that is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raykd.data import cache
from raykd.data.cache import Stored, cache_dir, cached, content_key
from raykd.scenario.training import Augmentation

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
