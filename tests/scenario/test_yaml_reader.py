"""Scalars mean what a person means by them, and what cannot be a scenario is refused before it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raykd.scenario.errors import ScenarioError
from raykd.scenario.yaml_reader import parse_yaml, read_yaml, write_yaml

MEANINGS: dict[str, Any] = {
    "1e-3": 0.001,
    "2.0e-3": 0.002,
    "-1.5E+2": -150.0,
    ".5": 0.5,
    "3.": 3.0,
    "0": 0,
    "-12": -12,
    "+12": 12,
    "0o17": 15,
    "0xFf": 255,
    "no": "no",
    "On": "On",
    "yes": "yes",
    "y": "y",
    "1:30": "1:30",
    "1_000": "1_000",
    "2020-01-02": "2020-01-02",
    "0b1": "0b1",
    "٣": "٣",
    "nan": "nan",
    "inf": "inf",
    "true": True,
    "False": False,
    "null": None,
    "~": None,
    "'012'": "012",
    '"1e-3"': "1e-3",
    "'true'": "true",
    "'~'": "~",
    "[1, [no, {a: 1e3}]]": [1, ["no", {"a": 1000.0}]],
    "{1: one, true: yes, ~: x}": {"1": "one", "true": "yes", "~": "x"},
}


@pytest.mark.parametrize(("text", "meaning"), MEANINGS.items(), ids=str)
def test_scalars(text: str, meaning: Any) -> None:
    value = parse_yaml(text, "x.yaml").plain()
    assert value == meaning
    assert type(value) is type(meaning)


def test_places_are_those_of_the_keys() -> None:
    root = parse_yaml("a: 1\nb:\n  c: [5, 66,\n    777]\n", "x.yaml").value
    elements = root["b"].value["c"].value
    assert [(node.place.line, node.place.column) for node in (root["a"], root["b"], root["b"].value["c"], *elements)] == [
        (1, 1),
        (2, 1),
        (3, 3),
        (3, 7),
        (3, 10),
        (4, 5),
    ]


def test_all_problems_of_the_text_are_found() -> None:
    with pytest.raises(ScenarioError) as refusal:
        parse_yaml("a: 01\na: &x 2\nb: !t c\n", "x.yaml")
    assert [(problem.line, problem.path) for problem in refusal.value.problems] == [(1, "a"), (2, "a"), (2, "a"), (3, "b")]


def test_an_alias_bomb_is_refused() -> None:
    levels = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 12))
    with pytest.raises(ScenarioError, match="aliases are not allowed"):
        parse_yaml(f"l0: &l0 x\n{levels}", "x.yaml")


@pytest.mark.parametrize(
    ("raw", "refusal"),
    [
        (b"name: a\nseed: \xff1\n", "F:2:7: must be UTF-8 text, got byte 0xff"),
        ("name: a\n".encode("utf-16"), "F:1:1: must be UTF-8 text, got byte 0xff"),
        (b"a: " + b"x" * 2**20, "F: must not be larger than 1 MiB"),
        (b"", "F: is empty"),
        (b"a: b\nc: \x00\n", "F:2:4: must hold no control characters"),
        (b"%YAML 1" + b"1" * 5000 + b".0\n---\na: 1\n", "F: is not YAML: an escape or a version number is out of range"),
        (b"a: " + b"1" * 5000, 'F:1:4: a: must be a number below 2^63 in size, got "' + "1" * 76 + "..."),
        (b"[" * 20000, "F:1:33: must not be nested deeper than 32 levels"),
    ],
)
def test_files_that_no_one_should_read(raw: bytes, refusal: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(raw)
    with pytest.raises(ScenarioError) as error:
        read_yaml(file)
    assert str(error.value) == refusal.replace("F", str(file), 1)


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"\xef\xbb\xbfname: a\n")
    assert read_yaml(file).plain() == {"name": "a"}


def test_what_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="must be a file"):
        read_yaml(tmp_path)
    with pytest.raises(ScenarioError, match="cannot be read: No such file or directory"):
        read_yaml(tmp_path / "absent.yaml")


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"])) | st.sampled_from(
    [*MEANINGS, "", " a ", "012", ".nan", "<<", "=", "a\nb", "\n"]
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
DATA = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8)


@settings(derandomize=True, deadline=None)
@given(DATA)
def test_what_is_written_is_read_back(data: Any) -> None:
    assert parse_yaml(write_yaml({"data": data}), "x.yaml").plain() == {"data": data}
