"""How classes are found by their names: one of them without the others, and all of them where all are wanted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
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


def install(folder: Path, distribution: str, *points: str, code: str = "") -> None:
    """A distribution as pip would leave it, with entry points of things and a module."""
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[raykd.things]", *points]))
    (folder / f"{distribution}.py").write_text(f"class Settings:\n    model_fields = {{'name': None}}\n{code}\n")


GOOD = "class Thing:\n    Settings = Settings"


@pytest.mark.parametrize(
    ("point", "code", "why"),
    [
        ("fig = bad:Thing", "import not_there", "importing bad:Thing failed: ModuleNotFoundError: No module named 'not_there'"),
        ("fig = bad:Thing", "raise SystemExit(3)", "SystemExit: 3"),
        ("fig = bad:Thing", "raise RuntimeError", "RuntimeError: it says no more"),
        ("fig = bad:Thin", GOOD, "AttributeError"),
        ("fig = bad:", GOOD, "cannot be used"),
        ("fig = bad:Thing", "class Thing: ...", "must be a class with Settings"),
        ("fig = bad:Thing", "Thing = 3", "must be a class with Settings"),
        ("fig = bad:Thing", "from things_of_a_test import THINGS\n@THINGS.register('fig')\nclass Thing: ...", "with Settings"),
        (
            "fig = bad:Thing",
            "from things_of_a_test import THINGS\n@THINGS.register('pear')\nclass Thing: ...",
            "already registered",
        ),
        ("pear = bad:Thing", GOOD, "raykd has one of that name"),
    ],
)
def test_a_plugin_that_fails_is_named_with_its_distribution_and_hides_nothing(
    point: str, code: str, why: str, things: registry.Registry, tmp_path: Path
) -> None:
    install(tmp_path, "bad", point, code=code)
    install(tmp_path, "good", "kiwi = good:Thing", code=GOOD)
    try:
        assert things.names() == ["apple", "kiwi", "pear", "plum"]
        (sentence,) = things.refused_plugins()
        assert "of bad 1.0 cannot be used" in sentence and why in sentence
        assert things.get("pear").__module__ == "things_of_a_test.pear"
        if point.startswith("fig"):
            with pytest.raises(RaykdError, match=r"unknown thing 'fig'; thing 'fig' of bad 1\.0"):
                things.get("fig")
    finally:
        for module in ("bad", "good"):
            sys.modules.pop(module, None)


def test_a_name_that_two_distributions_give_is_nobody_s(things: registry.Registry, tmp_path: Path) -> None:
    install(tmp_path, "one", "fig = one:Thing", code=GOOD)
    install(tmp_path, "two", "fig = two:Thing", code=GOOD)
    assert "fig" not in things
    (sentence,) = things.refused_plugins()
    assert (
        sentence == "thing 'fig' of one 1.0 and two 1.0 cannot be used: a name must be given by one distribution; remove the others"
    )


def test_entry_points_that_cannot_be_read_are_named_with_their_distribution(things: registry.Registry, tmp_path: Path) -> None:
    install(tmp_path, "bad", "no equals sign")
    install(tmp_path, "good", "kiwi = good:Thing", code=GOOD)
    assert "kiwi" in things
    assert any("of bad cannot be used" in sentence for sentence in things.refused_plugins())
    sys.modules.pop("good", None)
