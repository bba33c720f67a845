"""How classes are found by their names: one of them without the others, and all of them where all are wanted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raykd.scenario import registry
from raykd.scenario.errors import RaykdError


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[registry.Registry]:
    """A registry of a package with the modules `apple`, `pear` and, named otherwise than its class, `stones`."""
    package = tmp_path / "things_of_a_test"
    package.mkdir()
    names = {"apple": "apple", "pear": "pear", "stones": "plum"}
    (package / "__init__.py").write_text("from raykd.scenario.registry import Registry\nTHINGS = Registry('thing', __name__)\n")
    for module, name in names.items():
        code = f"from {package.name} import THINGS\n@THINGS.register('{name}')\nclass Thing: ...\n"
        (package / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield __import__(package.name).THINGS
    for module in [module for module in sys.modules if module.startswith(package.name)]:
        del sys.modules[module]


def _imported() -> set[str]:
    return {module.rpartition(".")[2] for module in sys.modules if module.startswith("things_of_a_test.")}


def test_one_that_is_asked_for_is_imported_alone(things: registry.Registry) -> None:
    assert things.get("pear").__module__ == "things_of_a_test.pear"
    assert _imported() == {"pear"}
    assert "apple" in things and _imported() == {"apple", "pear"}


def test_one_in_a_module_of_another_name_is_found(things: registry.Registry) -> None:
    assert things.get("plum").__module__ == "things_of_a_test.stones"
    assert things.names() == ["apple", "pear", "plum"]


@pytest.mark.parametrize("name", ["stones", "aple", "", "..apple", ["apple"], None])
def test_what_is_not_registered_is_not_there(name: Any, things: registry.Registry) -> None:
    assert name not in things
    if isinstance(name, str):
        with pytest.raises(RaykdError, match=r"unknown thing .*apple"):
            things.get(name)


def test_a_plugin_of_a_name_that_is_taken_is_told_of(things: registry.Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    point = SimpleNamespace(name="apple", load=lambda: type("Other", (), {}))
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "raykd.things" else [])
    assert things.get("pear").__module__ == "things_of_a_test.pear"
    with pytest.raises(ValueError, match="'apple' is already registered"):
        things.get("apple")
